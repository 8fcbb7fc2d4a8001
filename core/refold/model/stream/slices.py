"""Slices: the division of a build into parts, so that an audit and its repair read only the parts concerned. Pure.

A slice is a number that can be computed both from a row of the table and from the rows of the stream behind it. If a
part of the key is the event's day (or hour, week, month) in UTC, the slice is that day. If a row is an event, the slice
is a range of the log's positions. Otherwise it is a range of the key's hash, for which a recompute build has an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from sqlglot import exp

from refold.model.projection.plan import KeyPart
from refold.model.projection.sqlglot_compat import expression
from refold.model.sql_text import ident

POSITION_BITS = 14
"""Bits of a position within its slice: an event-grain build has slices of 16,384 positions of the log.

The same number is in `sql/functions/position_slice.sql`."""
HASH_BITS = 8
"""Bits of a key's hash that number its slice: a build without a day in its key has 256 slices."""

NO_DAY = -(2**31)
"""The slice of rows without a day (NULL, -infinity)."""
LAST = 2**31 - 1
"""The slice of +infinity."""

Range = tuple[int | None, int | None]
"""The first and the last slice of a range, both included; None means no limit on that side."""
EVERY_SLICE: Sequence[Range] = ((None, None),)

_DAYS = {"WEEK": "7 days", "MONTH": "1 month", "QUARTER": "3 months", "YEAR": "1 year", "DECADE": "10 years",
         "CENTURY": "100 years", "MILLENNIUM": "1000 years"}  # fmt: skip
_ORDER = ("1 day", *_DAYS.values())
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Slicing:
    """How a build is divided into slices.

    Args:
        kind: what a slice is: a day, a range of positions, or a range of hashes.
        row: the slice as SQL over a row of the table, an integer.
        event: the slice as SQL over a row of the stream.
        table_hash: for hash slices, the key's hash as SQL over a row of the table.
        stream_hash: for hash slices, the key's hash as SQL over a row of the stream.
        indexed: whether an index finds the stream's rows of a slice.
        unit: for day slices, the time that one slice covers, as an SQL interval.
        day: for day slices, the column of the table with the day.
    """

    kind: Literal["day", "position", "hash"]
    row: str
    event: str
    table_hash: str = ""
    stream_hash: str = ""
    indexed: bool = True
    unit: str = "1 day"
    day: str = ""

    def scope(self, ranges: Sequence[Range]) -> tuple[str, str]:
        """Return two conditions for the slices in some ranges: on rows of the stream, and on rows of the table.

        The first conjunct decides; the others only enable index scans.

        Args:
            ranges: the ranges of slices; at least one.
        """
        held = self.held(ranges)
        lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
        low = None if None in lows else min(one for one in lows if one is not None)
        high = None if None in highs else max(one for one in highs if one is not None)
        stream, table = [f"{self.event} {held}"], [f"{self.row} {held}"]
        if self.kind == "position":
            for side in (stream, table):
                if low is not None and low != NO_DAY:
                    side.append(f"position >= {low << POSITION_BITS}")
                if high is not None and high != LAST:
                    side.append(f"position < {(high + 1) << POSITION_BITS}")
        elif self.kind == "hash":
            for side, hashed in ((stream, self.stream_hash), (table, self.table_hash)):
                if low is not None:
                    side.append(f"{hashed} >= '{low << (64 - HASH_BITS)}'::bigint")
                if high is not None:
                    side.append(f"{hashed} <= '{((high + 1) << (64 - HASH_BITS)) - 1}'::bigint")
        else:
            stream += self._times(low, high)
            table += self._days(low, high)
        return "\n  AND ".join(stream), "\n  AND ".join(table)

    @staticmethod
    def held(ranges: Sequence[Range]) -> str:
        """Return the end of the condition that a slice is in some ranges, to be appended to the slice's SQL."""
        return f"<@ '{multirange(ranges)}'::int4multirange"

    def _times(self, low: int | None, high: int | None) -> list[str]:
        bounds = []
        if low is not None and (day := _day(low)) is not None:
            bounds.append(f"ts >= '{day} UTC'::timestamptz")
        if high is not None and (day := _day(high)) is not None:
            # NULL is below every day: see NO_DAY.
            null = " OR ts IS NULL" if low is None or low == NO_DAY else ""
            bounds.append(f"(ts < '{day} UTC'::timestamptz + interval '{self.unit}'{null})")
        return bounds

    def _days(self, low: int | None, high: int | None) -> list[str]:
        bounds = []
        if low is not None and (day := _day(low)) is not None:
            bounds.append(f"{self.day} >= '{day}'::date")
        if high is not None and (day := _day(high + 1)) is not None:
            null = f" OR {self.day} IS NULL" if low is None or low == NO_DAY else ""
            bounds.append(f"({self.day} < '{day}'::date{null})")
        return bounds

    @property
    def of_time(self) -> bool:
        """Return whether a row's slice is a time, so that old slices can be told from new ones."""
        return self.kind == "day"

    def retained(self, first: str) -> str:
        """Return the condition that a row of the stream is in a slice that is kept; rows without a day are.

        Args:
            first: the first slice that is kept, as SQL.
        """
        return f"({self.event} < {NO_DAY + 1} OR {self.event} >= {first})"

    def name(self, number: int) -> str:
        """Return a slice in words, such as its day or its positions."""
        if self.kind == "day":
            return slice_day(number)
        if self.kind == "position":
            return f"positions {number << POSITION_BITS:,} to {((number + 1) << POSITION_BITS) - 1:,}"
        return f"keys {number + 2 ** (HASH_BITS - 1) + 1} of {2**HASH_BITS}"


def by_position() -> Slicing:
    """Return the slicing of a build whose rows are events."""
    return Slicing("position", position_slice(), position_slice())


def position_slice() -> str:
    """Return the SQL of a row's slice by its position."""
    return "refold.position_slice(position)"


def by_key(
    key: Sequence[KeyPart], key_sql: Sequence[str], table_hash: str, stream_hash: str, *, indexed: bool
) -> Slicing:
    """Return the slicing of a build with a key: by day if its key has one, otherwise by hash.

    Args:
        key: the parts of the key.
        key_sql: the key over a row of the stream, with percent signs escaped for a statement with parameters.
        table_hash: the key's hash as SQL over a row of the table.
        stream_hash: the key's hash as SQL over a row of the stream.
        indexed: whether the stream has an index on that hash.
    """
    days = [(unit, at) for at, part in enumerate(key) if (unit := day_unit(part.sql)) is not None]
    if days:
        unit, at = min(days, key=lambda one: _ORDER.index(one[0]))
        return Slicing(
            "day",
            f"refold.day_slice({ident(key[at].name)}::date)",
            f"refold.day_slice(({key_sql[at]})::date)",
            unit=unit,
            day=ident(key[at].name),
        )
    shift = 64 - HASH_BITS
    return Slicing(
        "hash",
        f"({table_hash} >> {shift})::integer",
        f"({stream_hash} >> {shift})::integer",
        table_hash,
        stream_hash,
        indexed,
    )


def slice_day(number: int) -> str:
    """Return the day of a slice that is a time, as text."""
    day = _day(number)
    return "no day" if day is None else str(day)


def day_unit(sql: str) -> str | None:
    """Return the time that one value of a key's expression covers; None if it is not a time of ts in UTC.

    Args:
        sql: the expression over a row of the stream.

    Returns:
        An SQL interval of at least a day, such as '7 days'.
    """
    node = expression(sql)
    columns = list(node.find_all(exp.Column))
    if len(columns) != 1 or columns[0].name != "ts":
        return None
    units = ["1 day"]
    inner: exp.Expr = node
    while isinstance(inner, exp.Paren | exp.Cast | exp.TimestampTrunc | exp.DateTrunc):
        if isinstance(inner, exp.Cast) and inner.to.this not in (exp.DType.DATE, exp.DType.TIMESTAMP):
            return None
        if isinstance(inner, exp.TimestampTrunc | exp.DateTrunc):
            unit = inner.args.get("unit")
            units.append(_DAYS.get(unit.name.upper(), "1 day") if unit is not None else "1000 years")
        inner = inner.this
    zone = inner.args.get("zone") if isinstance(inner, exp.AtTimeZone) else None
    if not isinstance(zone, exp.Literal) or zone.this.upper() != "UTC" or inner.this is not columns[0]:
        return None
    return max(units, key=_ORDER.index)


def multirange(ranges: Iterable[Range]) -> str:
    """Return ranges of slices as the text of an int4multirange."""
    # The greatest integer is written as no limit: Postgres would compute its successor, which overflows.
    parts = (
        f"[{'' if low is None else low},{'' if high is None or high >= 2**31 - 1 else f'{high}]'}"
        + (")" if high is None or high >= 2**31 - 1 else "")
        for low, high in ranges
    )
    return "{" + ",".join(parts) + "}"


def runs(slices: Iterable[int]) -> list[Range]:
    """Return slices as ranges, with neighbours joined."""
    found: list[Range] = []
    for number in sorted(set(slices)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def whole(number: int, lower: int, upper: int) -> bool:
    """Return whether all positions of a slice are in a range that ends before `upper`. (Position 0 does not exist.)"""
    return lower <= max(number << POSITION_BITS, 1) and (number + 1) << POSITION_BITS <= upper


def partition(known: Iterable[int], together: int) -> list[Range]:
    """Divide all possible slices into ranges without gaps between them.

    Args:
        known: the slices that have rows.
        together: how many known slices a range has, about.
    """
    borders = sorted(set(known))[together - 1 :: together][:-1] if known else []
    lows: list[int | None] = [None, *(border + 1 for border in borders)]
    return list(zip(lows, [*borders, None], strict=True))


def _day(number: int) -> date | None:
    try:
        return _EPOCH + timedelta(days=number)
    except OverflowError:
        return None
