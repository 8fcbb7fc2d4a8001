"""Kept checksums: the rows that stand in a slice and the sum of their hashes, moved by the statement that moves them.

They are moved by rows that are added to `refold.checksum_changes`; a duty adds these up, and whoever reads checksums
adds the rest. A row that every page updates gets slower with each of its versions while somebody holds an old snapshot.

An audit that takes the same checksums of the rows themselves sees every change that came by another way. The hash is by
type equality (1.0 is 1.00), 64 bits; the sum is exact, so nothing cancels out. Pure text.
"""

from __future__ import annotations

from collections.abc import Sequence

from refold.model.sql_text import indent
from refold.model.stream.slices import position_slice
from refold.model.upkeep.statements import Relation

BEFORE = "before__"
"""Column of tables that are upserted: what the row hashed to before its last change. RETURNING shows only new rows
(up to PostgreSQL 17), and a look beforehand would cost a second search for every key."""

READ = -1
"""Stands for the build's stream where checksums have the number of a relation: which rows the build has read of it."""


def returning(relation: Relation, *, before: bool = False) -> str:
    """The RETURNING of a statement that writes rows: the slice, the hash of the row as it is, and as it was."""
    old = f", {BEFORE} AS old__" if before else ""
    return f"RETURNING {relation.slicing.row} AS slice__, {relation.row_hash()} AS new__{old}"


def change(at: int, source: str, *, before: bool = False, gone: bool = False) -> str:
    """What rows that were written, or are gone, do to a relation's checksums."""
    sign = "-" if gone else ""
    rows = "count(*) - count(old__)" if before else f"{sign}count(*)"
    hash_ = "sum(new__) - coalesce(sum(old__), 0)" if before else f"{sign}sum(new__)"
    return f"SELECT {at} AS relation, slice__ AS slice, {rows} AS rows, {hash_} AS hash FROM {source} GROUP BY slice__"


def identity(ordinal: str = "ordinal") -> str:
    """A 64-bit hash of which row of a stream it is."""
    return f"hashint8extended(position, {ordinal})"


def read(source: str, *, gone: bool = False) -> str:
    """What rows of the stream do to the checksum of what was read, by slices of positions; `gone` takes them back."""
    sign = "-" if gone else ""
    return (
        f"SELECT {READ} AS relation, {position_slice()} AS slice,"
        f" {sign}count(*) AS rows, {sign}sum({identity()}) AS hash FROM {source} GROUP BY 2"
    )


def counted(events: str) -> str:
    """The same where which rows they were would cost too much: how many, all in one."""
    return f"SELECT {READ} AS relation, 0 AS slice, {events} AS rows, 0 AS hash"


def moved(changes: Sequence[str]) -> str:
    """The CTE that changes the checksums of the build in the parameter `build`."""
    return f"checksums AS (\n{indent(move(changes))}\n)"


def move(changes: Sequence[str]) -> str:
    """The statement itself."""
    together = "\nUNION ALL\n".join(changes)
    return (
        "INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)\n"
        "SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)\n"
        f"FROM (\n{indent(together)}\n) AS changes\n"
        "GROUP BY relation, slice"
    )


def actual(relation: Relation, condition: str = "true") -> str:
    """The checksums of the rows that stand in a table: slice, rows, hash."""
    return (
        f"SELECT {relation.slicing.row} AS slice, count(*) AS rows, sum({relation.row_hash()}) AS hash\n"
        f"FROM {relation.table} WHERE {condition} GROUP BY 1"
    )
