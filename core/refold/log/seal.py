"""Sealing: the figures of a segment, taken once nothing can be written to it any more.

A transaction has its id before it draws a position. So whoever may still write into a segment had an id when the
sequence passed the segment's end, and was in progress in a snapshot taken after that, or is over. Once the oldest
transaction in progress is younger than everything in that snapshot, nobody is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

ROW_HASH = (
    "hash_record_extended(ROW(txid, position, event_id, user_id, action, ts, metadata::text, version, recorded_at), 0)"
)
"""Hash of all of an event. The metadata as text: here how a number was written counts too."""


# By way of the parent, which is what a worker may read; the planner leaves out the other segments.
WITHIN = "position >= %(lower)s::bigint AND position < %(upper)s::bigint"
"""Condition on an event: it is in the segment whose `bounds` are the parameters."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A partition of the log.

    Args:
        name: its table, qualified.
        lower: first position.
        upper: first position behind it.
    """

    name: str
    lower: int
    upper: int

    @property
    def bounds(self) -> dict[str, int]:
        """As the parameters of `WITHIN`."""
        return {"lower": self.lower, "upper": self.upper}


def seal(conn: psycopg.Connection) -> list[Segment]:
    """Seals the segments that are ready, and notes those that will be; returns the ones that were sealed.

    Call it now and then: of each segment it takes two looks, the second after all transactions of the first are over.

    Args:
        conn: acts as refold_worker, in autocommit mode: each statement must be a transaction, and its snapshot
            younger than the look at the sequence.
    """
    row = conn.execute("SELECT last_value FROM refold.events_position").fetchone()
    assert row is not None
    # A snapshot goes as far as the last transaction that has *ended*, and says nothing of younger ones in progress,
    # which may have drawn a position all the same. One that begins now, and ends, puts all of them below its bound.
    conn.execute("SELECT pg_current_xact_id()")
    conn.execute(
        """
        INSERT INTO refold.sealed (lower_position, upper_position, passed)
        SELECT lower_position, upper_position, pg_current_snapshot()
        FROM refold.segments WHERE upper_position <= %s
        ON CONFLICT DO NOTHING
        """,
        (row[0],),
    )
    ready = conn.execute(
        """
        SELECT format('refold.%I', c.relname), g.lower_position, g.upper_position
        FROM refold.sealed AS s
        JOIN refold.segments AS g USING (lower_position, upper_position)
        JOIN pg_class AS c ON c.oid = g.segment
        WHERE s.sealed_at IS NULL AND pg_snapshot_xmin(pg_current_snapshot()) > pg_snapshot_xmax(s.passed)
        ORDER BY lower_position
        """
    ).fetchall()
    sealed = [Segment(*one) for one in ready]
    for segment in sealed:
        with conn.transaction():
            events, total = figures(conn, segment)
            conn.execute(
                "UPDATE refold.sealed SET events = %s, hash = %s, sealed_at = clock_timestamp()"
                " WHERE lower_position = %s AND sealed_at IS NULL",
                (events, total, segment.lower),
            )
    return sealed


def segments(conn: psycopg.Connection) -> list[Segment]:
    """The log's segments, in order."""
    rows = conn.execute(
        "SELECT format('refold.%I', c.relname), g.lower_position, g.upper_position"
        " FROM refold.segments AS g JOIN pg_class AS c ON c.oid = g.segment ORDER BY g.lower_position"
    ).fetchall()
    return [Segment(*one) for one in rows]


def figures(conn: psycopg.Connection, segment: Segment) -> tuple[int, int]:
    """How many events a segment holds, and the sum of their hashes."""
    row = conn.execute(
        f"SELECT count(*), coalesce(sum({ROW_HASH}), 0) FROM refold.events WHERE {WITHIN}".encode(),
        segment.bounds,
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
