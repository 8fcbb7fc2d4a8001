"""What the log cannot tell any more, because its events were purged, is never healed from it.

The base of a merged build stands for these events, and the rows of a stream stand for themselves. Both have kept
checksums, so that damage to them is found. To heal a table from a damaged base would destroy the last correct copy of
a number, and to correct the checksum of a damaged row would hide the damage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import psycopg

from refold.errors import BuildError
from refold.model.stream.slices import POSITION_BITS, runs
from refold.store.builds.build import Build
from refold.store.builds.checksums import Disagreement, disagreements
from refold.store.builds.compiled import CompiledBuild


class BeyondLog(BuildError):
    """Rows differ from their checksums, and the events behind them are in the archive alone."""

    def __init__(self, table: str, slices: Collection[str]) -> None:
        first = ", ".join(sorted(slices)[:3])
        more = f" and {len(slices) - 3:,} more" if len(slices) > 3 else ""
        super().__init__(
            f"{table} differs from its checksums in {first}{more}, and the events behind it were purged from the log",
            remedy="Nothing was changed there. `refold reconcile --archive` heals it from the archive.",
        )


def damaged(
    conn: psycopg.Connection, compiled: CompiledBuild, build: Build, numbers: Collection[int]
) -> list[Disagreement]:
    """Return those slices of a build whose rows stand for purged events, and differ from their checksums.

    Args:
        conn: one snapshot of checksums and rows: under the build's lock, or REPEATABLE READ.
        compiled: the build's SQL.
        build: the build.
        numbers: its slices.
    """
    if not (build.based and numbers):
        return []
    statements = compiled.statements
    if statements.counted:
        return disagreements(conn, build.build_id, statements.counted, runs(numbers), first=len(statements.relations))
    if not compiled.plan.event_grain:
        return []
    whole = [number for number in numbers if number < build.floor >> POSITION_BITS]
    return disagreements(conn, build.build_id, statements.relations, runs(whole)) if whole else []


def agreeing(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, numbers: Collection[int]) -> set[int]:
    """Return those slices of an event-grain build of which a part was purged, if their rows agree with the checksums.

    Args:
        conn: one snapshot of checksums and rows: under the build's lock, or REPEATABLE READ.
        compiled: the build's SQL.
        build: the build.
        numbers: its slices.
    """
    if not (build.based and compiled.plan.event_grain):
        return set()
    mine = {number for number in numbers if number << POSITION_BITS < build.floor}
    wrong = disagreements(conn, build.build_id, compiled.statements.relations, runs(mine)) if mine else []
    return mine - {one.slice for one in wrong}


def cut(compiled: CompiledBuild, build: Build, wrong: Iterable[Disagreement]) -> list[Disagreement]:
    """Return those slices of positions of which a part was purged.

    Args:
        compiled: the build's SQL.
        build: the build.
        wrong: slices of an event-grain build, or of a stream.
    """
    if not build.based or compiled.stream.ordinal:
        return []
    return [one for one in wrong if one.slice << POSITION_BITS < build.floor]
