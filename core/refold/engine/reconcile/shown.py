"""The view of a metric as part of its audit: analysts see correct rows only through a correct view."""

from __future__ import annotations

import psycopg

from refold.engine.publish.shown import LOCK_WAIT_S, is_hidden, shown_again, standing
from refold.engine.reconcile.result import Hidden
from refold.errors import BuildError
from refold.postgres.sqlstate import transient
from refold.store import incidents
from refold.store.builds.build import Build
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import described

DUTY_LOCK_WAIT_S = 1.0
"""Seconds for which a duty waits for sessions that read a view, before its next run tries again."""


def audit_view(
    conn: psycopg.Connection, compiler: Compiler, build: Build, *, heals: bool, by: str, duty: bool = False
) -> Hidden | None:
    """Audit the view of a metric, recreate it if it is missing or differs, and return the finding, if any.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds.
        build: the metric's live build.
        heals: whether to recreate the view and record an incident; False only reports.
        by: name of the program, for the incident.
        duty: whether a duty calls it, which must not wait for long.
    """
    name = build.projection
    known = incidents.open_incidents(conn, "hidden", subject=name)
    if not is_hidden(conn, build, compiler):
        if heals and known:
            incidents.resolve(conn, "hidden", name, by=by, outcome={"because": "its view is correct"})
        return None
    if not heals:
        return Hidden(name, healed=False)
    # Keep the text of the view that is replaced: its author may want it back.
    text = standing(conn, name)
    incidents.detect(conn, "hidden", name, by=by, evidence={} if known and text is None else {"stood": text})
    try:
        made = shown_again(conn, build, compiler, by=by, seconds=DUTY_LOCK_WAIT_S if duty else LOCK_WAIT_S)
        why = None if made else BuildError(
            f"the code of transform {name} is missing", remedy="Name the folder that was deployed: --projections DIR."
        )  # fmt: skip
    except (BuildError, psycopg.Error) as error:
        if transient(error) or conn.closed:
            raise
        why = error if isinstance(error, BuildError) else BuildError(described(error))
    if why is None:
        return Hidden(name, healed=True)
    incidents.detect(conn, "hidden", name, by=by, evidence={"not_healed": str(why)})
    return Hidden(name, healed=False, because=str(why), remedy=why.remedy)
