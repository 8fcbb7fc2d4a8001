"""The plan of a projection: the result of its analysis, with all that the generation of upkeep SQL needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from refold.model.sql_text import in_order

Upkeep = Literal["facts", "merge", "members", "funnel", "recompute", "transform"]
Combine = Literal["count", "sum", "min", "max", "bool_and", "bool_or", "members"]

LOG = "events"
"""The log's name in a projection's FROM."""

NO_UPCAST = "no_upcast"
"""The function that an upcaster's step calls where it fails: what reads metadata through one has it in its SQL."""

LOG_COLUMNS = ("event_id", "user_id", "action", "ts", "metadata", "version")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the view that analysts see: its name, its SQL over the table's columns, and its comment."""

    name: str
    sql: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class KeyPart:
    """A column of the key: its name in the table, and its SQL over one row of the stream."""

    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Partial:
    """An aggregate that is kept in the table (a partial aggregate).

    Args:
        name: its column.
        sql: the aggregate over rows of the stream; None if it is counted from a set of members.
        combine: how two of its values are merged into one.
    """

    name: str
    sql: str | None
    combine: Combine


@dataclass(frozen=True, slots=True)
class Members:
    """The set behind one count(DISTINCT …).

    Args:
        partial: the column that holds the count.
        member: the SQL of the counted value, over one row of the stream.
        condition: the FILTER of the aggregate; None without one.
    """

    partial: str
    member: str
    condition: str | None


@dataclass(frozen=True, slots=True)
class Funnel:
    """A funnel whose state is kept in the row.

    Args:
        state: the column that holds the state.
        events: the aggregate over rows of the stream that packs the events for the funnel.
        steps: the number of its steps.
        level: the columns that show the level reached.
        times: the columns that show when each step was reached.
    """

    state: str
    events: str
    steps: int
    level: tuple[str, ...] = ()
    times: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a projection is kept.

    Args:
        name: the projection.
        upkeep: the kind of upkeep that was chosen.
        stream: the stream that it reads: `events` (the log) or an event-grain projection.
        reads: the columns of the stream that the query uses.
        key: the key of a row, as SQL over one row of the stream.
        unique: whether a key has at most one row.
        lasting: whether a key that has a row always keeps one, whatever events follow (recompute).
        partials: the aggregates kept in the table (merge, members and funnel).
        members: the sets behind distinct counts.
        funnels: the funnels kept in the table.
        columns: the columns that analysts see.
        where: the query's WHERE, over one row of the stream.
        having: the query's HAVING over the table's columns; the view applies it.
        evaluated: a condition over a row of the table, named `new`, that is never true: its evaluation fails where the
            view would fail. None if the view cannot fail.
        query: the query in pieces, to be joined by the relation that it reads (recompute and funnel).
        description: the comment at the head of the file.
        because: why this upkeep was chosen.
    """

    name: str
    upkeep: Upkeep
    stream: str
    reads: tuple[str, ...]
    key: tuple[KeyPart, ...]
    columns: tuple[Column, ...]
    unique: bool = True
    lasting: bool = False
    partials: tuple[Partial, ...] = ()
    members: tuple[Members, ...] = ()
    funnels: tuple[Funnel, ...] = ()
    where: str | None = None
    having: str | None = None
    evaluated: str | None = None
    query: tuple[str, ...] = ()
    alias: str = ""
    description: str = ""
    because: str = ""

    @property
    def event_grain(self) -> bool:
        """Return whether its rows are a stream that other projections can read."""
        return self.upkeep in ("facts", "transform")

    def kept_as(self, upkeep: str) -> Plan:
        """Return the plan of an existing build that was made with this upkeep.

        An earlier version of refold recomputed metrics that this version keeps as funnels. Their builds are recomputed
        until the next deploy.
        """
        if (self.upkeep, upkeep) != ("funnel", "recompute"):
            return self
        columns = tuple(Column(column.name, column.name, column.comment) for column in self.columns)
        return replace(self, upkeep="recompute", partials=(), funnels=(), where=None, columns=columns)

    def reading(self, columns: Sequence[str]) -> Plan:
        """Return the plan with the columns that the query reads according to Postgres; sqlglot's tree may hide some.

        Args:
            columns: the columns of the stream that the query reads, in the stream's order.
        """
        needed = ("event_id",) if self.upkeep == "facts" and "event_id" not in columns else ()
        return replace(self, reads=(*needed, *columns))

    def restricted(self, condition: str) -> Plan:
        """Return the plan over those rows of the stream for which a condition holds.

        Args:
            condition: a condition that holds for all rows of a key or for none, and fails for no row.
        """
        before, after = "(SELECT * FROM ", f" AS all__ WHERE {condition})"
        last = len(self.query) - 1
        return replace(
            self,
            # A CASE: the condition is evaluated only where the query's own WHERE holds.
            where=in_order(None if self.where is None else f"({self.where})", condition),
            query=tuple(
                f"{after if at else ''}{piece}{before if at < last else ''}" for at, piece in enumerate(self.query)
            ),
        )

    @property
    def stream_columns(self) -> tuple[str, ...]:
        """Return the columns that its readers may use, event_id among them."""
        names = tuple(column.name for column in self.columns)
        return names if "event_id" in names else ("event_id", *names)
