"""What a candidate may differ in from the live build: `--expect`. Pure.

| text | allows |
|---|---|
| `identical` | no difference |
| `columns: users, revenue` | that rows differ in these columns, or that the columns are new or gone |
| `modified <= 1 %` | that at most this part of the rows is modified |
| `days >= 2026-03-01` | differences in these days only, for a metric with a day in its key |

All that are given must hold. Added and removed rows are allowed by `days` alone, if neither of the others is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from refold.errors import InputError

_SHARE = re.compile(r"modified\s*<=\s*([0-9]+(?:\.[0-9]+)?)\s*%")
_DAYS = re.compile(r"days\s*>=\s*([0-9]{4}-[0-9]{2}-[0-9]{2})")
_COLUMNS = re.compile(r"columns\s*:\s*(.+)")
_EPOCH = date(1970, 1, 1)
FORMS = "identical, columns: a, b, modified <= 1 %, days >= 2026-03-01"


@dataclass(frozen=True, slots=True)
class Difference:
    """What an expectation needs to know of a difference.

    Args:
        same: whether nothing differs.
        comparable: whether rows could be paired.
        columns: the columns that are new, gone, of another type, or in which rows differ.
        rows: rows that both builds have.
        modified: how many of them differ.
        added: rows that only the candidate has.
        removed: rows that only the live build has.
        first_day: days since 1970 of the first slice that differs; None if slices are not days.
    """

    same: bool
    comparable: bool
    columns: frozenset[str]
    rows: int
    modified: int
    added: int
    removed: int
    first_day: int | None


@dataclass(frozen=True, slots=True)
class Expectation:
    """The differences that are allowed; None means that a condition was not given."""

    identical: bool = False
    columns: frozenset[str] | None = None
    percent: Decimal | None = None
    since: date | None = None

    def violation(self, found: Difference) -> str | None:
        """Return how a difference goes beyond what is allowed; None if it does not."""
        if found.same:
            return None
        if self.identical:
            return "the builds are not identical"
        if not found.comparable:
            return "the key has changed"
        if self.columns is not None and not found.columns <= self.columns:
            return f"other columns differ: {', '.join(sorted(found.columns - self.columns))}"
        if (self.columns is not None or self.percent is not None) and (found.added or found.removed):
            return f"{found.added:,} rows were added and {found.removed:,} removed"
        # In whole numbers: a rounded percentage would hide a row in a million.
        if self.percent is not None and found.modified * 100 > self.percent * found.rows:
            return f"{found.modified:,} of {found.rows:,} rows are modified, more than {self.percent} %"
        if self.since is not None and found.modified + found.added + found.removed:
            if found.first_day is None:
                return "the metric has no day by which differences could be told apart"
            if found.first_day < (self.since - _EPOCH).days:
                return f"rows of days before {self.since} differ"
        return None


def parse(texts: Iterable[str]) -> Expectation | None:
    """Return what texts allow; None if there are none.

    Raises:
        InputError: a text has none of the forms.
    """
    given = [text.strip() for text in texts]
    if not given:
        return None
    found: dict[str, object] = {}
    for text in given:
        name, value = _parse(text)
        if name in found:
            raise InputError(f"{name} is expected twice: {text}", remedy="Give each form once.")
        found[name] = value
    if "identical" in found and len(found) > 1:
        raise InputError("identical allows nothing beside it", remedy="Omit the other expectations.")
    return Expectation(**found)  # type: ignore[arg-type]


def _parse(text: str) -> tuple[str, object]:
    if text == "identical":
        return "identical", True
    if match := _COLUMNS.fullmatch(text):
        return "columns", frozenset(_names(match[1].split(",")))
    if match := _SHARE.fullmatch(text):
        return "percent", Decimal(match[1])
    if match := _DAYS.fullmatch(text):
        try:
            return "since", date.fromisoformat(match[1])
        except ValueError as error:
            raise InputError(f"{match[1]} is not a day: {error}", remedy="Write it like 2026-03-01.") from error
    raise InputError(f"{text!r} is not an expectation", remedy=f"The forms: {FORMS}.")


def _names(parts: Sequence[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]
