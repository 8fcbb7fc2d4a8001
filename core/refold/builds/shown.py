"""Whether `metrics` shows what it should: the view of every live metric, and that as refold made it."""

from __future__ import annotations

import psycopg
from psycopg import sql

from refold.builds.build import Build, find
from refold.builds.upkeeper import Upkeeper, Upkeepers
from refold.builds.views import METRICS_SCHEMA, once_let_go, stands, switch_view
from refold.errors import RefoldError

PATIENCE = 10.0
"""Seconds for which a view that is not what it should be waits for those who read it."""

_SHOWN = """
SELECT pg_get_viewdef(v.oid) = pg_get_viewdef('pg_temp.refold_shown'::regclass)
FROM pg_class AS v WHERE v.oid = to_regclass(%s) AND v.relkind = 'v'
"""


def is_shown(conn: psycopg.Connection, name: str, keeper: Upkeeper) -> bool:
    """Whether a metric's view stands, and is the one that refold makes; takes no lock that a reader waits for.

    Args:
        conn: the caller's transaction, as refold_worker; it may write.
        name: the metric.
        keeper: the SQL of its live build.
    """
    with conn.transaction(force_rollback=True):
        conn.execute(sql.SQL("CREATE TEMPORARY VIEW refold_shown AS {}").format(sql.SQL(keeper.statements.view)))
        row = conn.execute(_SHOWN, (sql.Identifier(METRICS_SCHEMA, name).as_string(conn),)).fetchone()
    return row == (True,)


def hidden(conn: psycopg.Connection, upkeepers: Upkeepers) -> list[str]:
    """The live metrics that their views do not show; as far as their code is here.

    Args:
        conn: acts as refold_worker, in autocommit mode; or the caller's transaction, which may write.
        upkeepers: the SQL of builds.
    """
    found: list[str] = []
    for build in find(conn, "b.state = 'live'"):
        try:
            keeper = upkeepers.of(conn, build)
        except RefoldError:
            # Its transform is not here, or is another: that is told with the files.
            shown = stands(conn, build.projection)
        else:
            shown = is_shown(conn, build.projection, keeper)
        found += [] if shown else [build.projection]
    return found


def shown_again(
    conn: psycopg.Connection, build: Build, upkeepers: Upkeepers, *, recreate_foreign: bool = False
) -> bool:
    """Makes the view of a live build again, if it is not what it should be; says whether it was so.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        build: the build.
        upkeepers: the SQL of builds.
        recreate_foreign: where its columns change by that, also make again views outside `metrics`.

    Raises:
        BuildError: a reader holds the view, or others' views stand on what stands there now.
    """
    try:
        keeper = upkeepers.of(conn, build)
    except RefoldError:
        # A transform that is not here: whoever has it can look.
        return False
    if is_shown(conn, build.projection, keeper):
        return False

    def switch() -> bool:
        # Under the lock of the build: a promote may have taken its view meanwhile.
        row = conn.execute(
            "SELECT state FROM refold.builds WHERE build_id = %s FOR KEY SHARE", (build.build_id,)
        ).fetchone()
        if row != ("live",):
            return False
        switch_view(conn, build.projection, keeper, recreate_foreign=recreate_foreign)
        return True

    return once_let_go(
        conn,
        PATIENCE,
        switch,
        held=f"metrics.{build.projection} is not the view of its metric, and a session holds it",
        then="`refold deploy`",
    )
