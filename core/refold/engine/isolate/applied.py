"""Events that a build has passed and that fail when healing evaluates them: they are set aside, as a page would.

Somebody had put something harmless in their place, or they came behind the cursor; or the function has changed its
mind. Without this one of them would keep its whole slice from being healed. An audit that only looks sets nothing
aside: it fails, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import psycopg

from refold.engine.isolate.prefix import first_culprit
from refold.model.stream.cursor import EMPTY, Cursor
from refold.model.stream.parameters import LAST, cursor_parameters
from refold.postgres.sqlstate import caused_by_event
from refold.store.builds import read_checksums as reads
from refold.store.builds.build import Build, by_id
from refold.store.builds.compiled import CompiledBuild
from refold.store.builds.dead_letters import DeadLetterBudget, excluded_event_ids, quarantine

T = TypeVar("T")

Parameters = Mapping[str, str]


def without_culprits(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    build: Build,
    work: Callable[[Parameters], T],
    evaluate: Callable[[Parameters], object],
) -> T:
    """Does some work on what a build has applied; events that make it fail become dead letters of the build.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        compiled: the build's SQL.
        build: the build.
        work: what to do, given the cursor and the dead letters as parameters (`cursor_parameters`).
        evaluate: what may fail of that, given the cursor of any part of what was applied; what it writes is undone.

    Raises:
        BuildError: too many fail.
        Exception: the work's own, where no event is to blame.
    """
    while True:
        parameters = cursor_parameters(build.cursor, excluded_event_ids(conn, by_id(conn, build.build_id)))
        try:
            with conn.transaction():
                return work(parameters)
        except Exception as error:
            if not caused_by_event(error) or not _set_aside_first(conn, compiled, build, evaluate):
                raise


def _set_aside_first(
    conn: psycopg.Connection, compiled: CompiledBuild, build: Build, evaluate: Callable[[Parameters], object]
) -> bool:
    """Sets the first event aside, in the order of the stream, without which all before it can be evaluated."""
    dead = excluded_event_ids(conn, by_id(conn, build.build_id))
    for run in _runs(build.cursor):
        found = first_culprit(conn, compiled, run, dead, lambda cursor: evaluate(cursor_parameters(cursor, dead)))
        if found is None:
            continue
        number, culprit = found
        budget = DeadLetterBudget.for_page(conn, build, number)
        budget.spend(culprit.error)
        quarantine(conn, build, [culprit], beyond=budget.beyond)
        reads.forget(conn, compiled, culprit.key)
        return True
    return False


def _runs(cursor: Cursor) -> Iterator[Cursor]:
    """A cursor as runs from one snapshot to another, so that a progress says how far each is gone."""
    yield Cursor(EMPTY, cursor.done, LAST)
    if cursor.target is not None and cursor.progress is not None:
        yield cursor
