"""What the analysis of a projection found: everything that upkeep needs to know, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Upkeep = Literal["facts", "merge", "members", "funnel", "recompute", "transform"]
Combine = Literal["count", "sum", "min", "max", "bool_and", "bool_or", "members"]

LOG = "events"
"""The log's name in a projection's FROM."""

LOG_COLUMNS = ("event_id", "user_id", "action", "ts", "metadata", "version")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the view that analysts see: its name, the SQL over the table's columns, its comment."""

    name: str
    sql: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class KeyPart:
    """A column of the row's identity: its name in the table, and the SQL over one row of the stream."""

    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Partial:
    """An aggregate that is kept in the table.

    Args:
        name: its column.
        sql: the aggregate over the stream; None where it is counted from a set of members.
        combine: how two of them become one.
    """

    name: str
    sql: str | None
    combine: Combine


@dataclass(frozen=True, slots=True)
class Members:
    """The set behind one count(DISTINCT …).

    Args:
        partial: the column that counts it.
        member: the SQL of what is counted, over one row of the stream.
        condition: the FILTER of the aggregate, if any.
    """

    partial: str
    member: str
    condition: str | None


@dataclass(frozen=True, slots=True)
class Funnel:
    """A funnel whose state is kept in the row.

    Args:
        state: the column of the state.
        events: the aggregate over the stream that gathers what the funnel needs of its rows.
        steps: how many steps it has.
        level: the columns that show the level.
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
        upkeep: the kind chosen.
        stream: what it reads: `events` (the log) or an event-grain projection.
        reads: the columns of the stream that the query uses.
        key: the row's identity as SQL over one row of the stream.
        unique: whether a key has one row at most.
        lasting: whether a key that has a row keeps one, whatever happens next (recompute).
        partials: aggregates kept in the table (merge, members and funnel).
        members: the sets behind distinct counts.
        funnels: the funnels kept in the table.
        columns: what analysts see.
        where: the query's WHERE, over one row of the stream.
        having: the query's HAVING over the table's columns; the view applies it.
        evaluated: a condition over a row of the table, named `new`, that is never true: to evaluate it fails where the
            view would fail. None where the view cannot.
        query: the whole query in pieces; between them stands what it reads (recompute and funnel).
        description: what the file's head says.
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
        """Whether its rows are a stream that other projections can read."""
        return self.upkeep in ("facts", "transform")

    def kept_as(self, upkeep: str) -> Plan:
        """The plan of a build that was made with this upkeep.

        What a later version of refold would keep as a funnel, an earlier one has made to be recomputed; it stays so
        until the next deploy.
        """
        if (self.upkeep, upkeep) != ("funnel", "recompute"):
            return self
        columns = tuple(Column(column.name, column.name, column.comment) for column in self.columns)
        return replace(self, upkeep="recompute", partials=(), funnels=(), where=None, columns=columns)

    def reading(self, columns: Sequence[str]) -> Plan:
        """The plan where Postgres has said what the query reads: here a column may be hidden in sqlglot's tree.

        Args:
            columns: of the stream, in its order.
        """
        needed = ("event_id",) if self.upkeep == "facts" and "event_id" not in columns else ()
        return replace(self, reads=(*needed, *columns))

    @property
    def stream_columns(self) -> tuple[str, ...]:
        """The columns that its readers may use."""
        names = tuple(column.name for column in self.columns)
        return names if "event_id" in names else ("event_id", *names)
