"""Stored checksums of a build's tables, and their comparison with the rows, without reading the log.

A checksum is its row in `refold.checksums` and all its rows in `refold.checksum_changes`, which `fold` adds up. Whoever
reads both does it in one statement, or in one snapshot: then it makes no difference whether they have been added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from refold.model.sql_text import EVERYTHING
from refold.model.stream.slices import EVERY_SLICE, NO_DAY, Range, multirange
from refold.model.upkeep.checksums import actual
from refold.model.upkeep.statements import Kept
from refold.postgres.rows import one_row


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A slice that differs from what refold has written or read.

    Args:
        relation: which table of the build, by its place among its relations; READ for its stream.
        slice: which slice.
        recorded: rows that refold has written, or read.
        actual: rows that are there. Equal numbers: the rows are others.
        hash: what their hashes add up to, less what is recorded.
    """

    relation: int
    slice: int
    recorded: int
    actual: int
    hash: int

    @property
    def signature(self) -> tuple[int, int, int]:
        """Return the difference, which later writes and reads do not change."""
        return self.slice, self.actual - self.recorded, self.hash


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison of checksums.

    Args:
        relation: of which table they are.
        actual: a query for slice, rows and hash.
        kept: condition on the checksums that must be the same.
    """

    relation: int
    actual: str
    kept: str = EVERYTHING


def take(conn: psycopg.Connection, build_id: int, relations: Sequence[Kept]) -> None:
    """Store the checksums of all rows of a build, in the transaction that has loaded them."""
    for at, relation in enumerate(relations):
        keep(conn, build_id, Side(at, actual(relation)), {})


def keep(conn: psycopg.Connection, build_id: int, side: Side, parameters: Mapping[str, object]) -> None:
    """Replace the stored checksums of a relation; the caller holds the build's lock."""
    # All changes of the build, in whichever relation: a `fold` that has one in hand might wait for a checksum that this
    # transaction has deleted, and this one for that change.
    conn.execute(b"SELECT FROM refold.checksum_changes WHERE build_id = %s FOR UPDATE", (build_id,))
    # The changes first: a `fold` that had them in hand is over, and the second statement sees what it wrote.
    for table in ("checksum_changes", "checksums"):
        conn.execute(
            f"DELETE FROM refold.{table} WHERE build_id = %s AND relation = %s".encode(), (build_id, side.relation)
        )
    # By way of the client: what an INSERT reads is never read in parallel.
    found = conn.execute(side.actual.encode(), parameters).fetchall()
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO refold.checksums (build_id, relation, slice, rows, hash) VALUES (%s, %s, %s, %s, %s)",
            [(build_id, side.relation, *row) for row in found],
        )


def forget(conn: psycopg.Connection, build_id: int) -> None:
    """Delete all checksums of a build, in the transaction that empties or drops its tables."""
    for table in ("checksum_changes", "checksums"):
        conn.execute(f"DELETE FROM refold.{table} WHERE build_id = %s".encode(), (build_id,))


def let_go(conn: psycopg.Connection, build_id: int, slices: Range) -> None:
    """Delete the checksums of some slices of a build's tables, in the transaction that deletes their rows.

    Args:
        conn: a transaction that holds the build's lock.
        build_id: whose.
        slices: the slices. Those of its stream, from which it has read these rows, stay.
    """
    # All changes of the build, and the changes first: as in `keep`.
    conn.execute(b"SELECT FROM refold.checksum_changes WHERE build_id = %s FOR UPDATE", (build_id,))
    for table in ("checksum_changes", "checksums"):
        conn.execute(
            f"DELETE FROM refold.{table} WHERE build_id = %s AND relation >= 0"
            " AND slice <@ %s::int4multirange".encode(),
            (build_id, multirange([slices])),
        )


def before(conn: psycopg.Connection, build_id: int, first: int) -> list[tuple[int, int, int]]:
    """Return the slices of a build before another slice, without that of rows without a day, in order.

    Args:
        conn: any connection that may read checksums.
        build_id: whose.
        first: the first slice that does not count.

    Returns:
        Each slice with the rows of the table that analysts see, and the rows of all tables of the build.
    """
    rows = conn.execute(
        """
        SELECT slice, coalesce(sum(rows) FILTER (WHERE relation = 0), 0)::bigint, sum(rows)::bigint
        FROM (
            SELECT build_id, relation, slice, rows FROM refold.checksums
            UNION ALL SELECT build_id, relation, slice, rows FROM refold.checksum_changes
        ) AS kept
        WHERE build_id = %s AND relation >= 0 AND slice > %s AND slice < %s
        GROUP BY slice HAVING sum(rows) <> 0 ORDER BY slice
        """,
        (build_id, NO_DAY, first),
    ).fetchall()
    return [(int(slice_), int(shown), int(every)) for slice_, shown, every in rows]


def fold(conn: psycopg.Connection, build_id: int, at_most: int) -> int:
    """Add changes to their checksums, in one statement; pages continue meanwhile.

    Args:
        conn: acts as refold_worker; no lock is needed.
        build_id: whose.
        at_most: how many changes.

    Returns:
        How many there were.
    """
    row = one_row(
        conn,
        """
        WITH gone AS (
            DELETE FROM refold.checksum_changes
            WHERE ctid = ANY (ARRAY(SELECT ctid FROM refold.checksum_changes WHERE build_id = %(build)s LIMIT %(most)s
                                    FOR UPDATE SKIP LOCKED))
            RETURNING relation, slice, rows, hash
        ), folded AS (
            INSERT INTO refold.checksums AS kept (build_id, relation, slice, rows, hash)
            SELECT %(build)s, relation, slice, sum(rows)::bigint, sum(hash) FROM gone GROUP BY relation, slice
            ORDER BY relation, slice -- for two who do this at once
            ON CONFLICT (build_id, relation, slice)
                DO UPDATE SET rows = kept.rows + excluded.rows, hash = kept.hash + excluded.hash
        )
        SELECT count(*) FROM gone
        """,
        {"build": build_id, "most": at_most},
    )
    return int(row[0])


def disagreements(
    conn: psycopg.Connection,
    build_id: int,
    relations: Sequence[Kept],
    ranges: Sequence[Range] = EVERY_SLICE,
    *,
    first: int = 0,
) -> list[Disagreement]:
    """Return the slices whose rows differ from their checksums.

    Args:
        conn: one snapshot of kept checksums and rows: a transaction in REPEATABLE READ, or under the build's lock.
        build_id: which build.
        relations: its tables.
        ranges: which slices.
        first: number of the first of these tables among the build's.
    """
    found: list[Disagreement] = []
    for at, relation in enumerate(relations, start=first):
        _, table = relation.slicing.scope(ranges)
        rows = actual(relation, EVERYTHING if ranges == EVERY_SLICE else table)
        found += compared(conn, build_id, Side(at, rows, f"slice {relation.slicing.held(ranges)}"), {})
    return found


def compared(
    conn: psycopg.Connection, build_id: int, side: Side, parameters: Mapping[str, object]
) -> list[Disagreement]:
    """Return the slices in which stored checksums differ from a side; arguments as for `disagreements`."""
    query = (
        "SELECT %(at)s::integer AS relation, coalesce(s.slice, k.slice) AS slice, coalesce(k.rows, 0) AS recorded,\n"
        "       coalesce(s.rows, 0) AS actual, coalesce(s.hash, 0) - coalesce(k.hash, 0) AS hash\n"
        f"FROM (\n{side.actual}\n) AS s\n"
        "FULL JOIN (\n"
        "    SELECT slice, sum(rows)::bigint AS rows, sum(hash) AS hash FROM (\n"
        "        SELECT build_id, relation, slice, rows, hash FROM refold.checksums\n"
        "        UNION ALL SELECT build_id, relation, slice, rows, hash FROM refold.checksum_changes\n"
        "    ) AS f\n"
        f"    WHERE build_id = %(build)s::bigint AND relation = %(at)s::integer AND {side.kept}\n"
        "    GROUP BY slice\n"
        ") AS k ON k.slice = s.slice\n"
        "WHERE (coalesce(s.rows, 0), coalesce(s.hash, 0)) <> (coalesce(k.rows, 0), coalesce(k.hash, 0))\n"
        "ORDER BY 2"
    )
    with conn.cursor(row_factory=class_row(Disagreement)) as cursor:
        return cursor.execute(query.encode(), {**parameters, "build": build_id, "at": side.relation}).fetchall()


def correct(conn: psycopg.Connection, build_id: int, wrong: Iterable[Disagreement]) -> None:
    """Correct checksums to match the rows.

    Only after the rows have been compared with the query, and under the same lock as the disagreement was seen: it
    would hide what is wrong.
    """
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash) VALUES (%s, %s, %s, %s, %s)
            """,
            [(build_id, one.relation, one.slice, one.actual - one.recorded, one.hash) for one in wrong],
        )


def known_slices(conn: psycopg.Connection, build_id: int) -> list[int]:
    """Return the slices of a build that have checksums, in order."""
    rows = conn.execute(
        """
        SELECT slice FROM refold.checksums WHERE build_id = %(build)s AND relation >= 0
        UNION
        SELECT slice FROM refold.checksum_changes WHERE build_id = %(build)s AND relation >= 0
        ORDER BY 1
        """,
        {"build": build_id},
    ).fetchall()
    return [int(number) for (number,) in rows]
