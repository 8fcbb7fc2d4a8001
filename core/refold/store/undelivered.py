"""Rows that a receiver refused: set aside, so that the others go on, and delivered when they change or when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from refold.postgres.rows import one_row

POSITIONS = """
    SELECT u.undelivered_id, u.sink_id, i.position
    FROM refold.undelivered AS u
    -- The rows that a transform returns in a list have the event's id and a number.
    JOIN refold.event_ids AS i ON i.event_id = ANY (
        ARRAY[u.key ->> 'event_id', regexp_replace(u.key ->> 'event_id', '#[0-9]+$', '')])
    WHERE u.state = 'waiting'
"""
"""The query for rows of event sinks that wait, with the positions of their events, as far as the ledger knows these."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A row of `refold.undelivered` that waits.

    Args:
        undelivered_id: its number.
        key: key of the row.
        slice: slice of the row.
        attempts: how often it was refused.
        status: status of the last answer.
        error: what the receiver said last.
        first_failed_at: when it was refused first, UTC.
        last_failed_at: when it was refused last, UTC.
    """

    undelivered_id: int
    key: dict[str, Any]
    slice: int
    attempts: int
    status: str
    error: str
    first_failed_at: datetime
    last_failed_at: datetime


def add(conn: psycopg.Connection, sink_id: int, refused: Sequence[tuple[str, int, str, str]]) -> None:
    """Set rows aside, or count another attempt.

    Args:
        conn: the transaction that records the delivery.
        sink_id: the sink.
        refused: for each row its key as JSON, its slice, the status and the error.
    """
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO refold.undelivered AS u (sink_id, key, slice, status, error) VALUES (%s, %s::jsonb, %s, %s, %s)
            ON CONFLICT (sink_id, md5(key::text)) WHERE state = 'waiting'
            DO UPDATE SET attempts = u.attempts + 1, status = excluded.status, error = excluded.error,
                slice = excluded.slice, last_failed_at = now()
            """,
            [(sink_id, *one) for one in refused],
        )


def delivered(conn: psycopg.Connection, sink_id: int, keys: Sequence[str]) -> None:
    """Close the records of rows that the receiver took now."""
    if not waiting(conn, sink_id):
        return
    conn.execute(
        "UPDATE refold.undelivered SET state = 'delivered', ended_at = now(), ended_by = session_user"
        " WHERE sink_id = %s AND state = 'waiting' AND md5(key::text) IN (SELECT md5(k) FROM unnest(%s::text[]) AS k)",
        (sink_id, list(keys)),
    )


def settle(conn: psycopg.Connection, sink_id: int, slice_: int, refused: Sequence[str]) -> None:
    """Close the records of a slice that the receiver has as it is, except for rows that it refused now."""
    conn.execute(
        "UPDATE refold.undelivered SET state = 'delivered', ended_at = now(), ended_by = session_user"
        " WHERE sink_id = %s AND slice = %s AND state = 'waiting'"
        " AND md5(key::text) NOT IN (SELECT md5(k) FROM unnest(%s::text[]) AS k)",
        (sink_id, slice_, list(refused)),
    )


def waiting(conn: psycopg.Connection, sink_id: int) -> int:
    """Return the number of rows of a sink that wait."""
    row = one_row(conn, "SELECT count(*) FROM refold.undelivered WHERE sink_id = %s AND state = 'waiting'", (sink_id,))
    return int(row[0])


def slices(conn: psycopg.Connection, sink_id: int) -> set[int]:
    """Return the slices of rows that wait."""
    rows = conn.execute(
        "SELECT DISTINCT slice FROM refold.undelivered WHERE sink_id = %s AND state = 'waiting'", (sink_id,)
    ).fetchall()
    return {int(one) for (one,) in rows}


def every(conn: psycopg.Connection, sink_id: int) -> list[Undelivered]:
    """Return the rows of a sink that wait, oldest first."""
    with conn.cursor(row_factory=class_row(Undelivered)) as cursor:
        return cursor.execute(
            "SELECT undelivered_id, key, slice, attempts, status, error, first_failed_at, last_failed_at"
            " FROM refold.undelivered WHERE sink_id = %s AND state = 'waiting' ORDER BY undelivered_id",
            (sink_id,),
        ).fetchall()


def drop(conn: psycopg.Connection, sink_id: int, reason: str) -> int:
    """Drop the rows of a sink that wait, and record the reason; return their number."""
    return conn.execute(
        "UPDATE refold.undelivered SET state = 'dropped', ended_at = now(), ended_by = session_user, reason = %s"
        " WHERE sink_id = %s AND state = 'waiting'",
        (reason, sink_id),
    ).rowcount


def drop_some(conn: psycopg.Connection, chosen: Sequence[int], reason: str) -> int:
    """Drop rows that still wait, by their numbers, and record the reason; return how many."""
    return conn.execute(
        "UPDATE refold.undelivered SET state = 'dropped', ended_at = now(), ended_by = session_user, reason = %s"
        " WHERE undelivered_id = ANY (%s) AND state = 'waiting'",
        (reason, list(chosen)),
    ).rowcount


def positions(conn: psycopg.Connection, sink_id: int) -> dict[int, int | None]:
    """Return the rows of an event sink that wait, each with its event's position; None: the event has left the log."""
    rows = conn.execute(
        f"SELECT u.undelivered_id, max(p.position) FROM refold.undelivered AS u"
        f" LEFT JOIN ({POSITIONS}) AS p USING (undelivered_id)"
        " WHERE u.sink_id = %s AND u.state = 'waiting' GROUP BY 1".encode(),
        (sink_id,),
    ).fetchall()
    return dict(rows)


def keys(sink_id: int) -> sql.Composable:
    """Return the query for the rows of a sink that wait: slice and key."""
    return sql.SQL("SELECT slice, key FROM refold.undelivered WHERE sink_id = {} AND state = 'waiting'").format(
        sql.Literal(sink_id)
    )


def columns(conn: psycopg.Connection, sink_id: int) -> list[str]:
    """Return the columns of the keys of the rows that wait."""
    rows = conn.execute(
        "SELECT DISTINCT jsonb_object_keys(key) FROM refold.undelivered WHERE sink_id = %s AND state = 'waiting'",
        (sink_id,),
    ).fetchall()
    return [str(name) for (name,) in rows]
