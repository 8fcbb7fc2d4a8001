"""Sealing: storing the checksum of a slice of the log when no transaction can write to it any more.

A transaction has its id before it draws a position. So whoever may still write into a slice had an id when the
sequence passed the slice's end, a smaller one than whoever looks at the sequence and then gets his. Once every
transaction up to that one is over, nobody is left. (A snapshot would not do: its xmax is one more than the last id
that has *ended*, and beyond it there may be writers.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg

from refold.model.stream.slices import POSITION_BITS, position_slice
from refold.model.upkeep.checksums import EVENT_HASH, identity
from refold.postgres.rows import one_row
from refold.postgres.session import plan_freely

SECONDS = 10.0
"""For which sealing goes on, if there is so much to seal; the rest is for the next time."""
TOGETHER = 64
"""Slices that are sealed in one transaction: a million positions."""


PAIRED = """
    SELECT k.event_id AS known, e.event_id AS standing, k.position AS was, e.position AS stands,
           k.digest, refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version) AS content,
           count(e.event_id) OVER (PARTITION BY e.event_id, e.position) AS times
    FROM (SELECT * FROM refold.events WHERE position >= %(lower)s AND position < %(upper)s) AS e
    FULL JOIN (
        SELECT * FROM refold.event_ids
        WHERE position >= %(lower)s AND position < %(upper)s
          AND (position < 1 OR position >= (SELECT refold.log_floor()))
    ) AS k
        ON k.event_id = e.event_id AND k.position = e.position
"""
"""The events between two positions beside what the ledger says that must be there: ids of purged events stay in it."""
LOST = "standing IS NULL AND EXISTS (SELECT FROM refold.lost_events AS l WHERE l.event_id = known)"
"""Condition on such a pair: somebody has accepted that the event is not in the log any more."""
ERASED = """digest = 0 AND times < 2 AND EXISTS (
        SELECT FROM refold.erased_events AS x
        WHERE x.position = was AND x.done
          AND x.digest IS NOT DISTINCT FROM CASE WHEN standing IS NOT NULL THEN content END)"""
"""Condition on such a pair: an erasure has changed or removed the event, and what it left there stands there."""
DIFFERS = f"""(known IS NULL OR standing IS NULL OR digest <> content OR times > 1)
    AND NOT ({LOST}) AND NOT ({ERASED})"""
"""Condition on such a pair: the log is not what was written."""


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


@dataclass(frozen=True, slots=True)
class SliceChecksum:
    """What a slice of positions holds.

    Args:
        events: how many.
        upto: the greatest txid among them.
        ids: the sum of the hashes that say which they are.
        hash: the sum of the hashes of all that is in them.
    """

    events: int = 0
    upto: int = 0
    ids: int = 0
    hash: int = 0

    def __add__(self, other: SliceChecksum) -> SliceChecksum:
        upto = max(self.upto, other.upto)
        return SliceChecksum(self.events + other.events, upto, self.ids + other.ids, self.hash + other.hash)

    def __sub__(self, other: SliceChecksum) -> SliceChecksum:
        """Return the checksum without some of its events; which of the others has the greatest txid, it cannot say."""
        return SliceChecksum(self.events - other.events, self.upto, self.ids - other.ids, self.hash - other.hash)


def agree(one: SliceChecksum | None, other: SliceChecksum | None) -> bool:
    """Return whether two slices hold the same events. The greatest txid may have been that of an event that is lost."""
    a, b = (SliceChecksum() if side is None else side for side in (one, other))
    return (a.events, a.ids, a.hash) == (b.events, b.ids, b.hash)


def seal(conn: psycopg.Connection, *, seconds: float = SECONDS) -> list[int]:
    """Seal the slices that are ready, mark those that will be, and return the sealed ones.

    Call it now and then: each slice takes two looks, the second after all transactions of the first are over.

    Args:
        conn: acts as refold_worker, in autocommit mode: the id must be younger than the look at the sequence.
        seconds: after which it stops, for the next call to go on.
    """
    until = time.monotonic() + seconds
    note(conn)
    ready = conn.execute(
        "SELECT slice FROM refold.sealed_slices"
        " WHERE sealed_at IS NULL AND passed <= pg_snapshot_xmin(pg_current_snapshot()) ORDER BY slice"
    ).fetchall()
    sealed: list[int] = []
    for together in _portions([int(number) for (number,) in ready]):
        sealed += _seal(conn, together)
        if time.monotonic() >= until:
            break
    return sealed


def move(conn: psycopg.Connection, before: Mapping[int, SliceChecksum], after: Mapping[int, SliceChecksum]) -> None:
    """Change sealed checksums by the difference of what some events were and are, as they are changed.

    Args:
        conn: acts as refold_owner; the caller's transaction, which has changed the events or recorded their new file.
        before: what the events were, by slice.
        after: what they are.
    """
    none = SliceChecksum()
    changed = before.keys() | after.keys()
    # A difference does not tell the greatest txid of what is left.
    now = standing(conn, min(changed) << POSITION_BITS, (max(changed) + 1) << POSITION_BITS) if changed else {}
    for number in changed:
        change = after.get(number, none) - before.get(number, none)
        conn.execute(
            "UPDATE refold.sealed_slices SET events = events + %s, ids = ids + %s, hash = hash + %s,"
            " upto = %s::text::xid8 WHERE slice = %s AND sealed_at IS NOT NULL",
            (change.events, change.ids, change.hash, str(now.get(number, none).upto), number),
        )


def note(conn: psycopg.Connection) -> None:
    """Mark the slices whose ends the sequence has passed; cheap if there is none.

    Args:
        conn: acts as refold_worker, in autocommit mode: the id must be younger than the look at the sequence.
    """
    row = one_row(conn, "SELECT last_value + is_called::integer FROM refold.events_position")
    conn.execute(
        """
        INSERT INTO refold.sealed_slices (slice, passed)
        SELECT slice, pg_current_xact_id()
        FROM generate_series((SELECT coalesce(max(slice) + 1, 0) FROM refold.sealed_slices), %s::bigint - 1) AS slice
        ON CONFLICT DO NOTHING
        """,
        (row[0] >> POSITION_BITS,),
    )


def _portions(numbers: list[int]) -> Iterator[range]:
    """Group adjacent slices, up to a limit."""
    start = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1 or at - start == TOGETHER:
            yield range(numbers[start], numbers[at - 1] + 1)
            start = at


def _seal(conn: psycopg.Connection, numbers: range) -> list[int]:
    with conn.transaction():
        # An erasure, which changes events and checksums together, takes a lock that conflicts with this one.
        conn.execute("LOCK TABLE refold.sealed_slices IN ROW EXCLUSIVE MODE")
        lower, upper = numbers.start << POSITION_BITS, numbers.stop << POSITION_BITS
        # What stands there counts from now on. Damage would be taken for what was written.
        damaged = differing(conn, lower, upper)
        found = standing(conn, lower, upper)
        rows = [(number, found.get(number, SliceChecksum())) for number in numbers if number not in damaged]
        with conn.cursor() as cursor:
            cursor.executemany(
                "UPDATE refold.sealed_slices SET events = %s, upto = %s::text::xid8, ids = %s, hash = %s,"
                " sealed_at = clock_timestamp(), scrubbed_at = clock_timestamp()"
                " WHERE slice = %s AND sealed_at IS NULL",
                [(one.events, str(one.upto), one.ids, one.hash, number) for number, one in rows],
            )
        # Whoever burns positions must not fill this table. A slice that is not here is empty; the last one stays, for
        # it says how far this has got.
        conn.execute(
            "DELETE FROM refold.sealed_slices WHERE slice >= %s AND slice < %s AND events = 0"
            " AND slice < (SELECT max(slice) FROM refold.sealed_slices)",
            (numbers.start, numbers.stop),
        )
    return [number for number, _ in rows]


def unseal(conn: psycopg.Connection) -> None:
    """Delete the checksums of the slices whose events the log has, for workers to seal them again.

    Args:
        conn: acts as refold_worker or refold_owner; the caller's transaction.
    """
    conn.execute(
        f"DELETE FROM refold.sealed_slices WHERE (slice + 1)::bigint << {POSITION_BITS} > refold.log_floor()".encode()
    )


def differing(conn: psycopg.Connection, lower: int, upper: int) -> set[int]:
    """Return the slices between two positions in which log and ledger differ (see `refold.store.log.integrity`).

    Args:
        conn: the caller's transaction.
        lower: the first position.
        upper: the first that is too far.
    """
    plan_freely(conn)
    rows = conn.execute(
        f"""
        SELECT DISTINCT {position_slice()}
        FROM ({PAIRED}) AS k CROSS JOIN LATERAL (SELECT coalesce(stands, was) AS position) AS at
        WHERE {DIFFERS}
        """.encode(),
        {"lower": lower, "upper": upper},
    ).fetchall()
    return {int(number) for (number,) in rows}


def checksums(
    conn: psycopg.Connection, lower: int = -(2**63), upper: int = 2**63 - 1, *, rows_of: str = "refold.events"
) -> dict[int, SliceChecksum]:
    """Return the checksums of the events from one position to another, by slice.

    Args:
        conn: the caller's transaction.
        lower: the first position.
        upper: the first that is too far.
        rows_of: relation with the columns of the log; the log by default.
    """
    plan_freely(conn)
    # By way of the parent, which is what a worker may read; the planner leaves out the other segments.
    rows = conn.execute(
        f"""
        SELECT slice, count(*), max(txid)::text::bigint, sum({identity("0")}), sum({EVENT_HASH})
        FROM (SELECT {position_slice()} AS slice, * FROM {rows_of} WHERE position >= %s AND position < %s) AS e
        GROUP BY slice
        """.encode(),
        (lower, upper),
    ).fetchall()
    return {
        int(number): SliceChecksum(int(events), int(upto), int(ids), int(total))
        for number, events, upto, ids, total in rows
    }


def standing(conn: psycopg.Connection, lower: int = -(2**63), upper: int = 2**63 - 1) -> dict[int, SliceChecksum]:
    """Return the checksums of slices: of the events in the log, and of purged ones as the archive was proved to have.

    A segment that was purged may have ended in the middle of a slice.

    Args:
        conn: the caller's transaction.
        lower: the first position; it begins a slice.
        upper: the first that is too far; it begins a slice.
    """
    return together(checksums(conn, lower, upper), purged(conn, lower, upper))


def together(one: Mapping[int, SliceChecksum], other: Mapping[int, SliceChecksum]) -> dict[int, SliceChecksum]:
    """Return the checksums of slices of which two mappings have a part each. Pure."""
    none = SliceChecksum()
    return {number: one.get(number, none) + other.get(number, none) for number in one.keys() | other.keys()}


def purged(conn: psycopg.Connection, lower: int = -(2**63), upper: int = 2**63 - 1) -> dict[int, SliceChecksum]:
    """Return the checksums of the purged events of slices, as the archive was proved to have them.

    Args:
        conn: the caller's transaction.
        lower: the first position; it begins a slice.
        upper: the first that is too far; it begins a slice.
    """
    rows = conn.execute(
        """
        SELECT p.slice, p.events, p.upto::text::bigint, p.ids, p.hash
        FROM refold.archive_slices AS p JOIN refold.archives AS a USING (lower_position, generation)
        WHERE a.state = 'purged' AND p.slice >= %s AND p.slice < %s
        """,
        (max(lower >> POSITION_BITS, 0), min(upper >> POSITION_BITS, 2**31 - 1)),
    ).fetchall()
    found: dict[int, SliceChecksum] = {}
    for number, events, upto, ids, total in rows:
        part = SliceChecksum(int(events), int(upto), int(ids), int(total))
        found[int(number)] = found.get(int(number), SliceChecksum()) + part
    return found


def sealed(conn: psycopg.Connection, low: int, high: int) -> dict[int, SliceChecksum]:
    """Return the checksums of the sealed slices from one to another, both included; empty slices may be absent."""
    rows = conn.execute(
        "SELECT slice, events, upto::text::bigint, ids, hash FROM refold.sealed_slices"
        " WHERE sealed_at IS NOT NULL AND slice >= %s AND slice <= %s",
        (low, high),
    ).fetchall()
    return {
        int(number): SliceChecksum(int(events), int(upto), int(ids), int(total))
        for number, events, upto, ids, total in rows
    }


def segments(conn: psycopg.Connection) -> list[Segment]:
    """Return the log's segments, in order."""
    rows = conn.execute(
        "SELECT format('refold.%I', c.relname), g.lower_position, g.upper_position"
        " FROM refold.segments AS g JOIN pg_class AS c ON c.oid = g.segment ORDER BY g.lower_position"
    ).fetchall()
    return [Segment(*one) for one in rows]
