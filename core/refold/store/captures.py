"""Captures as they are recorded: what was deployed, which statements went without events, and backfills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from refold.errors import InputError
from refold.postgres.rows import one_row
from refold.store.schema.installed import insist_on
from refold.suggest import did_you_mean

_COLUMNS = """
    capture_id, name, table_schema, table_name, definition, fingerprint, operations, key, columns, functions, triggers,
    two_phase, created_at, changed_at, changed_by
"""

_GAPS = """
SELECT c.capture_id,
       EXISTS (SELECT FROM refold.capture_gaps AS p WHERE p.capture_id = c.capture_id AND p.pauses),
       seen.since, seen.statements, failed.error IS NOT NULL, failed.error[1]
FROM refold.captures AS c
CROSS JOIN LATERAL (
    SELECT min(g.at) AS since, count(g.operation) AS statements
    FROM (
        SELECT g.at, g.operation
        FROM refold.capture_gaps AS g WHERE g.capture_id = c.capture_id ORDER BY g.gap_id LIMIT %s
    ) AS g
) AS seen
LEFT JOIN LATERAL (
    SELECT ARRAY[{error}::text] AS error
    FROM refold.capture_gaps AS e
    WHERE e.capture_id = c.capture_id AND e.sqlstate IS NOT NULL ORDER BY e.gap_id DESC LIMIT 1
) AS failed ON true
WHERE seen.since IS NOT NULL
"""

COUNTED = 1_000
"""Most statements without events that are counted where the answer is asked for again and again."""
STEP = 1000
"""Rows that a backfill reads in a transaction."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture as it was deployed.

    Args:
        capture_id: its number.
        name: its name.
        table_schema: schema of its table.
        table_name: its table.
        definition: text of its file.
        fingerprint: hash of the SQL that was generated.
        operations: the operations that it captures.
        key: columns that identify a row; empty if there are none.
        columns: names and types of the table's columns at the deploy.
        functions: MD5 of the body of each function, by its name.
        triggers: names of the triggers, by the table as SQL names it.
        two_phase: whether its events come without a NOTIFY.
        created_at: when it was first deployed, UTC.
        changed_at: when it was last deployed, UTC.
        changed_by: login that deployed it last.
    """

    capture_id: int
    name: str
    table_schema: str
    table_name: str
    definition: str
    fingerprint: str
    operations: list[str]
    key: list[str]
    columns: list[str]
    functions: Mapping[str, str]
    triggers: Mapping[str, list[str]]
    two_phase: bool
    created_at: datetime
    changed_at: datetime
    changed_by: str

    @property
    def fills(self) -> bool:
        """Return whether a backfill can add events of its rows."""
        return bool(self.key) and "insert" in self.operations


@dataclass(frozen=True, slots=True)
class Gaps:
    """Statements on a captured table that made no events.

    Args:
        paused: whether the capture pauses.
        since: when the first of them ran, or the pause began, UTC; None without any.
        statements: their number; a lower bound if it is more than was asked for.
        failed: whether one of them was kept by an error from adding its events; otherwise the pause was by command.
        error: the last such error, or None.
    """

    paused: bool
    since: datetime | None
    statements: int
    failed: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill of a capture.

    Args:
        backfill_id: its number.
        capture_id: its capture.
        started_at: when it began, UTC.
        last: key of the last row that was read; None before the first.
        seen: rows that were read.
        added: rows that had no event until then.
        finished_at: when it ended, UTC; None before.
    """

    backfill_id: int
    capture_id: int
    started_at: datetime
    last: list[str] | None
    seen: int
    added: int
    finished_at: datetime | None


def insist_on_tables(conn: psycopg.Connection) -> None:
    """Raise NotInstalled if the database is of a version without captures."""
    insist_on(conn, "refold.captures")


def every(conn: psycopg.Connection) -> list[Capture]:
    """Return all captures, by name."""
    with conn.cursor(row_factory=class_row(Capture)) as cursor:
        return cursor.execute(f"SELECT {_COLUMNS} FROM refold.captures ORDER BY name".encode()).fetchall()


def known(conn: psycopg.Connection, name: str) -> Capture:
    """Return a capture by its name; raise InputError with a suggestion if there is none."""
    found = {one.name: one for one in every(conn)}
    if name not in found:
        raise InputError(
            f"there is no capture {name!r}.{did_you_mean(name, found)}", remedy="`refold captures list` shows them."
        )
    return found[name]


def reserve(conn: psycopg.Connection) -> int:
    """Return the number of a capture to come."""
    row = one_row(conn, "SELECT nextval(pg_get_serial_sequence('refold.captures', 'capture_id'))")
    return int(row[0])


def record(conn: psycopg.Connection, capture_id: int, values: Mapping[str, Any]) -> None:
    """Record a capture as it is deployed now.

    Args:
        conn: the caller's transaction, as refold_capture.
        capture_id: its number.
        values: its columns; see `Capture`.
    """
    given = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in values.items()}
    conn.execute(
        """
        INSERT INTO refold.captures AS c (
            capture_id, name, table_schema, table_name, definition, fingerprint, operations, key, columns, functions,
            triggers, two_phase
        ) OVERRIDING SYSTEM VALUE VALUES (
            %(capture_id)s, %(name)s, %(table_schema)s, %(table_name)s, %(definition)s, %(fingerprint)s,
            %(operations)s, %(key)s, %(columns)s, %(functions)s, %(triggers)s, %(two_phase)s
        )
        ON CONFLICT (name) DO UPDATE SET
            table_schema = EXCLUDED.table_schema, table_name = EXCLUDED.table_name, definition = EXCLUDED.definition,
            fingerprint = EXCLUDED.fingerprint, operations = EXCLUDED.operations, key = EXCLUDED.key,
            columns = EXCLUDED.columns, functions = EXCLUDED.functions, triggers = EXCLUDED.triggers,
            two_phase = EXCLUDED.two_phase, changed_at = now(), changed_by = session_user
        """,
        {"capture_id": capture_id, **given},
    )


def forget(conn: psycopg.Connection, capture: Capture) -> None:
    """Delete the record of a capture with its gaps and backfills; its events stay in the log."""
    conn.execute("DELETE FROM refold.capture_gaps WHERE capture_id = %s", (capture.capture_id,))
    conn.execute("DELETE FROM refold.captures WHERE capture_id = %s", (capture.capture_id,))


def gaps(conn: psycopg.Connection, *, most: int | None = None) -> dict[int, Gaps]:
    """Return the gaps of the captures that have any, by the number of the capture. An observer does not see errors.

    Args:
        conn: any connection that may read them.
        most: the most records of a capture that are read; None reads all. Each statement during a pause adds one.
    """
    (readable,) = one_row(conn, "SELECT has_column_privilege('refold.capture_gaps', 'error', 'SELECT')")
    query = _GAPS.replace("{error}", "e.error" if readable else "NULL")
    rows = conn.execute(query.encode(), (most,)).fetchall()
    return {capture_id: Gaps(*rest) for capture_id, *rest in rows}


def pause(conn: psycopg.Connection, capture: Capture) -> bool:
    """Pause a capture; return False if it pauses already. Each statement from now on is recorded as a gap."""
    return bool(
        conn.execute(
            "INSERT INTO refold.capture_gaps (capture_id, pauses) SELECT %s, true WHERE NOT EXISTS ("
            "SELECT FROM refold.capture_gaps WHERE capture_id = %s AND pauses)",
            (capture.capture_id, capture.capture_id),
        ).rowcount
    )


def resume(conn: psycopg.Connection, capture: Capture) -> bool:
    """Resume a capture; return False if it does not pause.

    Its gaps stay until a backfill closes them. Without a backfill, because the capture captures no inserts or its table
    has no key, nothing can be added, and they are closed.
    """
    with conn.transaction():
        ended = conn.execute(
            "UPDATE refold.capture_gaps SET pauses = false WHERE capture_id = %s AND pauses", (capture.capture_id,)
        ).rowcount
        # A pause without a statement is no gap.
        conn.execute(
            "DELETE FROM refold.capture_gaps WHERE capture_id = %s AND operation IS NULL AND NOT EXISTS ("
            "SELECT FROM refold.capture_gaps WHERE capture_id = %s AND operation IS NOT NULL)",
            (capture.capture_id, capture.capture_id),
        )
        if not capture.fills:
            conn.execute("DELETE FROM refold.capture_gaps WHERE capture_id = %s AND NOT pauses", (capture.capture_id,))
    return bool(ended)


def backfills(conn: psycopg.Connection) -> dict[int, Backfill]:
    """Return the latest backfill of each capture that had one, without keys, by the number of the capture."""
    with conn.cursor(row_factory=class_row(Backfill)) as cursor:
        found = cursor.execute(
            "SELECT DISTINCT ON (capture_id) backfill_id, capture_id, started_at, NULL AS last, seen, added,"
            " finished_at FROM refold.backfills ORDER BY capture_id, backfill_id DESC"
        ).fetchall()
    return {one.capture_id: one for one in found}


def begin_backfill(conn: psycopg.Connection, capture: Capture) -> Backfill:
    """Return the backfill of a capture that was interrupted, or a new one.

    Args:
        conn: in autocommit mode, as refold_capture.
        capture: the capture.
    """
    conn.execute(
        "INSERT INTO refold.backfills (capture_id, snapshot) VALUES (%s, pg_current_snapshot())"
        " ON CONFLICT (capture_id) WHERE finished_at IS NULL DO NOTHING",
        (capture.capture_id,),
    )
    return open_backfill(conn, capture)


def open_backfill(conn: psycopg.Connection, capture: Capture) -> Backfill:
    """Lock the open backfill of a capture, if in a transaction, and return it."""
    return one_row(
        conn,
        "SELECT backfill_id, capture_id, started_at, last, seen, added, finished_at FROM refold.backfills"
        " WHERE capture_id = %s AND finished_at IS NULL FOR UPDATE",
        (capture.capture_id,),
        row=class_row(Backfill),
    )


def after_step(conn: psycopg.Connection, backfill: Backfill) -> Backfill:
    """Return a backfill as it is recorded now."""
    return one_row(
        conn,
        "SELECT backfill_id, capture_id, started_at, last, seen, added, finished_at FROM refold.backfills"
        " WHERE backfill_id = %s",
        (backfill.backfill_id,),
        row=class_row(Backfill),
    )


def step(conn: psycopg.Connection, backfill: Backfill, seen: int, added: int, last: Sequence[str] | None) -> None:
    """Record a step of a backfill, in the transaction that stores its events."""
    conn.execute(
        "UPDATE refold.backfills SET seen = seen + %s, added = added + %s, last = coalesce(%s, last),"
        " stepped_at = clock_timestamp() WHERE backfill_id = %s",
        (seen, added, None if last is None else list(last), backfill.backfill_id),
    )


def finish(conn: psycopg.Connection, backfill: Backfill) -> None:
    """End a backfill, and close the gaps of all statements that it has seen."""
    conn.execute(
        "DELETE FROM refold.capture_gaps AS g USING refold.backfills AS b"
        " WHERE b.backfill_id = %s AND g.capture_id = b.capture_id AND NOT g.pauses"
        " AND pg_visible_in_snapshot(g.txid, b.snapshot)",
        (backfill.backfill_id,),
    )
    conn.execute(
        "UPDATE refold.backfills SET finished_at = clock_timestamp(), last = NULL WHERE backfill_id = %s",
        (backfill.backfill_id,),
    )
