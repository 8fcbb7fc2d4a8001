"""Upkeep `merge` and `members`: aggregate the new events, and merge the result into the kept rows by an upsert.

A count(DISTINCT …) keeps the set of counted values in a table beside its own; only values that are new in the set
increase the count.
"""

from __future__ import annotations

from collections.abc import Mapping

from refold.model.projection.plan import Members, Partial, Plan
from refold.model.sql_text import EVERYTHING, hash_of, ident, in_order, indent, literal, where
from refold.model.stream.page_sql import Page, Stream
from refold.model.stream.slices import by_key
from refold.model.upkeep import checksums
from refold.model.upkeep.base import MEMBER, Bases
from refold.model.upkeep.names import KEY, members_table
from refold.model.upkeep.outbox import Outbox
from refold.model.upkeep.statements import Base, Relation, Statements, floor_of, key_names, slice_statistics

_COMBINED = {
    "count": "kept.{0} + excluded.{0}",
    "members": "kept.{0} + excluded.{0}",
    "sum": "coalesce(kept.{0} + excluded.{0}, kept.{0}, excluded.{0})",
    "min": "least(kept.{0}, excluded.{0})",
    "max": "greatest(kept.{0}, excluded.{0})",
    "bool_and": "coalesce(kept.{0} AND excluded.{0}, kept.{0}, excluded.{0})",
    "bool_or": "coalesce(kept.{0} OR excluded.{0}, kept.{0}, excluded.{0})",
}
_GATHERED = {"count": "sum", "members": "sum"}
_NOTHING = {"count": "0", "members": "0"}


def combined(partial: Partial) -> str:
    """Return the SQL that merges a partial of the row `kept` with that of the row `excluded`."""
    return _COMBINED[partial.combine].format(ident(partial.name))


def statements(plan: Plan, stream: Stream, table: str, name: str, outbox: Outbox, *, based: bool = False) -> Statements:
    """Return the SQL of a build whose aggregates are merged.

    Args:
        plan: the plan of the projection.
        stream: the relation that the build reads.
        table: the build's table, qualified, as SQL.
        name: the table's name without the schema.
        outbox: the sinks of the build.
        based: whether its base counts for something.
    """
    return _Merge(plan, stream, table, name, outbox, based).statements()


class _Merge:
    def __init__(self, plan: Plan, stream: Stream, table: str, name: str, outbox: Outbox, based: bool) -> None:
        self.outbox = outbox
        self.based = based
        self.plan = plan
        self.stream = stream
        self.table = table
        self.name = name
        self.keys = key_names(plan.key)
        self.key_list = ", ".join(map(ident, self.keys))
        self.columns = (*self.keys, *(partial.name for partial in plan.partials))
        self.column_list = ", ".join(map(ident, self.columns))
        self.groups = ", ".join(str(at) for at in range(1, len(self.keys) + 1))
        guard = in_order(stream.applied(), self.own)
        stream_hash = f"CASE WHEN {guard} THEN {hash_of(self.key_sql())} END"
        slicing = by_key(plan.key, self.key_sql(), self.own_hash(), stream_hash, indexed=False)
        self.relation = Relation(table, self.columns, self.keys, slicing, self.key_sql(), self.expected, guard=guard)
        self.merged = [partial for partial in plan.partials if partial.sql is not None]
        self.sets = [
            (members_table(table, at), members_table(name, at), members)
            for at, members in enumerate(plan.members, start=1)
        ]
        self.bases = Bases(
            table, name, self.keys, self.merged, self.sets, slicing, combined, _added_up, 1 + len(self.sets)
        )

    def statements(self) -> Statements:
        plan, table, sets = self.plan, self.table, self.sets
        having = "" if plan.having is None else f" WHERE {plan.having}"
        view = ", ".join(
            ident(column.name) if column.sql == column.name else f"{column.sql} AS {ident(column.name)}"
            for column in plan.columns
        )
        return Statements(
            create=(
                f"CREATE TABLE {table} AS\n{self.whole()}\nWITH NO DATA",
                *(
                    f"CREATE TABLE {set_table} AS\n{self.distinct(self.stream.table, one, None)}\nWITH NO DATA"
                    for set_table, _, one in sets
                ),
                *([f"ALTER TABLE {table} ADD COLUMN {checksums.BEFORE} bigint"] if plan.partials else []),
                *self.trigger(),
                *slice_statistics(table, self.name, self.relation.slicing),
            ),
            keys=(f"CREATE UNIQUE INDEX {ident(self.name + KEY)} ON {table} ({self.key_list}) NULLS NOT DISTINCT",),
            indexes=tuple(_set_key(set_table, set_name, self.key_list) for set_table, set_name, _ in sets),
            page=self.page(sets, self.stream.page(plan.reads)),
            backlog=self.page(sets, self.stream.settled_page(plan.reads, uses=1 + len(sets))),
            load=self.load(sets, first=not self.based),
            load_next=self.load(sets, first=False),
            relations=(self.relation, *(self.set_relation(set_table, one) for set_table, _, one in sets)),
            view=f"SELECT {view} FROM {table}{having}",
            view_hides=bool(having),
            folded=lambda arriving: self.folded(sets, arriving),
            # Without sets only a count is kept: to read a page's coordinates costs half as much as to aggregate it.
            reads_by_slice=bool(sets),
            base=None if self.stream.ordinal else self.base(),
            counted=self.bases.tables if self.based else (),
        )

    def set_relation(self, set_table: str, one: Members) -> Relation:
        columns = (*self.keys, MEMBER)

        def expected(scope: str, table_scope: str) -> str:
            live = self.distinct(self.stream.table, one, self.stream.applied(), self.live(scope))
            return live if not self.based else self.bases.values(set_table, table_scope, live)

        return Relation(
            set_table,
            columns,
            self.keys,
            self.relation.slicing,
            self.key_sql(),
            expected,
            identity=columns,
            guard=self.relation.guard,
        )

    def base(self) -> Base:
        def fold(source: str) -> str:
            members = [self.distinct("page", one, None) for _, _, one in self.sets]
            return self.bases.fold(source, self.delta("page", None), members)

        rows = self.bases.together(EVERYTHING, None, self._columns, self.plan.partials)
        set_keys = [_set_key(set_table, set_name, self.key_list) for set_table, set_name, _ in self.sets]
        load = self.bases.load(f"INSERT INTO {self.table} ({self.column_list})\n{rows}", set_keys)
        return self.bases.sql(fold, load, rows)

    def live(self, scope: str | None) -> str | None:
        """Return a scope of the stream without the events that are in the base."""
        if not self.based:
            return scope
        return f"position >= {floor_of(self.name)}" + ("" if scope in (None, EVERYTHING) else f"\n  AND {scope}")

    def _columns(self, of: str | None) -> str:
        return "".join(f", {self._column(one, of=of)}" for one in self.plan.partials)

    def own_hash(self) -> str:
        return hash_of([ident(key) for key in self.keys])

    def key_sql(self) -> tuple[str, ...]:
        return tuple(literal(part.sql) for part in self.plan.key)

    @property
    def own(self) -> str | None:
        """Return the projection's WHERE as SQL, in parentheses; None without one."""
        return None if self.plan.where is None else f"({literal(self.plan.where)})"

    def where(self, reach: str | None, *conditions: str | None, scope: str | None = None) -> str:
        """Return the WHERE clause for rows of the stream; each condition is evaluated only where those before it hold.

        Args:
            reach: the rows that the statement may read at all.
            conditions: conditions after the projection's own WHERE, on expressions of the projection.
            scope: a condition that is safe for any row; it is a separate conjunct, so that indexes can serve it.
        """
        return where(scope, in_order(reach, self.own, *conditions))

    def selected_keys(self) -> list[str]:
        return [f"{literal(part.sql)} AS {ident(part.name)}" for part in self.plan.key]

    def trigger(self) -> tuple[str, ...]:
        """Return the trigger that refuses a row for which the view would fail; it sees each row as finally written."""
        if self.plan.evaluated is None:
            return ()
        return (
            f"CREATE TRIGGER evaluated AFTER INSERT OR UPDATE ON {self.table} FOR EACH ROW\n"
            f"WHEN ({literal(self.plan.evaluated)}) EXECUTE FUNCTION refold.evaluated()",
        )

    def expected(self, scope: str, table_scope: str) -> str:
        """Return the query for the rows that the table must hold.

        An audit that runs it also evaluates the view's expressions over these rows.
        """
        whole = self.with_base(scope, table_scope) if self.based else self.whole(scope)
        if self.plan.evaluated is None:
            return whole
        return (
            f"SELECT {self.column_list} FROM (\n{indent(whole)}\n) AS new\n"
            f"WHERE ({literal(self.plan.evaluated)}) IS NOT TRUE"
        )

    def whole(self, scope: str | None = None) -> str:
        """Return the query of the metric over the stream; with a scope, over the rows that the cursor has applied."""
        counted = {one.partial: one for one in self.plan.members}
        outputs = [
            (_distinct_count(counted[partial.name]) if partial.sql is None else literal(partial.sql))
            + f" AS {ident(partial.name)}"
            for partial in self.plan.partials
        ]
        reach = None if scope is None else self.stream.applied()
        return (
            "SELECT "
            + ",\n       ".join([*self.selected_keys(), *outputs])
            + f"\nFROM {self.stream.table}{self.where(reach, scope=scope)}\nGROUP BY {self.groups}"
        )

    def with_base(self, scope: str, table_scope: str) -> str:
        """Return the query of the metric over the base and the live rows that the cursor has applied."""
        reach, live = self.stream.applied(), self.live(scope)
        delta = self.delta(self.stream.table, reach, live)
        members = [self.distinct(self.stream.table, one, reach, live) for _, _, one in self.sets]
        return self.bases.together(table_scope, (delta, members), self._columns, self.plan.partials)

    def delta(self, source: str, condition: str | None, scope: str | None = None) -> str:
        """Return the query for the aggregates of the new events."""
        outputs = [f"{literal(partial.sql or '')} AS {ident(partial.name)}" for partial in self.merged]
        return (
            "SELECT "
            + ",\n       ".join([*self.selected_keys(), *outputs])
            + f"\nFROM {source}{self.where(condition, scope=scope)}\nGROUP BY {self.groups}"
        )

    def distinct(self, source: str, one: Members, reach: str | None, scope: str | None = None) -> str:
        """Return the query for the distinct members of some events.

        Args:
            source: the relation of the events.
            one: the set.
            reach: the rows that the statement may read.
            scope: a further condition, see `where`.
        """
        selected = ", ".join([*self.selected_keys(), f"{literal(one.member)} AS {MEMBER}"])
        restriction = None if one.condition is None else f"({literal(one.condition)})"
        member = f"({literal(one.member)}) IS NOT NULL"
        return f"SELECT DISTINCT {selected}\nFROM {source}{self.where(reach, restriction, member, scope=scope)}"

    def gathered(self, sets: list[tuple[str, str, Members]], new: Mapping[int, str]) -> str:
        """Return the query that adds up, by key, the delta and the counts of new members.

        Args:
            sets: the sets behind the distinct counts.
            new: for each set (from 1) the relation of the keys of its new members.
        """
        parts = ["SELECT " + ", ".join([self.key_list, *(self._column(p) for p in self.plan.partials)]) + " FROM delta"]
        parts += [
            "SELECT "
            + ", ".join([self.key_list, *(self._column(p, of=one.partial) for p in self.plan.partials)])
            + f" FROM {new[at]} GROUP BY {self.key_list}"
            for at, (_, _, one) in enumerate(sets, start=1)
        ]
        outputs = [f"{_added_up(partial)} AS {ident(partial.name)}" for partial in self.plan.partials]
        return (
            f"SELECT {', '.join([self.key_list, *outputs])}\nFROM (\n"
            + "\n    UNION ALL\n".join(indent(part) for part in parts)
            + f"\n) AS arrived\nGROUP BY {self.groups}"
        )

    def _column(self, partial: Partial, of: str | None = None) -> str:
        """Return the SQL of a partial in the rows of a set, or of the delta.

        Args:
            partial: the partial.
            of: the partial whose set the rows are from; None for the delta.
        """
        if partial.name == of:
            return f"count(*) AS {ident(partial.name)}"
        if of is None and partial.sql is not None:
            return ident(partial.name)
        return f"{_NOTHING.get(partial.combine, 'NULL')} AS {ident(partial.name)}"

    def upsert(self, rows: str) -> str:
        changes = ",\n    ".join(f"{ident(partial.name)} = {combined(partial)}" for partial in self.plan.partials)
        if changes:
            changes += f",\n    {checksums.BEFORE} = {self.relation.row_hash('kept')}"
        action = f"DO UPDATE SET\n    {changes}" if changes else "DO NOTHING"
        return f"INSERT INTO {self.table} AS kept ({self.column_list})\n{rows}\nON CONFLICT ({self.key_list}) {action}"

    def written(self, rows: str) -> str:
        """Return the CTE that upserts rows into the table."""
        returning = checksums.returning(self.relation, before=bool(self.plan.partials))
        returning += self.outbox.returning(self.relation)
        return f"written AS (\n{indent(self.upsert(rows))}\n    {returning}\n)"

    def new_members(self, at: int, set_table: str, one: Members, rows: str) -> str:
        returning = checksums.returning(self.set_relation(set_table, one))
        return (
            f"new_{at} AS (\n    INSERT INTO {set_table} ({self.key_list}, {MEMBER})\n{indent(rows)}\n"
            f"    ON CONFLICT DO NOTHING\n    {returning}, {self.key_list}\n)"
        )

    def page(self, sets: list[tuple[str, str, Members]], of: Page) -> str:
        parts = [of.source]
        changes = [checksums.change(0, "written", before=bool(self.plan.partials))]
        if not sets:
            parts.append(self.written(self.delta("page", None)))
        else:
            parts += [
                self.new_members(at, set_table, one, self.distinct("page", one, None))
                for at, (set_table, _, one) in enumerate(sets, start=1)
            ]
            new = {at: f"new_{at}" for at in range(1, len(sets) + 1)}
            parts.append(f"delta AS (\n{indent(self.delta('page', None))}\n)")
            parts.append(self.written(self.gathered(sets, new)))
            changes += [checksums.change(at, name) for at, name in new.items()]
        changes.append(checksums.read(of.coordinates) if sets else checksums.counted(of.events))
        parts.append(checksums.moved(changes) + self.outbox.sent(self.relation, "written"))
        return "WITH " + ",\n".join(parts) + "\n" + of.answer

    def folded(self, sets: list[tuple[str, str, Members]], arriving: str) -> str:
        """Return the query for the rows of the keys of more events, as a page with these events would write them.

        Args:
            sets: the sets behind the distinct counts.
            arriving: the relation of the events.
        """
        parts = [
            f"new_{at} AS (\n{indent(self.distinct(arriving, one, None))}\n"
            f"    EXCEPT SELECT {self.key_list}, {MEMBER} FROM {set_table}\n)"
            for at, (set_table, _, one) in enumerate(sets, start=1)
        ]
        fresh = self.delta(arriving, None)
        if sets:
            parts.append(f"delta AS (\n{indent(fresh)}\n)")
            fresh = self.gathered(sets, {at: f"new_{at}" for at in range(1, len(sets) + 1)})
        parts.append(f"excluded AS MATERIALIZED (\n{indent(fresh)}\n)")
        merged = [
            f"CASE WHEN kept.there__ THEN {combined(one)} ELSE excluded.{ident(one.name)} END AS {ident(one.name)}"
            for one in self.plan.partials
        ]
        keys = [f"excluded.{ident(key)}" for key in self.keys]
        # The hash lets Postgres join by hash, which IS NOT DISTINCT FROM does not.
        same = [f"{hash_of([f'{side}.{ident(key)}' for key in self.keys])}" for side in ("kept", "excluded")]
        same_key = [f"kept.{ident(key)} IS NOT DISTINCT FROM excluded.{ident(key)}" for key in self.keys]
        return (
            "WITH " + ",\n".join(parts) + "\nSELECT " + ",\n       ".join([*keys, *merged]) + "\nFROM excluded\n"
            f"LEFT JOIN (SELECT *, true AS there__ FROM {self.table}) AS kept\n"
            f"    ON {' AND '.join([' = '.join(same), *same_key])}"
        )

    def load(self, sets: list[tuple[str, str, Members]], *, first: bool) -> tuple[str, ...]:
        """Return the statements of a step of the first load, which reads its events once.

        CREATE TABLE AS may scan in parallel. One aggregation by key and member gives the sets; added up by key, it
        gives the delta.

        Args:
            sets: the sets behind the distinct counts.
            first: whether it is the first step: every member is new, and the sets' unique indexes follow the rows.
        """
        if not sets:
            return (
                f"CREATE TEMPORARY TABLE delta ON COMMIT DROP AS\n{self.delta(self.stream.table, self.stream.run())}",
                # WHERE true: without it the parser takes ON CONFLICT for a join condition.
                self.upsert(f"SELECT {self.column_list} FROM delta WHERE true"),
            )
        steps = [f"CREATE TEMPORARY TABLE fresh ON COMMIT DROP AS\n{self.by_member()}"]
        distinct = "SELECT DISTINCT" if len(sets) > 1 else "SELECT"
        for at, (set_table, set_name, _) in enumerate(sets, start=1):
            member = f"member__{at}"
            rows = f"{distinct} {self.key_list}, {member} FROM fresh WHERE {member} IS NOT NULL"
            into = f"INSERT INTO {set_table} ({self.key_list}, {MEMBER})\n{rows}"
            if first:
                steps += [into, _set_key(set_table, set_name, self.key_list)]
                continue
            steps += [
                f"CREATE TEMPORARY TABLE new_{at} ON COMMIT DROP AS SELECT {self.key_list} FROM fresh WITH NO DATA",
                f"WITH new AS (\n{indent(into)}\n    ON CONFLICT DO NOTHING\n    RETURNING {self.key_list}\n)\n"
                f"INSERT INTO new_{at} SELECT * FROM new",
            ]
        added = [f"{_added_up(partial)} AS {ident(partial.name)}" for partial in self.merged]
        steps.append(
            "CREATE TEMPORARY TABLE delta ON COMMIT DROP AS\n"
            f"SELECT {', '.join([self.key_list, *added])} FROM fresh GROUP BY {self.key_list}"
        )
        new = {at: set_table if first else f"new_{at}" for at, (set_table, _, _) in enumerate(sets, start=1)}
        steps.append(self.upsert(self.gathered(sets, new)))
        return tuple(steps)

    def by_member(self) -> str:
        """Return the query for the aggregates of new events, for each combination of key and members."""
        members = [f"{_counted(one)} AS member__{at}" for at, one in enumerate(self.plan.members, start=1)]
        outputs = [f"{literal(partial.sql or '')} AS {ident(partial.name)}" for partial in self.merged]
        groups = ", ".join(str(at) for at in range(1, len(self.keys) + len(members) + 1))
        return (
            "SELECT "
            + ",\n       ".join([*self.selected_keys(), *members, *outputs])
            + f"\nFROM {self.stream.table}{self.where(self.stream.run())}\nGROUP BY {groups}"
        )


def _set_key(set_table: str, set_name: str, key_list: str) -> str:
    return (
        f"CREATE UNIQUE INDEX IF NOT EXISTS {ident(set_name + '_key')}"
        f" ON {set_table} ({key_list}, {MEMBER}) NULLS NOT DISTINCT"
    )


def _added_up(partial: Partial) -> str:
    return f"{_GATHERED.get(partial.combine, partial.combine)}({ident(partial.name)})"


def _counted(one: Members) -> str:
    """Return the SQL of the member that an event adds to a set; NULL if it adds none."""
    member = literal(one.member)
    return member if one.condition is None else f"CASE WHEN {literal(one.condition)} THEN {member} END"


def _distinct_count(one: Members) -> str:
    restriction = "" if one.condition is None else f" FILTER (WHERE {literal(one.condition)})"
    return f"count(DISTINCT {literal(one.member)}){restriction}"
