"""Why a row has its numbers: the events behind it, and the row counted again from them.

One snapshot shows the row, the cursor of its build and the stream. So exactly the events count that the build has
applied, without its dead letters; a build in the middle of a run is no exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg

from refold.engine.reconcile.audit import as_kept, parameters_of
from refold.errors import BuildError, InputError
from refold.inspect.lineage.cost import Bound, Cost, estimate, refuse_costly
from refold.inspect.lineage.recomputed import recomputed
from refold.inspect.lineage.row_key import Given, RowKey, read_key, source_id, types_of
from refold.inspect.lineage.snapshot import ANOTHER_VIEW, reading
from refold.model.projection.plan import LOG, Plan
from refold.model.sql_text import EVERYTHING, ident, in_order, indent, literal
from refold.model.stream.slices import NO_DAY, slice_day
from refold.model.upkeep import behind
from refold.postgres.rows import exact, one_row
from refold.store.builds.build import Build, by_id, live_builds
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.lookup import known
from refold.store.log import integrity


@dataclass(frozen=True, slots=True)
class Row:
    """A row as analysts see it, and as it is counted again.

    Args:
        shown: the row of the view; None if it has no such row.
        counted: the row that the events make; None if they make none.
    """

    shown: dict[str, Any] | None
    counted: dict[str, Any] | None

    @property
    def same(self) -> bool:
        """Return whether both are equal."""
        return self.shown == self.counted


@dataclass(frozen=True, slots=True)
class Did:
    """What an event did for a column; see `refold.model.upkeep.behind.How`."""

    column: str
    how: behind.How
    value: Any
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Behind:
    """An event behind a row.

    Args:
        txid: its coordinates in the log, with `position` and `ordinal`.
        row_id: the id of the row in the stream; that of the event, unless a transform made several of it.
        event_id: the id of the event; None, as the next four, if the log does not have it.
        user_id: the user.
        action: what happened.
        ts: when it happened.
        metadata: its attributes.
        did: what it did for the row.
        purged: whether the log does not have it because it was purged.
    """

    txid: int
    position: int
    ordinal: int
    row_id: str
    event_id: str | None
    user_id: str | None
    action: str | None
    ts: datetime | None
    metadata: Any
    did: tuple[Did, ...] = ()
    purged: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """How many events did something for a column."""

    column: str
    how: behind.How
    step: int | None
    events: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Why a row has its numbers.

    Args:
        metric: the projection.
        table: the table of its live build.
        upkeep: how it is kept.
        stream: what it reads: `events` (the log), or a projection whose rows are explained by another answer.
        key: the key, as texts.
        rows: the rows of the key, each beside the row that is counted again.
        hidden: whether the table has a row that HAVING hides from analysts.
        differ: for each table of the build, how many rows differ from those counted again; only tables with any.
        events: how many events are behind the rows.
        told: how many events did something for a column, for those that not every event does.
        behind: the first of the events, and all that attain, decide or reach.
        dead_letters: events that the build leaves out, in all of its rows.
        in_run: whether the build is in the middle of a run, of which it has applied a part.
        purged: whether the metric's base counts events, too, that were purged from the log. Of the events behind the
            row only what they give to counts and sums is told then: a purged one may have brought the value before.
        standing: whether the event of the row was purged, so that the row stands as it was made, and nothing is counted
            again.
        cost: what the statements were estimated to cost.
        kept_from: the first day whose rows the metric keeps; None: it keeps all.
    """

    metric: str
    table: str
    upkeep: str
    stream: str
    key: Mapping[str, str | None]
    rows: tuple[Row, ...]
    hidden: bool
    differ: Mapping[str, int]
    events: int
    told: tuple[Told, ...]
    behind: tuple[Behind, ...]
    dead_letters: int
    in_run: bool
    purged: bool
    standing: bool
    cost: Cost
    kept_from: str | None = None

    @property
    def same(self) -> bool:
        """Return whether the rows, and the tables behind them, are what the events make, as far as the log tells."""
        return all(self.standing or row.same for row in self.rows) and not self.differ

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as a dict for JSON."""
        return asdict(self) | {
            "same": self.same,
            "rows": [asdict(row) | {"same": self.standing or row.same} for row in self.rows],
        }


def why(
    conn: psycopg.Connection,
    compiler: Compiler,
    metric: str,
    given: Given,
    *,
    shown: int = 20,
    bound: Bound = Bound(),  # noqa: B008 - frozen
) -> Answer:
    """Return why a row of a live metric has its numbers.

    Args:
        conn: acts as one of `EVIDENCE`, in autocommit mode.
        compiler: makes the SQL of builds.
        metric: the projection.
        given: its key, and perhaps further columns that choose among the rows of the key.
        shown: most events to return, besides those that attain, decide or reach.
        bound: what it may cost.

    Raises:
        InputError: a column does not exist, a value is wrong, or neither a row nor an event has the key.
        BuildError: the metric is not live, its view is another, or the code of a transform is missing here.
        Costly: it would cost more than the bound.
    """
    build = known(metric, {one.projection: one for one in live_builds(conn)})
    compiled = compiler.of(conn, build)
    try:
        with reading(conn, bound.timeout_s):
            return _Why(conn, compiled, as_kept(conn, compiled)).answer(given, shown, bound)
    except ANOTHER_VIEW as error:
        raise BuildError(
            f"the view of {metric} is missing, or another stands in its place",
            remedy=f"Run `refold reconcile {metric}`.",
        ) from error


class _Why:
    def __init__(self, conn: psycopg.Connection, compiled: CompiledBuild, build: Build) -> None:
        self.conn = conn
        self.compiled = compiled
        self.build = build
        self.plan = compiled.plan
        self.relations = list(compiled.statements.relations)
        self.parameters: dict[str, Any] = dict(parameters_of(conn, build))
        # Rows of events have no base: those whose events were purged stand by themselves.
        self.based = build.based and not self.plan.event_grain

    def answer(self, given: Given, shown: int, bound: Bound) -> Answer:
        key = read_key(self.conn, self.compiled, self.build, given)
        # One row at least tells how many there are.
        self.parameters |= {**key.parameters, "shown": str(max(shown, 1))}
        scope, inside = self._scopes(key)
        rows = self._rows(key, scope)
        events = behind.statement(self.plan, self.compiled.stream, self.relations[0], inside)
        differences = {one.table: key.only(one).differences(scope, key.of_key()) for one in self.relations}
        cost = estimate(self.conn, [rows, events, *differences.values()], self.parameters, self.compiled.stream.table)
        refuse_costly(cost, bound)
        found = self._read_rows(rows)
        number, told, shown_events = self._read_events(events, shown)
        kept = bool(found) or self._in_table(key)
        if not kept and not number:
            raise self._gone(key) or self._nothing(key)
        differ = {table.removeprefix("refold_builds."): self._number(one) for table, one in differences.items()}
        standing = self._stands(key)
        return Answer(
            metric=self.build.projection,
            table=self.build.table_name,
            upkeep=self.plan.upkeep,
            stream=LOG if self.build.upstream_id is None else by_id(self.conn, self.build.upstream_id).projection,
            key=key.as_dict(),
            rows=found,
            hidden=kept and not found,
            differ={name: rows for name, rows in differ.items() if rows},
            events=number,
            told=told,
            behind=shown_events,
            dead_letters=self.build.dead_letters,
            in_run=self.build.cursor.target is not None,
            purged=self.based,
            standing=standing,
            cost=cost,
            kept_from=self._kept_from(),
        )

    def _scopes(self, key: RowKey) -> tuple[str, str]:
        """Return the conditions on rows of the stream: for the rows counted again, and for the events behind them."""
        relation = self.relations[0]
        if self.plan.event_grain:
            self.parameters["source_id"] = source_id(self.compiled, key.values[0] or "")
        if self.compiled.transform is None:
            scope, inside = behind.of_key(self.plan, self.compiled.stream, relation, key.slice, key.position)
            if not self.plan.event_grain:
                # An index serves the first part.
                inside += f"\n  AND {in_order(inside, key.of_stream(relation))}"
            return scope, inside
        event = behind.of_event(self.compiled.stream, key.position)
        types = types_of(self.conn, self.build, relation.columns)
        made = recomputed(self.conn, self.compiled, types, self.parameters, event, key.values[0] or "")
        self.relations[0] = made.relation
        self.parameters |= made.parameters
        return EVERYTHING, f"{event}\n  AND {self.compiled.stream.applied()}"

    # The rows

    def _rows(self, key: RowKey, scope: str) -> str:
        """Return the query for the rows of the view and the rows counted again: side, row."""
        relation = self.relations[0]
        columns = [column.name for column in self.plan.columns]
        outputs = ", ".join(_outputs(self.plan))
        having = "" if self.plan.having is None else f" AND ({literal(self.plan.having)})"
        # An event-grain metric need not show the ids of its events.
        tells = set(relation.key) <= set(columns)
        shown = (
            f"SELECT {', '.join(map(ident, columns))} FROM metrics.{ident(self.build.projection)} WHERE {key.of_row()}"
            if tells
            else f"SELECT {outputs} FROM {relation.table} WHERE {key.of_key()}"
        )
        expected = indent(relation.expected(scope, key.of_key()))
        counted = f"SELECT {outputs} FROM (\n{expected}\n) AS k\nWHERE {key.of_key()}{having}"
        if tells and key.others:
            counted = f"SELECT * FROM (\n{indent(counted)}\n) AS c\nWHERE {key.of_row()}"
        return (
            f"WITH shown AS MATERIALIZED (\n{indent(shown)}\n),\ncounted AS MATERIALIZED (\n{indent(counted)}\n)\n"
            # No column has such a name, which would be read instead of the row.
            "SELECT 'shown', to_jsonb(s__) FROM shown AS s__\nUNION ALL\n"
            "SELECT 'counted', to_jsonb(c__) FROM counted AS c__"
        )

    def _read_rows(self, query: str) -> tuple[Row, ...]:
        sides: dict[str, list[dict[str, Any]]] = {"shown": [], "counted": []}
        for side, row in exact(self.conn.cursor()).execute(query.encode(), self.parameters).fetchall():
            sides[side].append(row)
        return tuple(_paired(sides["shown"], sides["counted"]))

    def _in_table(self, key: RowKey) -> bool:
        query = f"SELECT EXISTS (SELECT FROM {self.relations[0].table} WHERE {key.of_key()})"
        return bool(one_row(self.conn, query.encode(), self.parameters)[0])

    def _stands(self, key: RowKey) -> bool:
        """Return whether the log does not tell the row any more."""
        told = self.relations[0].told
        if told == EVERYTHING:
            return False
        query = f"SELECT EXISTS (SELECT FROM {self.relations[0].table} WHERE {key.of_key()} AND NOT ({told}))"
        return bool(one_row(self.conn, query.encode(), self.parameters)[0])

    def _number(self, query: str) -> int:
        return int(one_row(self.conn, f"SELECT count(*) FROM (\n{query}\n) AS d".encode(), self.parameters)[0])

    def _kept_from(self) -> str | None:
        first = self.build.retained_from
        return None if first is None else slice_day(first)

    def _gone(self, key: RowKey) -> InputError | None:
        """Return the error for a row of a day that is not kept any more; None if its day is kept."""
        first = self.build.retained_from
        if first is None or not NO_DAY < key.slice < first:
            return None
        return InputError(
            f"{self.build.projection} keeps its rows from {self._kept_from()} on: a row with {_told(key)} is gone",
            remedy=f"`refold retain {self.build.projection} --forever` and `refold rebuild {self.build.projection}`"
            " bring back what is gone.",
        )

    def _nothing(self, key: RowKey) -> InputError:
        return InputError(
            f"{self.build.projection} has no row with {_told(key)}, and has applied no event for it",
            remedy="`refold where EVENT_ID` shows the rows that an event is in, and `refold status` what is not"
            " applied yet.",
        )

    # The events

    def _read_events(self, query: str, shown: int) -> tuple[int, tuple[Told, ...], tuple[Behind, ...]]:
        marks = behind.marks(self.plan)
        telling = [one.how == "gives" or not self.based for one in marks]
        floor = integrity.floor(self.conn)
        events, counts, found = 0, [0] * len(marks), []
        for (
            number,
            total,
            *coordinates,
            values,
            hits,
            numbers,
            event_id,
            user_id,
            action,
            ts,
            metadata,
        ) in exact(self.conn.cursor()).execute(query.encode(), self.parameters).fetchall():
            events, counts = int(total), [int(one) for one in numbers]
            did = tuple(
                Did(mark.column, mark.how, value, mark.step)
                for mark, value, hit, tells in zip(marks, values, hits, telling, strict=True)
                if tells and (value is not None if mark.how == "gives" else hit)
            )
            if number <= shown or any(one.how in behind.ALONE for one in did):
                txid, position, ordinal, row_id = coordinates
                gone = event_id is None and position < floor
                found.append(
                    Behind(txid, position, ordinal, row_id, event_id, user_id, action, ts, metadata, did, gone)
                )
        told = (
            Told(mark.column, mark.how, mark.step, number)
            for mark, number, tells in zip(marks, counts, telling, strict=True)
            if tells and mark.how != "gives"
        )
        return events, tuple(told), tuple(found)


def _told(key: RowKey) -> str:
    return ", ".join(f"{name} {'NULL' if value is None else repr(value)}" for name, value in key.as_dict().items())


def _outputs(plan: Plan) -> list[str]:
    """Return the columns of the view as SQL over the rows of the table."""
    return [
        f"{literal(column.sql)} AS {ident(column.name)}"
        if plan.upkeep in ("merge", "members") and column.sql != column.name
        else ident(column.name)
        for column in plan.columns
    ]


def _paired(shown: Sequence[dict[str, Any]], counted: Sequence[dict[str, Any]]) -> list[Row]:
    """Return rows of both sides in pairs: equal rows first, then the others in their order."""
    left = list(counted)
    pairs, alone = [], []
    for row in shown:
        if row in left:
            left.remove(row)
            pairs.append(Row(row, row))
        else:
            alone.append(row)
    for at in range(max(len(alone), len(left))):
        pairs.append(Row(alone[at] if at < len(alone) else None, left[at] if at < len(left) else None))
    return pairs
