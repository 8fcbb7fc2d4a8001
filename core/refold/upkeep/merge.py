"""merge and members: aggregate what is new, and fold it into what is kept.

A count(DISTINCT …) keeps the set of what it has counted beside the table; only what is new in the set adds
to the count.
"""

from __future__ import annotations

from refold.projections.identifiers import ident
from refold.projections.plan import Members, Partial, Plan
from refold.upkeep.statements import EVERYTHING, Relation, Statements, indent, key_names, literal, where
from refold.upkeep.stream import Page, Stream

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


def members_table(table: str, at: int) -> str:
    """The qualified name of the set behind the build's distinct count number `at` (from 1)."""
    return f"{table}__m{at}"


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
                f"CREATE TABLE {table} AS\n{self.whole(None)}\nWITH NO DATA",
                *(
                    f"CREATE TABLE {set_table} AS\n{self.distinct(self.stream.table, one, None)}\nWITH NO DATA"
                    for set_table, _, one in sets
                ),
            ),
            keys=(
                f"CREATE UNIQUE INDEX {ident(self.name + '__key')} ON {table} ({self.key_list}) NULLS NOT DISTINCT",
            ),
            indexes=tuple(
                f"CREATE UNIQUE INDEX IF NOT EXISTS {ident(set_name + '_key')}"
                f" ON {set_table} ({self.key_list}, member) NULLS NOT DISTINCT"
                for set_table, set_name, _ in sets
            ),
            page=self.page(sets, self.stream.page(plan.reads)),
            backlog=self.page(sets, self.stream.settled_page(plan.reads, uses=1 + len(sets))),
            load=self.load(sets),
            relations=(
                Relation(table, self.columns, self.keys, self.key_sql(), self.whole),
                *(
                    Relation(
                        set_table,
                        (*self.keys, "member"),
                        self.keys,
                        self.key_sql(),
                        lambda scope, one=one: self.distinct(self.stream.table, one, self.applied(scope)),  # type: ignore[misc]
                        identity=(*self.keys, "member"),
                    )
                    for set_table, _, one in sets
                ),
            ),
            view=f"SELECT {view} FROM {table}{having}",
        )

    def key_sql(self) -> tuple[str, ...]:
        return tuple(literal(part.sql) for part in self.plan.key)

    def applied(self, scope: str) -> str:
        return self.stream.applied() + ("" if scope == EVERYTHING else f"\n  AND {scope}")

    def where(self, *conditions: str | None) -> str:
        own = None if self.plan.where is None else f"({literal(self.plan.where)})"
        return where(*conditions, own)

    def selected_keys(self) -> list[str]:
        return [f"{literal(part.sql)} AS {ident(part.name)}" for part in self.plan.key]

    def whole(self, scope: str | None) -> str:
        """The metric itself over the stream; with a scope, over what the cursor has applied of it."""
        counted = {one.partial: one for one in self.plan.members}
        outputs = [
            f"{literal(partial.sql) if partial.sql is not None else _distinct_count(counted[partial.name])} AS {ident(partial.name)}"
            for partial in self.plan.partials
        ]
        condition = None if scope is None else self.applied(scope)
        return (
            "SELECT "
            + ",\n       ".join([*self.selected_keys(), *outputs])
            + f"\nFROM {self.stream.table}{self.where(condition)}\nGROUP BY {self.groups}"
        )

    def delta(self, source: str, condition: str | None) -> str:
        """The aggregates of new events alone."""
        outputs = [f"{literal(partial.sql or '')} AS {ident(partial.name)}" for partial in self.merged]
        return (
            "SELECT "
            + ",\n       ".join([*self.selected_keys(), *outputs])
            + f"\nFROM {source}{self.where(condition)}\nGROUP BY {self.groups}"
        )

    def distinct(self, source: str, one: Members, condition: str | None) -> str:
        """The members that events bring."""
        selected = ", ".join([*self.selected_keys(), f"{literal(one.member)} AS member"])
        restriction = None if one.condition is None else f"({literal(one.condition)})"
        return (
            f"SELECT DISTINCT {selected}\nFROM {source}"
            f"{self.where(condition, f'({literal(one.member)}) IS NOT NULL', restriction)}"
        )

    def gathered(self, sets: list[tuple[str, str, Members]]) -> str:
        """The delta and the counts of new members as rows of one shape, put together by key."""
        parts = [
            "SELECT "
            + ", ".join([self.key_list, *(self._column(p, of="delta") for p in self.plan.partials)])
            + " FROM delta"
        ]
        parts += [
            "SELECT "
            + ", ".join([self.key_list, *(self._column(p, of=one.partial) for p in self.plan.partials)])
            + f" FROM new_{at} GROUP BY {self.key_list}"
            for at, (_, _, one) in enumerate(sets, start=1)
        ]
        outputs = [
            f"{_GATHERED.get(partial.combine, partial.combine)}({ident(partial.name)}) AS {ident(partial.name)}"
            for partial in self.plan.partials
        ]
        return (
            f"SELECT {', '.join([self.key_list, *outputs])}\nFROM (\n"
            + "\n    UNION ALL\n".join(indent(part) for part in parts)
            + f"\n) AS arrived\nGROUP BY {self.groups}"
        )

    def _column(self, partial: Partial, of: str) -> str:
        if partial.name == of:
            return f"count(*) AS {ident(partial.name)}"
        if of == "delta" and partial.sql is not None:
            return ident(partial.name)
        return f"{_NOTHING.get(partial.combine, 'NULL')} AS {ident(partial.name)}"

    def upsert(self, rows: str) -> str:
        changes = ",\n    ".join(
            f"{ident(partial.name)} = {_COMBINED[partial.combine].format(ident(partial.name))}"
            for partial in self.plan.partials
        )
        action = f"DO UPDATE SET\n    {changes}" if changes else "DO NOTHING"
        return f"INSERT INTO {self.table} AS kept ({self.column_list})\n{rows}\nON CONFLICT ({self.key_list}) {action}"

    def new_members(self, at: int, set_table: str, rows: str) -> str:
        return (
            f"new_{at} AS (\n    INSERT INTO {set_table} ({self.key_list}, member)\n{indent(rows)}\n"
            f"    ON CONFLICT DO NOTHING\n    RETURNING {self.key_list}\n)"
        )

    def page(self, sets: list[tuple[str, str, Members]], of: Page) -> str:
        parts = [of.source]
        if not sets:
            parts.append(f"written AS (\n{indent(self.upsert(self.delta('page', None)))}\n)")
        else:
            parts += [
                self.new_members(at, set_table, self.distinct("page", one, None))
                for at, (set_table, _, one) in enumerate(sets, start=1)
            ]
            parts.append(f"delta AS (\n{indent(self.delta('page', None))}\n)")
            parts.append(f"written AS (\n{indent(self.upsert(self.gathered(sets)))}\n)")
        return "WITH " + ",\n".join(parts) + "\n" + of.answer

    def load(self, sets: list[tuple[str, str, Members]]) -> tuple[str, ...]:
        """Distinct first, then keys, then counts; CREATE TABLE AS may scan in parallel, INSERT … SELECT may not."""
        steps: list[str] = []
        for at, (set_table, set_name, one) in enumerate(sets, start=1):
            steps += [
                f"CREATE TEMPORARY TABLE fresh_{at} ON COMMIT DROP AS\n"
                f"{self.distinct(self.stream.table, one, self.stream.run())}",
                f"CREATE TEMPORARY TABLE new_{at} ON COMMIT DROP AS\nSELECT {self.key_list} FROM fresh_{at} WITH NO DATA",
                f"WITH new AS (\n    INSERT INTO {set_table} ({self.key_list}, member)\n    SELECT * FROM fresh_{at}\n"
                f"    ON CONFLICT DO NOTHING\n    RETURNING {self.key_list}\n)\nINSERT INTO new_{at} SELECT * FROM new",
                f"CREATE UNIQUE INDEX IF NOT EXISTS {ident(set_name + '_key')}"
                f" ON {set_table} ({self.key_list}, member) NULLS NOT DISTINCT",
            ]
        steps.append(
            f"CREATE TEMPORARY TABLE delta ON COMMIT DROP AS\n{self.delta(self.stream.table, self.stream.run())}"
        )
        rows = self.gathered(sets) if sets else f"SELECT {self.column_list} FROM delta"
        # WHERE true: without it the parser takes ON CONFLICT for a join condition.
        steps.append(self.upsert(rows if sets else rows + " WHERE true"))
        return tuple(steps)


def _distinct_count(one: Members) -> str:
    restriction = "" if one.condition is None else f" FILTER (WHERE {literal(one.condition)})"
    return f"count(DISTINCT {literal(one.member)}){restriction}"
