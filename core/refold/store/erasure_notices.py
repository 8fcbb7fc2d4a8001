"""Notices of erasures: each webhook is told of each erasure once, after the keys that the erasure has changed."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row

from refold.model.erasure import ErasureNotice


def add(conn: psycopg.Connection, erasure_id: int) -> None:
    """Let all webhooks be told of an erasure.

    Args:
        conn: the transaction in which nothing of the person is left in log and metrics.
        erasure_id: number of the erasure.
    """
    conn.execute(
        "INSERT INTO refold.erasure_notices (erasure_id, sink_id)"
        " SELECT %s, k.sink_id FROM refold.sinks AS k WHERE k.kind = 'webhook' ON CONFLICT DO NOTHING",
        (erasure_id,),
    )


def waits(conn: psycopg.Connection, sink_id: int) -> bool:
    """Return whether a sink has a notice to give."""
    query = "SELECT FROM refold.erasure_notices AS n WHERE n.sink_id = %s AND n.told_at IS NULL LIMIT 1"
    return conn.execute(query, (sink_id,)).rowcount > 0


def waiting(conn: psycopg.Connection, sink_id: int) -> list[ErasureNotice]:
    """Return the notices that a sink has to give, oldest first."""
    with conn.cursor(row_factory=class_row(ErasureNotice)) as cursor:
        return cursor.execute(
            """
            SELECT e.erasure_id, e.name, e.mode, (e.evidence ->> 'erased_at')::timestamptz AS erased_at,
                   c.events, c.mentions
            FROM refold.erasure_notices AS n
            JOIN refold.erasures AS e USING (erasure_id)
            CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE NOT x.mention) AS events, count(*) FILTER (WHERE x.mention) AS mentions
                FROM refold.erased_events AS x WHERE x.erasure_id = e.erasure_id AND x.done
            ) AS c
            WHERE n.sink_id = %s AND n.told_at IS NULL
            ORDER BY e.erasure_id
            """,
            (sink_id,),
        ).fetchall()


def told(conn: psycopg.Connection, sink_id: int, erasure_id: int, *, taken: bool) -> None:
    """Record that a receiver was told of an erasure.

    Args:
        conn: the transaction that records the delivery.
        sink_id: the sink.
        erasure_id: number of the erasure.
        taken: whether the receiver has confirmed; false: it refuses the notice.
    """
    conn.execute(
        "UPDATE refold.erasure_notices SET told_at = clock_timestamp(), taken = %s"
        " WHERE sink_id = %s AND erasure_id = %s AND told_at IS NULL",
        (taken, sink_id, erasure_id),
    )


def of_erasures(conn: psycopg.Connection) -> dict[int, list[dict[str, Any]]]:
    """Return for each erasure its notices: the sink, when it was told, and whether its receiver has confirmed."""
    found: dict[int, list[dict[str, Any]]] = {}
    with conn.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(
            "SELECT n.erasure_id, k.name AS sink, n.told_at, n.taken"
            " FROM refold.erasure_notices AS n JOIN refold.sinks AS k USING (sink_id) ORDER BY 1, 2"
        ):
            found.setdefault(row.pop("erasure_id"), []).append(row)
    return found
