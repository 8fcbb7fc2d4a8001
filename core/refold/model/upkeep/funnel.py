"""Upkeep `funnel`: each row keeps the state of its key's funnels, and each page folds its events into the state.

To recompute a funnel, all events of its key must be read, so that one new event costs as much as the key's whole
history. The state that sql/functions/window_funnel_fold.sql keeps avoids this. In few cases it does not suffice (events
that arrive very late, a chain with one more step): then the events of that key are read from the stream.
"""

from __future__ import annotations

from collections.abc import Sequence

from refold.model.projection.equal_values import plain
from refold.model.projection.plan import Funnel, Plan
from refold.model.sql_text import EVERYTHING, hash_of, ident, indent, literal, where
from refold.model.stream.page_sql import Page, Stream
from refold.model.stream.slices import by_key
from refold.model.upkeep import checksums
from refold.model.upkeep.merge import combined
from refold.model.upkeep.names import HASH, KEY
from refold.model.upkeep.outbox import Outbox
from refold.model.upkeep.statements import Relation, Statements, key_names, slice_statistics


def statements(plan: Plan, stream: Stream, table: str, name: str, outbox: Outbox) -> Statements:
    """Return the SQL of a build whose funnels are kept in its rows.

    Args:
        plan: the plan of the projection.
        stream: the relation that the build reads.
        table: the build's table, qualified, as SQL.
        name: the table's name without the schema.
        outbox: the sinks of the build.
    """
    return _Funnels(plan, stream, table, name, outbox).statements()


class _Funnels:
    def __init__(self, plan: Plan, stream: Stream, table: str, name: str, outbox: Outbox) -> None:
        self.outbox = outbox
        self.plan = plan
        self.stream = stream
        self.table = table
        self.name = name
        self.keys = key_names(plan.key)
        self.partials = tuple(partial.name for partial in plan.partials)
        self.states = tuple(funnel.state for funnel in plan.funnels)
        # Ordinary columns, not generated ones: REPLICA IDENTITY FULL refuses generated columns (PostgreSQL 18), and a
        # published table without a replica identity refuses updates.
        self.shown = [made for funnel in plan.funnels for made in _shown(funnel)]
        self.columns = (*self.keys, *self.partials, *self.states, *(column for column, _ in self.shown))
        self.carried = ", ".join(map(ident, plan.reads))
        key_sql = tuple(literal(part.sql) for part in plan.key)
        self.stream_hash = hash_of(key_sql)
        self.own_hash = hash_of([ident(key) for key in self.keys])
        slicing = by_key(plan.key, key_sql, self.own_hash, self.stream_hash, indexed=True)
        # Reports show the columns of the metric, not the states.
        told = tuple(column for column in self.columns if column not in self.states)
        self.relation = Relation(table, self.columns, self.keys, slicing, key_sql, self.expected, shown=told)

    def statements(self) -> Statements:
        plan, stream, table = self.plan, self.stream, self.table
        insert = f"INSERT INTO {table} ({_list(self.columns)})\n"
        step, left = stream.ranges(self.stream_hash)
        load = (insert + self.over(step, apart=False),)
        key = f"CREATE UNIQUE INDEX {ident(self.name + KEY)} ON {table} ({_list(self.keys)}) NULLS NOT DISTINCT"
        # A page finds the rows of its keys by this index: IS NOT DISTINCT FROM uses no index.
        by_hash = f"CREATE INDEX {ident(self.name + HASH)} ON {table} (({self.own_hash}))"
        return Statements(
            create=(
                f"CREATE TABLE {table} AS\n{self.over('true', apart=False)}\nWITH NO DATA",
                f"ALTER TABLE {table} ADD COLUMN {checksums.BEFORE} bigint",
                *slice_statistics(table, self.name, self.relation.slicing),
            ),
            keys=(),
            indexes=(key, by_hash),
            page=self.page(stream.page(plan.reads)),
            backlog=self.page(stream.settled_page(plan.reads)),
            load=load,
            load_next=load,
            load_apart=(insert + self.over(step, apart=True),),
            # The probe makes the indexes too, because a key that is too long for an index fails there.
            probe=(insert + self.over(left, apart=True), key, by_hash),
            probe_keys=(insert + self.over(stream.of_keys(self.stream_hash), apart=True), key, by_hash),
            keys_left=stream.keys_left(self.stream_hash),
            events_of_keys=stream.events_of_keys(self.stream_hash),
            relations=(self.relation,),
            view="SELECT " + ", ".join(ident(column.name) for column in plan.columns) + f" FROM {table}",
        )

    # The whole

    def expected(self, scope: str, table_scope: str) -> str:
        return self.over(self.stream.applied() + ("" if scope == EVERYTHING else f"\n  AND {scope}"), apart=True)

    def over(self, condition: str, *, apart: bool) -> str:
        """Return the query of the metric over some rows of the stream.

        Args:
            condition: which rows.
            apart: whether a fence (OFFSET 0) keeps expressions from being evaluated for the other rows.
        """
        source = f"SELECT {self.carried}\nFROM {self.stream.table}\nWHERE {condition}" + ("\nOFFSET 0" if apart else "")
        whole = [f"{_folded('NULL', literal(one.events), one)} AS {ident(one.state)}" for one in self.plan.funnels]
        return self.with_shown(self.grouped(f"(\n{indent(source)}\n) AS read", whole))

    def with_shown(self, made: str) -> str:
        """Return rows with the columns that show their states to analysts.

        OFFSET 0 prevents that Postgres computes the state again for each of these columns.
        """
        shown = [f"{sql} AS {ident(column)}" for column, sql in self.shown]
        known = [ident(column) for column in (*self.keys, *self.partials, *self.states)]
        return "SELECT " + ",\n       ".join([*known, *shown]) + f"\nFROM (\n{indent(made)}\nOFFSET 0\n) AS made"

    def grouped(self, source: str, states: Sequence[str]) -> str:
        selected = [f"{literal(plain(part.sql))} AS {ident(part.name)}" for part in self.plan.key]
        selected += [f"{literal(partial.sql or '')} AS {ident(partial.name)}" for partial in self.plan.partials]
        groups = ", ".join(str(at) for at in range(1, len(self.keys) + 1))
        return (
            "SELECT " + ",\n       ".join([*selected, *states]) + f"\nFROM {source}{where(self.own)}\nGROUP BY {groups}"
        )

    @property
    def own(self) -> str | None:
        """Return the projection's WHERE as SQL, in parentheses; None without one."""
        return None if self.plan.where is None else f"({literal(self.plan.where)})"

    # The page

    def page(self, of: Page) -> str:
        arrived = self.grouped("page", [f"{literal(one.events)} AS {ident(one.state)}" for one in self.plan.funnels])
        returning = checksums.returning(self.relation, before=True) + self.outbox.returning(self.relation)
        moved = checksums.moved([checksums.change(0, "written", before=True), checksums.read(of.coordinates)])
        return (
            f"WITH {of.source},\n"
            f"arrived AS MATERIALIZED (\n{indent(arrived)}\n),\n"
            f"folded AS MATERIALIZED (\n{indent(self.fold())}\n),\n"
            f"written AS (\n{indent(self.upsert())}\n    {returning}\n),\n"
            f"{moved}{self.outbox.sent(self.relation, 'written')}\n"
            f"{of.answer}"
        )

    def fold(self) -> str:
        """Return the query that folds arrived events into kept states; a state is NULL where it does not suffice.

        The build is locked, and the statement's snapshot is taken after the lock: it sees the rows that it will write.
        """
        known = [f"arrived.{ident(column)}" for column in (*self.keys, *self.partials)]
        states = [
            f"{_folded('kept.' + ident(one.state), 'arrived.' + ident(one.state), one)} AS {ident(one.state)}"
            for one in self.plan.funnels
        ]
        # OFFSET 0 keeps the nested loop, in which the index finds the row of each key.
        return (
            "SELECT " + ",\n       ".join([*known, *states]) + "\nFROM arrived\n"
            "LEFT JOIN LATERAL (\n"
            f"    SELECT {_list(self.states)} FROM {self.table} AS known\n"
            f"    WHERE {self.hash('known')} = {self.hash('arrived')}\n"
            + "".join(f"      AND known.{ident(key)} IS NOT DISTINCT FROM arrived.{ident(key)}\n" for key in self.keys)
            + "    OFFSET 0\n"
            ") AS kept ON true"
        )

    def upsert(self) -> str:
        known = [f"folded.{ident(column)}" for column in (*self.keys, *self.partials)]
        states = [
            f"coalesce(folded.{ident(one.state)}, (\n{indent(self.again(one))}\n)) AS {ident(one.state)}"
            for one in self.plan.funnels
        ]
        made = "SELECT " + ",\n       ".join([*known, *states]) + "\nFROM folded"
        changes = [f"{ident(partial.name)} = {combined(partial)}" for partial in self.plan.partials]
        told = (*self.states, *(column for column, _ in self.shown))
        changes += [f"{ident(column)} = excluded.{ident(column)}" for column in told]
        changes.append(f"{checksums.BEFORE} = {self.relation.row_hash('kept')}")
        kept, fresh = (", ".join(f"{side}.{ident(state)}" for state in self.states) for side in ("kept", "excluded"))
        # A row that does not change is not written again.
        differs = "" if self.partials else f"\n    WHERE ROW({kept}) IS DISTINCT FROM ROW({fresh})"
        return (
            f"INSERT INTO {self.table} AS kept ({_list(self.columns)})\n"
            # WHERE true: without it the parser takes ON CONFLICT for a join condition.
            f"{self.with_shown(made)} WHERE true\n"
            f"ON CONFLICT ({_list(self.keys)}) DO UPDATE SET\n"
            f"    " + ",\n    ".join(changes) + differs
        )

    def again(self, one: Funnel) -> str:
        """Return the query that computes the state of a folded key from all its events."""
        same = [f"({part.sql}) IS NOT DISTINCT FROM folded.{ident(part.name)}" for part in self.plan.key]
        events = self.stream.known(self.carried, f"{self.stream_hash} = {self.hash('folded')}")
        return (
            f"SELECT {_folded('NULL', literal(one.events), one)}\n"
            f"FROM (\n{indent(events)}\n) AS read{where(*map(literal, same), self.own)}"
        )

    def hash(self, of: str) -> str:
        """Return the SQL of the key's hash over a relation of the statement."""
        return hash_of([f"{of}.{ident(key)}" for key in self.keys])


def _folded(kept: str, events: str, one: Funnel) -> str:
    return f"refold.window_funnel_fold({kept}, {events}, {one.steps}, {'true' if one.times else 'false'})"


def _shown(one: Funnel) -> list[tuple[str, str]]:
    """Return the columns that are made of a state: name, SQL. They are stored, so that readers call no function."""
    state = ident(one.state)
    return [(column, f"get_byte({state}, 0)") for column in one.level] + [
        (column, f"refold.window_funnel_kept_times({state})") for column in one.times
    ]


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(ident, names))
