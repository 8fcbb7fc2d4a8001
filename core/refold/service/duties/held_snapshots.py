"""The duty that detects sessions with old snapshots, which block vacuum."""

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
    """Open and resolve the incidents `held_snapshot`; each names the session and how to end it."""
    record(conn, "held_snapshot", NAME, findings(old(conn, read_settings(conn).held_snapshot_after)))


def findings(held: Sequence[Held]) -> list[DutyFinding]:
    """Return findings for held snapshots, except refold's own loads and audits, which end by themselves. Pure."""
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
