"""Upkeep `facts`: a row per event, with the event's id as its key."""

from __future__ import annotations

from refold.model.projection.plan import Plan
from refold.model.sql_text import EVERYTHING, ident, in_order, indent, literal, where
from refold.model.stream.page_sql import Page, Stream
from refold.model.stream.slices import by_position
from refold.model.upkeep import checksums
from refold.model.upkeep.names import AT, ID, RANGE
from refold.model.upkeep.outbox import Outbox
from refold.model.upkeep.statements import Relation, Statements, floor_of, slice_statistics


def statements(plan: Plan, stream: Stream, table: str, name: str, outbox: Outbox, *, based: bool = False) -> Statements:
    """Return the SQL of an event-grain build.

    Args:
        plan: the plan of the projection.
        stream: the relation that the build reads.
        table: the build's table, qualified, as SQL.
        name: the table's name without the schema.
        outbox: the sinks of the build.
        based: whether events have left the log, whose rows stand by themselves.
    """
    outputs = [column for column in plan.columns if column.name != "event_id"]
    names = ("txid", "position", "ordinal", "event_id", *(column.name for column in outputs))
    columns = ", ".join(map(ident, names))
    condition = None if plan.where is None else f"({literal(plan.where)})"

    def rows(source: str, ordinal: str, reach: str | None, scope: str | None = None) -> str:
        selected = ["txid", "position", f"{ordinal} AS ordinal", "event_id"]
        selected += [f"{literal(column.sql)} AS {ident(column.name)}" for column in outputs]
        return "SELECT " + ",\n       ".join(selected) + f"\nFROM {source}" + where(scope, in_order(reach, condition))

    ordinal = "ordinal" if stream.ordinal else "0"
    relation = Relation(
        table=table,
        columns=names,
        key=("event_id",),
        slicing=by_position(),
        key_sql=("event_id",),
        expected=lambda scope, _: rows(stream.table, ordinal, stream.applied(), scope),
        told=told(name) if based else EVERYTHING,
    )

    def page(of: Page) -> str:
        written = indent(rows("page", "ordinal", None))
        return (
            f"WITH {of.source},\n"
            f"written AS (\n    INSERT INTO {table} ({columns})\n{written}\n"
            f"    {checksums.returning(relation)}{outbox.returning(relation)}\n),\n"
            f"{checksums.moved([checksums.change(0, 'written'), checksums.read(of.coordinates)])}"
            f"{outbox.sent(relation, 'written')}\n"
            f"{of.answer}"
        )

    load = (f"INSERT INTO {table} ({columns})\n{rows(stream.table, ordinal, stream.run())}",)
    return Statements(
        create=(
            f"CREATE TABLE {table} AS\n{rows(stream.table, ordinal, None)}\nWITH NO DATA",
            # No reader, and no audit of a range, would see a row without coordinates.
            f"ALTER TABLE {table} "
            + ", ".join(f"ALTER {column} SET NOT NULL" for column in ("txid", "position", "ordinal", "event_id")),
            *slice_statistics(table, name, relation.slicing),
        ),
        keys=(),
        indexes=event_grain_indexes(table, name),
        page=page(stream.page(plan.reads)),
        backlog=page(stream.settled_page(plan.reads)),
        load=load,
        load_next=load,
        relations=(relation,),
        view="SELECT " + ", ".join(ident(column.name) for column in plan.columns) + f" FROM {table}",
        standing=None if stream.ordinal else lambda other: standing(table, columns, other),
    )


def told(name: str) -> str:
    """Return the condition that the log still tells a row of an event-grain table.

    Args:
        name: the table's name without the schema.
    """
    return f"position >= {floor_of(name)}"


def standing(table: str, columns: str, other: str) -> str:
    """Return the statement that takes over the rows of events that have left the log from another build.

    Args:
        table: the table, which is empty.
        columns: its columns, as SQL.
        other: the name of the other build's table.
    """
    return (
        f"INSERT INTO {table} ({columns}) SELECT {columns} FROM refold_builds.{ident(other)}\n"
        "WHERE position < %(floor)s::bigint"
    )


def event_grain_indexes(table: str, name: str) -> tuple[str, ...]:
    """Return the statements that create a stream's indexes: each event once, and lookups by readers and audits."""
    return (
        f"CREATE UNIQUE INDEX {ident(name + ID)} ON {table} (event_id)",
        f"CREATE UNIQUE INDEX {ident(name + AT)} ON {table} (txid, position, ordinal)",
        f"SELECT refold.index_ranges('{table}', '{name}{RANGE}')",
    )
