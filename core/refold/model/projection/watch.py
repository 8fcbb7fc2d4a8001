"""The comment `-- watch: COLUMN by COLUMN`: which column of a projection is watched for what is unusual. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from refold.model.projection.plan import KeyPart, Plan
from refold.suggest import did_you_mean

_COMMENT = re.compile(r"^[ \t]*--[ \t]*watch:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_WATCH = re.compile(r"([a-z_][a-z0-9_]*)(?:[ \t]+by[ \t]+([a-z_][a-z0-9_]*))?")


@dataclass(frozen=True, slots=True)
class Watched:
    """A column of a metric that is watched.

    Args:
        column: its name; its sum over the rows of a day is a value.
        by: the column whose values make a series each; None: one series.
        day: the column with the day.
    """

    column: str
    by: str | None
    day: str


def watched(source: str, plan: Plan, days: Sequence[KeyPart]) -> tuple[list[Watched], list[str]]:
    """Return what the comments of a projection watch, and what is wrong with them.

    Args:
        source: the text of the projection.
        plan: its plan.
        days: the parts of its key that are a day in UTC.
    """
    found: list[Watched] = []
    wrong: list[str] = []
    columns = {one.name for one in plan.columns}
    for text in _COMMENT.findall(source):
        match = _WATCH.fullmatch(text)
        if match is None:
            wrong.append(f"-- watch: {text} is neither `COLUMN` nor `COLUMN by COLUMN`")
            continue
        column, by = match.groups()
        missing = next((one for one in (column, by) if one is not None and one not in columns), None)
        if missing is not None:
            wrong.append(f"-- watch: {text}: there is no column {missing}.{did_you_mean(missing, columns)}")
        elif not days or days[0].name not in columns:
            wrong.append(f"-- watch: {text}: the metric has no row for each day, (ts AT TIME ZONE 'UTC')::date")
        else:
            found.append(Watched(column, by, days[0].name))
    return found, wrong
