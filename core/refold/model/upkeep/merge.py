"""merge and members: aggregate what is new, and fold it into what is kept.

A count(DISTINCT …) keeps the set of what it has counted beside the table; only what is new in the set adds
to the count.
"""

from __future__ import annotations

from collections.abc import Mapping

from refold.model.projection.plan import Members, Partial, Plan
from refold.model.sql_text import hash_of, ident, in_order, indent, literal, where
from refold.model.stream.page_sql import Page, Stream
from refold.model.stream.slices import by_key
from refold.model.upkeep import checksums
from refold.model.upkeep.names import KEY, members_table
from refold.model.upkeep.statements import Relation, Statements, key_names, slice_statistics

_COMBINED = {
    "count": "kept.{0} + excluded.{0}",
    "members": "kept.{0} + excluded.{0}",
    "sum": "coalesce(kept.{0} + excluded.{0}, kept.{0}, excluded.{0})",
    "min": "least(kept.{0}, excluded.{0})",
    "max": "greatest(kept.{0}, excluded.{0})",
    "bool_and": "coalesce(kept.{0} AND excluded.{0}, kept.{0}, excluded.{0})",
    "bool_or": "coalesce(kept.{0} OR excluded.{0}, kept.{0}, excluded.{0})",
}
MEMBER = "member__"
"""Column of the sets: what was counted."""
_GATHERED = {"count": "sum", "members": "sum"}
_NOTHING = {"count": "0", "members": "0"}


def combined(partial: Partial) -> str:
    """What a partial of the row that is `kept` and of the one that is `excluded` come to."""
    return _COMBINED[partial.combine].format(ident(partial.name))


def statements(plan: Plan, stream: Stream, table: str, name: str) -> Statements:
    """The SQL of a build whose aggregates are merged."""
    return _Merge(plan, stream, table, name).statements()


class _Merge:
    def __init__(self, plan: Plan, stream: Stream, table: str, name: str) -> None:
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
        self.relation = Relation(table, self.columns, self.keys, self.key_sql(), self.expected, slicing, guard=guard)
        self.merged = [partial for partial in plan.partials if partial.sql is not None]

    def statements(self) -> Statements:
        plan, table = self.plan, self.table
        sets = [
            (members_table(table, at), members_table(self.name, at), members)
            for at, members in enumerate(plan.members, start=1)
        ]
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
            load=self.load(sets, first=True),
            load_next=self.load(sets, first=False),
            relations=(self.relation, *(self.set_relation(set_table, one) for set_table, _, one in sets)),
            view=f"SELECT {view} FROM {table}{having}",
            view_hides=bool(having),
            # To read a page's coordinates once more costs half of what it costs to aggregate the page.
            reads_by_slice=bool(sets),
        )

    def set_relation(self, set_table: str, one: Members) -> Relation:
        columns = (*self.keys, MEMBER)
        return Relation(
            set_table,
            columns,
            self.keys,
            self.key_sql(),
            lambda scope: self.distinct(self.stream.table, one, self.stream.applied(), scope),
            self.relation.slicing,
            identity=columns,
            guard=self.relation.guard,
        )

    def own_hash(self) -> str:
        return hash_of([ident(key) for key in self.keys])

    def key_sql(self) -> tuple[str, ...]:
        return tuple(literal(part.sql) for part in self.plan.key)

    @property
    def own(self) -> str | None:
        """The projection's WHERE."""
        return None if self.plan.where is None else f"({literal(self.plan.where)})"

    def where(self, reach: str | None, *conditions: str | None, scope: str | None = None) -> str:
        """Which rows: within reach, then by the projection's WHERE, then by what needs its expressions.

        A scope is safe for any row, and stands apart, where the indexes see it.
        """
        return where(scope, in_order(reach, self.own, *conditions))

    def selected_keys(self) -> list[str]:
        return [f"{literal(part.sql)} AS {ident(part.name)}" for part in self.plan.key]

    def trigger(self) -> tuple[str, ...]:
        """What lets no row be written for which the view would fail; for each row as it is in the end."""
        if self.plan.evaluated is None:
            return ()
        return (
            f"CREATE TRIGGER evaluated AFTER INSERT OR UPDATE ON {self.table} FOR EACH ROW\n"
            f"WHEN ({literal(self.plan.evaluated)}) EXECUTE FUNCTION refold.evaluated()",
        )

    def expected(self, scope: str) -> str:
        """What the table must hold; an audit that evaluates it also evaluates what the view makes of it."""
        whole = self.whole(scope)
        if self.plan.evaluated is None:
            return whole
        return (
            f"SELECT {self.column_list} FROM (\n{indent(whole)}\n) AS new\n"
            f"WHERE ({literal(self.plan.evaluated)}) IS NOT TRUE"
        )

    def whole(self, scope: str | None = None) -> str:
        """The metric itself over the stream; with a scope, over what the cursor has applied of it."""
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

    def delta(self, source: str, condition: str | None) -> str:
        """The aggregates of new events alone."""
        outputs = [f"{literal(partial.sql or '')} AS {ident(partial.name)}" for partial in self.merged]
        return (
            "SELECT "
            + ",\n       ".join([*self.selected_keys(), *outputs])
            + f"\nFROM {source}{self.where(condition)}\nGROUP BY {self.groups}"
        )

    def distinct(self, source: str, one: Members, reach: str | None, scope: str | None = None) -> str:
        """The members that events bring."""
        selected = ", ".join([*self.selected_keys(), f"{literal(one.member)} AS {MEMBER}"])
        restriction = None if one.condition is None else f"({literal(one.condition)})"
        member = f"({literal(one.member)}) IS NOT NULL"
        return f"SELECT DISTINCT {selected}\nFROM {source}{self.where(reach, restriction, member, scope=scope)}"

    def gathered(self, sets: list[tuple[str, str, Members]], new: Mapping[int, str]) -> str:
        """The delta and the counts of new members as rows of one shape, put together by key.

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
        """A partial in the rows of the set that it counts, of another's set, or (None) of the delta."""
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
        """The CTE that folds rows into the table."""
        returning = checksums.returning(self.relation, before=bool(self.plan.partials))
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
        parts.append(checksums.moved(changes))
        return "WITH " + ",\n".join(parts) + "\n" + of.answer

    def load(self, sets: list[tuple[str, str, Members]], *, first: bool) -> tuple[str, ...]:
        """A step of the first load, which reads its events once; CREATE TABLE AS may scan in parallel.

        Members are told apart in the aggregation itself: what comes out is their sets, and added up the delta.

        Args:
            sets: the sets behind the distinct counts.
            first: nothing is kept yet, so every member is new, and the sets' keys are made after the rows.
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
        """The aggregates of new events for each combination of key and members."""
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
    """The member that an event counts for, NULL for none."""
    member = literal(one.member)
    return member if one.condition is None else f"CASE WHEN {literal(one.condition)} THEN {member} END"


def _distinct_count(one: Members) -> str:
    restriction = "" if one.condition is None else f" FILTER (WHERE {literal(one.condition)})"
    return f"count(DISTINCT {literal(one.member)}){restriction}"
