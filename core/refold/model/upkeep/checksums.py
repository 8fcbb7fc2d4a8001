"""SQL that keeps checksums: the number of rows of each slice, and the sum of their hashes.

The statement that writes rows also inserts the change of their checksums into `refold.checksum_changes`. A duty adds
these changes up; a reader of checksums adds the ones that are left. An UPDATE by every page would be slower: while a
session holds an old snapshot, each version of the row stays and must be passed.

An audit computes the same checksums from the rows themselves, and so finds every change that was made in another way.
Hashes have 64 bits and follow type equality (1.0 is 1.00); their sum is exact, so changes do not cancel out. Pure text.
"""

from __future__ import annotations

from collections.abc import Sequence

from refold.model.sql_text import indent
from refold.model.stream.slices import position_slice
from refold.model.upkeep.statements import Kept

BEFORE = "before__"
"""Column of tables that are upserted: the row's hash before its last change.

Up to PostgreSQL 17, RETURNING shows only the new row, and reading the old row first would cost a second search for
every key."""

EVENT_HASH = (
    "hash_record_extended(ROW(txid, position, event_id, user_id, action, ts, metadata::text, version, recorded_at), 0)"
)
"""Hash of a whole event of the log. The metadata is text, so the notation of a number counts, too."""
READ = -1
"""Stands for the build's stream, in place of a relation's number: checksums of the rows that the build has read."""


def returning(relation: Kept, *, before: bool = False) -> str:
    """Return the RETURNING clause of a statement that writes rows: the slice, the row's hash, and its former hash.

    Args:
        relation: the table that the statement writes.
        before: whether the table has the column with the former hash.
    """
    old = f", {BEFORE} AS old__" if before else ""
    return f"RETURNING {relation.slicing.row} AS slice__, {relation.row_hash()} AS new__{old}"


def change(at: int, source: str, *, before: bool = False, gone: bool = False) -> str:
    """Return the SELECT of the changes that written or deleted rows make to a relation's checksums.

    Args:
        at: the number of the relation in its build.
        source: the relation with the columns of `returning`.
        before: whether `source` has the former hashes.
        gone: whether the rows were deleted.
    """
    sign = "-" if gone else ""
    rows = "count(*) - count(old__)" if before else f"{sign}count(*)"
    hash_ = "sum(new__) - coalesce(sum(old__), 0)" if before else f"{sign}sum(new__)"
    return f"SELECT {at} AS relation, slice__ AS slice, {rows} AS rows, {hash_} AS hash FROM {source} GROUP BY slice__"


def identity(ordinal: str = "ordinal") -> str:
    """Return the SQL of a 64-bit hash of a row's coordinates, which identifies the row in its stream."""
    return f"hashint8extended(position, {ordinal})"


def read(source: str, *, gone: bool = False) -> str:
    """Return the SELECT of the changes that read rows make to the checksums of the stream, by slices of positions.

    Args:
        source: a relation with position and ordinal.
        gone: whether to subtract the rows, because they count as not read any more.
    """
    sign = "-" if gone else ""
    return (
        f"SELECT {READ} AS relation, {position_slice()} AS slice,"
        f" {sign}count(*) AS rows, {sign}sum({identity()}) AS hash FROM {source} GROUP BY 2"
    )


def counted(events: str) -> str:
    """Return the SELECT of the change where only the number of read rows is kept, in a single slice.

    It is for builds for which the hashes of `read` would cost too much.

    Args:
        events: the number of rows, as an expression.
    """
    return f"SELECT {READ} AS relation, 0 AS slice, {events} AS rows, 0 AS hash"


def moved(changes: Sequence[str]) -> str:
    """Return the CTE that changes the checksums of the build in the parameter `build`."""
    return f"checksums AS (\n{indent(move(changes))}\n)"


def move(changes: Sequence[str]) -> str:
    """Return the statement that changes the checksums of the build in the parameter `build`.

    Args:
        changes: SELECTs from `change`, `read` or `counted`.
    """
    together = "\nUNION ALL\n".join(changes)
    return (
        "INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)\n"
        "SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)\n"
        f"FROM (\n{indent(together)}\n) AS changes\n"
        "GROUP BY relation, slice"
    )


def actual(relation: Kept, condition: str = "true") -> str:
    """Return the query that computes checksums from the rows of a table: slice, rows, hash.

    Args:
        relation: the table.
        condition: the rows to read, as a condition; all by default.
    """
    return (
        f"SELECT {relation.slicing.row} AS slice, count(*) AS rows, sum({relation.row_hash()}) AS hash\n"
        f"FROM {relation.table} WHERE {condition} GROUP BY 1"
    )
