"""Upkeep `transform`: a table of the rows that a Python function makes. Python writes the rows; SQL does the rest."""

from __future__ import annotations

from collections.abc import Sequence

from refold.model.projection.transform import Transform
from refold.model.projection.upcast import COLUMN
from refold.model.sql_text import EVERYTHING, ident, indent
from refold.model.stream.page_sql import Page, Stream
from refold.model.stream.slices import by_position
from refold.model.upkeep import checksums
from refold.model.upkeep.facts import event_grain_indexes, standing, told
from refold.model.upkeep.outbox import NO_SINKS, Outbox
from refold.model.upkeep.statements import Relation, Statements, slice_statistics

EXPECTED = "pg_temp.expected_rows"
BYTES_SO_FAR = "bytes__"
"""Column of a page: the bytes of the row and of all rows before it. No column of a projection can have this name."""


def statements(
    transform: Transform, stream: Stream, name: str, outbox: Outbox = NO_SINKS, *, based: bool = False
) -> Statements:
    """Return the SQL of a transform's build: its table, its pages of input, and its audit against recomputed rows.

    The audit compares the table with a temporary table that Python fills (`EXPECTED`).

    Args:
        transform: the transform.
        stream: the relation that the build reads.
        name: the name of the build's table, without the schema `refold_builds`.
        outbox: the sinks of the build.
        based: whether events have left the log, whose rows stand by themselves.
    """
    table = f"refold_builds.{ident(name)}"
    fields = [column.name for column in transform.plan.columns if column.name != "event_id"]
    names = ("txid", "position", "ordinal", "event_id", *fields)
    types = (
        "xid8 NOT NULL",
        "bigint NOT NULL",
        "integer NOT NULL",
        'text COLLATE "C" NOT NULL',
        *transform.types,
    )
    declared = ", ".join(f"{ident(column)} {kind}" for column, kind in zip(names, types, strict=True))
    reads = _reads(transform)
    # A dead letter must not fail the page again.
    carried = ", ".join(_carried(transform, reads, alive="event_id <> ALL (%(dead)s::text[])"))
    columns = ", ".join(map(ident, names))
    order = ", ".join(f"page.{name}" for name in stream.coordinates.split(", "))

    def read(of: Page) -> str:
        # Rows are held in memory, so a page is limited in bytes too. With OFFSET 0 each size is computed once.
        sized = f"SELECT *, {_size(reads)} AS size\nFROM (\n{indent(of.rows)}\n) AS unread OFFSET 0"
        running = f"sum(size) OVER (ORDER BY {stream.coordinates} ROWS UNBOUNDED PRECEDING)"
        return (
            f"SELECT page.txid::text::bigint AS txid, position, ordinal, {carried}, {BYTES_SO_FAR}\n"
            f"FROM (\n    SELECT *, {running} AS {BYTES_SO_FAR}\n    FROM (\n{indent(sized, 8)}\n    ) AS sized\n"
            f") AS page\n"
            f"WHERE {BYTES_SO_FAR} - size < %(bytes)s::bigint\n"
            f"ORDER BY {order}"
        )

    relation = Relation(
        table,
        names,
        ("event_id",),
        by_position(),
        ("event_id",),
        lambda scope, _: f"SELECT {columns} FROM {EXPECTED}",
        told=told(name) if based else EVERYTHING,
    )
    written = (
        f"SELECT {relation.slicing.row} AS slice__, {relation.row_hash()} AS new__{outbox.returning(relation)}"
        f" FROM {table} WHERE event_id = ANY (%(ids)s::text[])"
    )
    load = (f"COPY {table} ({columns}) FROM STDIN",)
    return Statements(
        create=(f"CREATE TABLE {table} ({declared})", *slice_statistics(table, name, relation.slicing)),
        keys=(),
        indexes=event_grain_indexes(table, name),
        page=read(stream.page(reads)),
        backlog=read(stream.settled_page(reads)),
        load=load,
        load_next=load,
        relations=(relation,),
        view="SELECT " + ", ".join(ident(column.name) for column in transform.plan.columns) + f" FROM {table}",
        standing=None if stream.ordinal else lambda other: standing(table, columns, other),
        # COPY has no RETURNING, so the written rows are looked up by their ids.
        checksums=f"WITH written AS (\n{indent(written)}\n){outbox.sent(relation, 'written')}\n"
        + checksums.move(
            [
                checksums.change(0, "written"),
                checksums.read("unnest(%(positions)s::bigint[], %(ordinals)s::integer[]) AS page (position, ordinal)"),
            ]
        ),
    )


def applied_rows(transform: Transform, stream: Stream, *, since: bool, condition: str) -> str:
    """Return the query for the stream's rows that a cursor has applied, in order.

    Args:
        transform: the transform that reads the rows.
        stream: the relation that it reads.
        since: whether to read only events whose ts is not before the parameter `since`.
        condition: a condition on the rows.
    """
    reads = _reads(transform)
    ordinal = "ordinal" if stream.ordinal else "0 AS ordinal"
    recent = "\n  AND ts >= %(since)s::timestamptz" if since else ""
    return (
        f"SELECT txid::text::bigint AS txid, position, {ordinal}, {', '.join(_carried(transform, reads))}\n"
        f"FROM {stream.table}\n"
        f"WHERE {stream.applied()}\n"
        f"  AND {condition}{recent}\n"
        f"ORDER BY txid, position"
    )


def _reads(transform: Transform) -> list[str]:
    """Return the columns of the stream that a transform needs; upcasters also look at action and version."""
    wanted = dict.fromkeys(("event_id", *transform.plan.reads))
    return [*(wanted | dict.fromkeys(("action", "version")) if transform.upcast else wanted)]


def _carried(transform: Transform, reads: Sequence[str], *, alive: str = "") -> list[str]:
    """Return the columns of a row as the function gets it."""
    upcast = transform.upcast and transform.upcast.replace("%", "%%")
    if upcast and alive:
        upcast = f"CASE WHEN {alive} THEN {upcast} ELSE {COLUMN} END"
    return [f"{upcast} AS {COLUMN}" if upcast and name == COLUMN else ident(name) for name in reads]


def _size(columns: Sequence[str]) -> str:
    """Return the SQL of a row's size in bytes without compression.

    In a record, Postgres decompresses only values that are stored out of line: 96 kB that were compressed to one, and
    so are stored in the row, would count as one. In an array it decompresses every element, but arrays make a narrow
    row three times as large. Arrays are therefore used only where a value is compressed.
    """
    names = [ident(column) for column in columns]
    compressed = ", ".join(f"pg_column_compression({name})" for name in names)
    elements = ", ".join(f"ARRAY[{name}]" for name in names)
    return (
        f"pg_column_size(CASE WHEN coalesce({compressed}) IS NULL THEN ROW({', '.join(names)})"
        f" ELSE ROW({elements}) END)"
    )
