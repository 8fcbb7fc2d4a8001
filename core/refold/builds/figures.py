"""Kept figures against the rows that stand in the tables. Reads no log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from refold.upkeep.figures import standing
from refold.upkeep.slices import Range
from refold.upkeep.statements import Relation


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A slice whose rows are not what refold has written there.

    Args:
        relation: which table of the build, by its place among its relations.
        slice: which slice.
        kept: rows that refold has written.
        standing: rows that are there. Equal numbers: the rows are others.
    """

    relation: int
    slice: int
    kept: int
    standing: int


def take(conn: psycopg.Connection, build_id: int, relations: Sequence[Relation]) -> None:
    """Takes the figures of all rows of a build, in the transaction that has loaded them."""
    conn.execute("DELETE FROM refold.figures WHERE build_id = %s", (build_id,))
    for at, relation in enumerate(relations):
        # By way of the client: what an INSERT reads is never read in parallel.
        found = conn.execute(standing(relation).encode(), {}).fetchall()
        with conn.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO refold.figures (build_id, relation, slice, rows, hash) VALUES (%s, %s, %s, %s, %s)",
                [(build_id, at, *row) for row in found],
            )


def disagreements(
    conn: psycopg.Connection, build_id: int, relations: Sequence[Relation], ranges: Sequence[Range] = ((None, None),)
) -> list[Disagreement]:
    """The slices whose rows differ from their figures.

    Args:
        conn: one snapshot of kept figures and rows: a transaction in REPEATABLE READ, or under the build's lock.
        build_id: which build.
        relations: its tables.
        ranges: which slices.
    """
    found: list[Disagreement] = []
    for at, relation in enumerate(relations):
        with conn.cursor(row_factory=class_row(Disagreement)) as cursor:
            found += cursor.execute(_compared(relation, ranges), {"build": build_id, "at": at}).fetchall()
    return found


def set_right(conn: psycopg.Connection, build_id: int, relations: Sequence[Relation], ranges: Sequence[Range]) -> None:
    """Makes the figures of some slices those of the rows.

    Only after the rows have been compared with the query, under the same lock: it would hide what is wrong.
    """
    for at, relation in enumerate(relations):
        conn.execute(
            (
                "MERGE INTO refold.figures AS f\n"
                f"USING ({_both(relation, ranges)}) AS b\n"
                "ON f.build_id = %(build)s::bigint AND f.relation = %(at)s::integer AND f.slice = b.slice\n"
                "WHEN MATCHED THEN UPDATE SET rows = b.standing, hash = b.standing_hash\n"
                "WHEN NOT MATCHED THEN INSERT (build_id, relation, slice, rows, hash)\n"
                "    VALUES (%(build)s::bigint, %(at)s::integer, b.slice, b.standing, b.standing_hash)"
            ).encode(),
            {"build": build_id, "at": at},
        )


def known_slices(conn: psycopg.Connection, build_id: int) -> list[int]:
    """The slices of a build that have figures, in order."""
    rows = conn.execute(
        "SELECT DISTINCT slice FROM refold.figures WHERE build_id = %s ORDER BY 1", (build_id,)
    ).fetchall()
    return [int(number) for (number,) in rows]


def _compared(relation: Relation, ranges: Sequence[Range]) -> bytes:
    differ = _both(relation, ranges)
    return f"SELECT %(at)s::integer AS relation, slice, kept, standing FROM ({differ}) AS b ORDER BY slice".encode()


def _both(relation: Relation, ranges: Sequence[Range]) -> str:
    """The slices that differ, with what is kept of them and what stands there."""
    _, table = relation.slicing.scope(ranges)
    everything = list(ranges) == [(None, None)]
    held = relation.slicing.held(ranges)
    return (
        "SELECT coalesce(s.slice, k.slice) AS slice, coalesce(k.rows, 0) AS kept,\n"
        "       coalesce(s.rows, 0) AS standing, coalesce(s.hash, 0) AS standing_hash\n"
        f"FROM (\n{standing(relation, 'true' if everything else table)}\n) AS s\n"
        "FULL JOIN (\n"
        "    SELECT slice, rows, hash FROM refold.figures\n"
        f"    WHERE build_id = %(build)s::bigint AND relation = %(at)s::integer AND slice {held}\n"
        ") AS k ON k.slice = s.slice\n"
        "WHERE (coalesce(s.rows, 0), coalesce(s.hash, 0)) <> (coalesce(k.rows, 0), coalesce(k.hash, 0))"
    )
