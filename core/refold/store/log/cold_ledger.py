"""The cold ledger: the ids of purged events, as hashes in buckets.

An id needs 12 bytes there and no index of its own. `refold.chill` records that a range of positions is purged, in the
transaction that detaches its segment; `refold.chill_step` then moves the ids, and until it has, the ledger has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from refold.postgres.failpoints import failpoint
from refold.postgres.rows import one_row

TABLE = "refold.cold_ids"
"""Subject of damage to the cold ledger."""
NAMED = 1_000
"""Most damaged buckets that are named."""


@dataclass(frozen=True, slots=True)
class ColdLook:
    """The result of a look at buckets of the cold ledger.

    Args:
        ids: hashes in them.
        damaged: the first buckets that differ from their checksum.
        missing: hashes that were added to the cold ledger and are in no bucket; negative: there are more than were
            added. 0 if only a part was looked at.
        same: whether all of them together are those that were added.
    """

    ids: int
    damaged: Sequence[int]
    missing: int = 0
    same: bool = True

    @property
    def intact(self) -> bool:
        return not self.damaged and self.same

    def __str__(self) -> str:
        found = []
        if self.damaged:
            first = ", ".join(map(str, self.damaged[:5]))
            found.append(f"{len(self.damaged):,} buckets differ from their checksums: {first}")
        if self.missing:
            found.append(f"{abs(self.missing):,} ids {'are missing' if self.missing > 0 else 'too many'}")
        elif not self.same:
            found.append("other ids than were added")
        return "; ".join(found) or "intact"


def chill_step(conn: psycopg.Connection) -> int | None:
    """Move some ids of purged events from the ledger to the cold ledger.

    Args:
        conn: acts as refold_worker, in autocommit mode.

    Returns:
        The number of ids that were copied or deleted; None if nothing is left to do.
    """
    (moved,) = one_row(conn, "SELECT refold.chill_step()")
    failpoint("chilled")
    return None if moved is None else int(moved)


def waiting(conn: psycopg.Connection) -> bool:
    """Return whether ids of purged events have yet to move."""
    (left,) = one_row(conn, "SELECT EXISTS (SELECT FROM refold.cold_ranges WHERE released_to < upper_position)")
    return bool(left)


def look(conn: psycopg.Connection) -> ColdLook:
    """Compare all buckets with their checksums, and all ids with what was added.

    Args:
        conn: acts as refold_worker; the caller's transaction.
    """
    ids, damaged, missing, same = one_row(
        conn,
        f"""
        SELECT f.ids, f.damaged[:{NAMED}], t.ids - f.ids, t.ids = f.ids AND t.sum = f.sum
        FROM (
            SELECT coalesce(sum(cardinality(c.ids)), 0)::bigint AS ids,
                   coalesce(sum((SELECT sum(i) FROM unnest(c.ids) AS i)), 0) AS sum,
                   coalesce(array_agg(c.bucket ORDER BY c.bucket)
                            FILTER (WHERE c.checksum <> refold.cold_checksum(c.ids, c.digests)), '{{}}') AS damaged
            FROM refold.cold_ids AS c
        ) AS f
        CROSS JOIN (SELECT coalesce(sum(ids), 0)::bigint AS ids, coalesce(sum(sum), 0) AS sum FROM refold.cold_ranges)
            AS t
        """.encode(),
    )
    return ColdLook(int(ids), list(damaged), int(missing), bool(same))


def look_at_part(conn: psycopg.Connection, part: int, parts: int) -> ColdLook:
    """Compare a part of the buckets with their checksums.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        part: its number, from 0.
        parts: how many there are.
    """
    ids, damaged = one_row(
        conn,
        f"""
        SELECT coalesce(sum(cardinality(c.ids)), 0)::bigint,
               (coalesce(array_agg(c.bucket)
                         FILTER (WHERE c.checksum <> refold.cold_checksum(c.ids, c.digests)), '{{}}'))[:{NAMED}]
        FROM refold.settings AS s JOIN refold.cold_ids AS c
            ON c.bucket >= s.cold_buckets::bigint * %(part)s / %(parts)s
           AND c.bucket < s.cold_buckets::bigint * (%(part)s + 1) / %(parts)s
        """.encode(),
        {"part": part, "parts": parts},
    )
    return ColdLook(int(ids), list(damaged))
