"""Names of a build's tables, and of what stands beside them. Pure.

| name                     | of                                                            |
|--------------------------|---------------------------------------------------------------|
| `daily__0f3ab91c__2`     | the table: projection, first of its fingerprint, number       |
| `daily__0f3ab91c__2__m1` | the set behind its first distinct count                       |
| `…__id`, `…__at`         | the indexes of a stream: events, coordinates                  |
| `…__range`               | the index of a stream by ranges of positions                  |
| `…__key`, `…__hash`      | the indexes of rows with a key: the key, its hash             |
| `…__slice`               | the statistics about slices                                   |
"""

from __future__ import annotations

from collections.abc import Mapping

from refold.model.projection.plan import Upkeep

MEMBERS = "__m"
"""Followed by a number."""
ID = "__id"
AT = "__at"
RANGE = "__range"
KEY = "__key"
HASH = "__hash"
SLICE = "__slice"

LOADED_FIRST: Mapping[Upkeep, tuple[str, ...]] = {
    "facts": (ID, AT, RANGE),
    "transform": (ID, AT, RANGE),
    "funnel": (KEY, HASH),
    "recompute": (KEY, HASH),
}
"""Indexes that a first load makes after the rows, by the ends of their names."""


def table_name(projection: str, fingerprint: str, number: int) -> str:
    """A build's table. The number is in it because an unchanged rebuild keeps the fingerprint."""
    return f"{projection}__{fingerprint[:8]}__{number}"


def projection_of(table: str) -> str:
    """The name that a build's projection had when its table was made; `refold rename` may have given it another."""
    return table.split("__")[0]


def members_table(table: str, at: int) -> str:
    """The set behind a build's distinct count number `at` (from 1), qualified as `table` is."""
    return f"{table}{MEMBERS}{at}"
