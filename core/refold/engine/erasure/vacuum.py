"""Removing the bytes of erased rows from the files of tables.

Rows of former versions stay in a table until it is rewritten, and values that were frequent in its statistics. VACUUM
FULL rewrites a segment that nobody writes to any more. A segment that producers write to is only vacuumed: its pages
are used again, and the proof says so.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from refold.engine.erasure.places import PLACES
from refold.model.sql_text import ident
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.rows import one_row
from refold.store.erasures import Erasure
from refold.store.log.seal import segments

ATTEMPTS = 20
"""Attempts to lock a segment, each of 200 ms."""


def vacuum(conn: psycopg.Connection, erasure: Erasure) -> dict[str, Any]:
    """Vacuum the tables that an erasure has changed; return what was done, by table.

    Args:
        conn: acts as refold_worker, in autocommit mode; says so if its login may not act as refold_owner.
        erasure: the erasure, after the log.
    """
    told: dict[str, Any] = {}
    slices = set(erasure.evidence.get("slices", ()))
    (last,) = one_row(conn, "SELECT last_value FROM refold.events_position")
    (owner,) = one_row(conn, "SELECT pg_has_role(session_user, 'refold_owner', 'MEMBER')")
    if not owner:
        return {"refold.events": "not vacuumed: this login may not act as refold_owner"}
    conn.execute("SET ROLE refold_owner")
    try:
        for segment in segments(conn):
            if slices & set(range(segment.lower >> POSITION_BITS, ((segment.upper - 1) >> POSITION_BITS) + 1)):
                told[segment.name] = (
                    _rewritten(conn, segment.name) if segment.upper <= last else _vacuumed(conn, segment.name)
                )
        # Each portion has cleaned them, and healing has recorded repairs, which went in the same transaction.
        for table in sorted(_OURS):
            _vacuumed(conn, table)
        # The statistics of the log as a whole.
        conn.execute("ANALYZE refold.events")
    finally:
        conn.execute("SET ROLE refold_worker")
    healed = {name for tables in erasure.evidence.get("metrics", {}).values() for name in tables}
    kept = conn.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'refold_builds' AND tablename = ANY (%s) ORDER BY 1",
        (sorted(healed),),
    ).fetchall()
    for (name,) in kept:
        _vacuumed(conn, f"refold_builds.{ident(name)}")
    return told


_OURS = {"refold.event_ids", *(place.table for place in PLACES)}


def _rewritten(conn: psycopg.Connection, table: str) -> str:
    conn.execute("SET lock_timeout = '200ms'")
    try:
        for _ in range(ATTEMPTS):
            try:
                conn.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(_named(table)))
                return "rewritten"
            except psycopg.errors.LockNotAvailable:
                continue
    finally:
        conn.execute("RESET lock_timeout")
    return f"{_vacuumed(conn, table)}; not rewritten, for sessions that read it kept it locked"


def _vacuumed(conn: psycopg.Connection, table: str) -> str:
    conn.execute(sql.SQL("VACUUM (ANALYZE) {}").format(_named(table)))
    return "vacuumed: its pages are used again"


def _named(table: str) -> sql.Composable:
    schema, _, name = table.partition(".")
    return sql.Identifier(schema, name.strip('"'))
