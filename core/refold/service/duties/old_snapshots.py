"""Old snapshots, before which nothing can be vacuumed: named while they are held."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from refold.postgres.old_snapshots import Held, old
from refold.service.duties.findings import DutyFinding, record
from refold.store.builds.compiled import Compiler
from refold.store.schema.settings import read_settings

NAME = "held snapshots"
OWN = ("refold worker", "refold duties")


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Opens and closes the incidents `held_snapshot`: each names who holds one, and what ends it."""
    record(conn, "held_snapshot", NAME, findings(old(conn, read_settings(conn).held_snapshot_after)))


def findings(held: Sequence[Held]) -> list[DutyFinding]:
    """What is said of them; a first load or an audit of refold's own comes to its end by itself. Pure."""
    return [
        DutyFinding(
            one.subject,
            one.since,
            {
                "application": one.application,
                "role": one.owner,
                "transactions": one.transactions,
                "seconds": None if one.seconds is None else round(one.seconds, 3),
                "remedy": one.remedy,
            },
        )
        for one in held
        if one.application not in OWN
    ]
