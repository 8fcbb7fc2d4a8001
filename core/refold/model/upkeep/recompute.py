"""Upkeep `recompute`: evaluate the query again for the keys of a page's events."""

from __future__ import annotations

from refold.model.projection.plan import Plan
from refold.model.sql_text import EVERYTHING, hash_of, ident, indent, literal
from refold.model.stream.page_sql import Page, Stream
from refold.model.stream.slices import by_key
from refold.model.upkeep import checksums
from refold.model.upkeep.names import HASH, KEY
from refold.model.upkeep.outbox import Outbox
from refold.model.upkeep.statements import Relation, Statements, key_names, slice_statistics


def key_index(plan: Plan, stream: Stream, name: str) -> str:
    """Return the statement for the index on the stream by which pages find all events of a key.

    The index is on a hash of the key: it has one shape for every key, follows type equality, and includes NULL.
    """
    return f"CREATE INDEX IF NOT EXISTS {ident(name)} ON {stream.table} (({_hash(plan)}))"


def _hash(plan: Plan) -> str:
    return hash_of([part.sql for part in plan.key])


def statements(plan: Plan, stream: Stream, table: str, name: str, outbox: Outbox) -> Statements:
    """Return the SQL of a build that is recomputed by key.

    Args:
        plan: the plan of the projection.
        stream: the relation that the build reads.
        table: the build's table, qualified, as SQL.
        name: the table's name without the schema.
        outbox: the sinks of the build.
    """
    keys = key_names(plan.key)
    names = tuple(column.name for column in plan.columns)
    columns = ", ".join(map(ident, names))
    carried = ", ".join(ident(column) for column in plan.reads)
    stream_hash = literal(_hash(plan))
    own_hash = hash_of([ident(key) for key in keys])
    unique = "UNIQUE " if plan.unique else ""
    distinct = " NULLS NOT DISTINCT" if plan.unique else ""

    def query(source: str) -> str:
        return f"(\n{indent(source)}\n)".join(map(literal, plan.query))

    def over(condition: str, *, apart: bool) -> str:
        # OFFSET 0 prevents that the query's own conditions are evaluated for rows that this condition excludes.
        # Without it the load may run in parallel.
        fence = "\nOFFSET 0" if apart else ""
        return query(f"SELECT {carried}\nFROM {stream.table}\nWHERE {condition}{fence}")

    def expected(scope: str, table_scope: str) -> str:
        return over(stream.applied() + ("" if scope == EVERYTHING else f"\n  AND {scope}"), apart=True)

    key_sql = tuple(literal(part.sql) for part in plan.key)
    slicing = by_key(plan.key, key_sql, own_hash, stream_hash, indexed=True)
    relation = Relation(table, names, keys, slicing, key_sql, expected)
    values = [ident(column) for column in names if column not in keys]

    # LATERAL and OFFSET 0 keep the nested loop, in which the index finds the events of each touched key.
    events_of_touched = (
        f"SELECT {', '.join('e.' + ident(column) for column in plan.reads)}\n"
        f"FROM touched__\n"
        f"CROSS JOIN LATERAL (\n{indent(stream.known(carried, f'{stream_hash} = touched__.hash__'))}\n) AS e"
    )

    def page(of: Page) -> str:
        return (
            f"WITH {of.source},\n"
            f"touched__ AS MATERIALIZED (\n    SELECT DISTINCT {stream_hash} AS hash__ FROM page\n),\n"
            f"{upserted(of) if plan.lasting else replaced(of)}\n"
            f"{of.answer}"
        )

    def replaced(of: Page) -> str:
        return (
            f"fresh AS MATERIALIZED (\n{indent(query(events_of_touched))}\n),\n"
            f"gone AS (\n"
            f"    DELETE FROM {table} WHERE {own_hash} IN (SELECT hash__ FROM touched__)\n"
            f"    {checksums.returning(relation)}{outbox.returning(relation)}\n"
            f"),\n"
            f"written AS (\n"
            f"    INSERT INTO {table} ({columns})\n"
            f"    SELECT {columns} FROM fresh\n"
            # The count makes Postgres run the DELETE before the INSERT.
            f"    WHERE (SELECT count(*) FROM gone) >= 0\n"
            f"    {checksums.returning(relation)}{outbox.returning(relation)}\n"
            f"),\n"
            + checksums.moved(
                [checksums.change(0, "gone", gone=True), checksums.change(0, "written"), checksums.read(of.coordinates)]
            )
            + outbox.sent(relation, "gone", "written")
        )

    def upserted(of: Page) -> str:
        changes = ", ".join(f"{value} = excluded.{value}" for value in values)
        kept, fresh = (", ".join(f"{side}.{value}" for value in values) for side in ("kept", "excluded"))
        # A row that does not change is not written again.
        changes += f", {checksums.BEFORE} = {relation.row_hash('kept')}"
        differs = f"WHERE ROW({kept}) IS DISTINCT FROM ROW({fresh})"
        action = f"DO UPDATE SET {changes}\n    {differs}" if values else "DO NOTHING"
        return (
            f"fresh AS NOT MATERIALIZED (\n{indent(query(events_of_touched))}\n),\n"
            f"written AS (\n"
            f"    INSERT INTO {table} AS kept ({columns})\n"
            # WHERE true: without it the parser takes ON CONFLICT for a join condition.
            f"    SELECT {columns} FROM fresh WHERE true\n"
            f"    ON CONFLICT ({', '.join(map(ident, keys))}) {action}\n"
            f"    {checksums.returning(relation, before=bool(values))}{outbox.returning(relation)}\n"
            f"),\n"
            + checksums.moved([checksums.change(0, "written", before=bool(values)), checksums.read(of.coordinates)])
            + outbox.sent(relation, "written")
        )

    insert = f"INSERT INTO {table} ({columns})\n"
    step, left = stream.ranges(stream_hash)
    load = (insert + over(step, apart=False),)
    key_columns = ", ".join(map(ident, keys))
    unique_key = f"CREATE {unique}INDEX {ident(name + KEY)} ON {table} ({key_columns}){distinct}"
    # A page finds the rows that it replaces by this index.
    by_hash = f"CREATE INDEX {ident(name + HASH)} ON {table} (({own_hash}))"
    indexes = (unique_key,) if plan.lasting else (unique_key, by_hash)
    return Statements(
        create=(
            f"CREATE TABLE {table} AS\n{over('true', apart=False)}\nWITH NO DATA",
            *([f"ALTER TABLE {table} ADD COLUMN {checksums.BEFORE} bigint"] if plan.lasting and values else []),
            *slice_statistics(table, name, slicing),
        ),
        keys=(),
        indexes=indexes,
        page=page(stream.page(plan.reads)),
        backlog=page(stream.settled_page(plan.reads)),
        load=load,
        load_next=load,
        load_apart=(insert + over(step, apart=True),),
        # The probe makes the indexes too, because a key that is too long for an index fails there.
        probe=(insert + over(left, apart=True), *indexes),
        probe_keys=(insert + over(stream.of_keys(stream_hash), apart=True), *indexes),
        keys_left=stream.keys_left(stream_hash),
        events_of_keys=stream.events_of_keys(stream_hash),
        relations=(relation,),
        view=f"SELECT {columns} FROM {table}",
    )
