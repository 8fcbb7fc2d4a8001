"""The duty that names captures that paused by themselves: their tables are written to without events."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from refold.postgres.session import plan_by_index
from refold.postgres.snapshot import snapshot
from refold.service.duties.findings import DutyFinding, record
from refold.store import captures
from refold.store.builds.compiled import Compiler
from refold.store.captures import COUNTED, Gaps

NAME = "capture gaps"


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Open and resolve the incidents `capture_gap`: until a backfill has closed the gap, or the capture is dropped."""
    with snapshot(conn):
        plan_by_index(conn)
        gaps = captures.gaps(conn, most=COUNTED)
        names = {one.capture_id: one.name for one in captures.every(conn)} if gaps else {}
    record(conn, "capture_gap", NAME, failed(names, gaps))


def failed(names: Mapping[int, str], gaps: Mapping[int, Gaps]) -> list[DutyFinding]:
    """Return the captures with a gap that an error began; a pause by command is no fault. Pure.

    Args:
        names: names of the captures, by their number.
        gaps: their gaps, by their number.
    """
    return [
        DutyFinding(
            names[capture_id],
            found.since,
            {
                "error": found.error,
                "paused": found.paused,
                "statements": found.statements,
                "more": found.statements >= COUNTED,
            },
        )
        for capture_id, found in gaps.items()
        if found.failed and capture_id in names
    ]
