"""Names of a build's tables, indexes and statistics. Pure.

| name                     | of                                                            |
|--------------------------|---------------------------------------------------------------|
| `daily__0f3ab91c__2`     | the table: projection, start of its fingerprint, number       |
| `daily__0f3ab91c__2__m1` | the set behind its first distinct count                       |
| `…__id`, `…__at`         | the indexes of a stream: events, coordinates                  |
| `…__range`               | the index of a stream by ranges of positions                  |
| `…__key`, `…__hash`      | the indexes of rows with a key: the key, its hash             |
| `…__slice`               | the statistics about slices                                   |
| `…__base`                | the base of the table, or of a set                            |
"""

from __future__ import annotations

from collections.abc import Mapping

from refold.model.projection.plan import Upkeep

MEMBERS = "__m"
"""Suffix of the table of a set, followed by the set's number."""
ID = "__id"
AT = "__at"
RANGE = "__range"
KEY = "__key"
HASH = "__hash"
SLICE = "__slice"
BASE = "__base"
"""Suffix of the table that keeps what a table holds of events that have left the log."""

LOADED_FIRST: Mapping[Upkeep, tuple[str, ...]] = {
    "facts": (ID, AT, RANGE),
    "transform": (ID, AT, RANGE),
    "funnel": (KEY, HASH),
    "recompute": (KEY, HASH),
}
"""Suffixes of the indexes that a first load makes after the rows, by upkeep."""


def table_name(projection: str, fingerprint: str, number: int) -> str:
    """Return the name of a build's table. It has a number, because an unchanged rebuild keeps the fingerprint."""
    return f"{projection}__{fingerprint[:8]}__{number}"


def projection_of(table: str) -> str:
    """Return the name that a build's projection had when its table was made; `refold rename` may have changed it."""
    return table.split("__")[0]


def members_table(table: str, at: int) -> str:
    """Return the table of the set behind a build's distinct count.

    Args:
        table: the build's table; the result is qualified if this is.
        at: the number of the distinct count, from 1.
    """
    return f"{table}{MEMBERS}{at}"


def base_table(table: str) -> str:
    """Return the base of a table, or of a set; the result is qualified if the name is."""
    return f"{table}{BASE}"
