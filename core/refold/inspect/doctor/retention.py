"""Check of what metrics keep: rows that should have gone are gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg

from refold.engine.retain.policy import Overdue, overdue
from refold.inspect.doctor.check import Check, looking
from refold.prose import counted
from refold.store import retentions
from refold.store.builds.compiled import Compiler
from refold.store.incidents import inspects

NAME = "retention"


def retention(folder: Path | None, conn: psycopg.Connection) -> list[Check]:
    """Check that no rows have been due for more than a day, where metrics do not keep all their rows.

    Args:
        folder: folder of projections, for transforms.
        conn: connection of the login.
    """
    with looking(conn):
        wanted = retentions.every(conn)
        if not wanted:
            return []
        if not inspects(conn):
            return [Check(NAME, "unseen", "only a login that may act as refold_inspector can tell which rows are due")]
        late = overdue(conn, Compiler(folder))
    return judged(late, len(wanted))


def judged(late: Sequence[Overdue], wanted: int) -> list[Check]:
    """Return the verdict on rows that are due. Pure.

    Args:
        late: metrics with rows that have been due for more than a day.
        wanted: number of metrics that do not keep all their rows.
    """
    checks = [
        Check(
            NAME,
            "warn",
            f"{one.metric} is to keep {one.wanted.words}, and has {counted(one.rows, 'row')} of earlier days,"
            " due for more than a day",
            "Workers let them go: see `workers` and `duties` here. `refold retain` tells what is kept.",
        )
        for one in late
    ]
    return checks or [Check(NAME, "ok", f"{counted(wanted, 'metric')} with a limit, and no row overdue")]
