"""Applied events that fail when healing evaluates them: they become dead letters, as in a page.

Such an event was changed by hand, or appended behind the cursor, or the function no longer accepts it. Without dead
letters, one such event would block the healing of its whole slice. An audit without healing makes no dead letters: it
fails with an error.
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
    """Do some work on the applied events of a build, and return its result; failing events become dead letters.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        compiled: the build's SQL.
        build: the build.
        work: function of the cursor and the dead letters, as parameters (`cursor_parameters`).
        evaluate: the part of the work that may fail, as a function of such parameters for any part of the applied
            events; its writes are rolled back.

    Raises:
        BuildError: too many events fail.
        Exception: the error of the work, if no event causes it.
    """
    while True:
        parameters = cursor_parameters(build.cursor, excluded_event_ids(conn, by_id(conn, build.build_id)))
        try:
            with conn.transaction():
                return work(parameters)
        except Exception as error:
            if not caused_by_event(error) or not _quarantine_first(conn, compiled, build, evaluate):
                raise


def _quarantine_first(
    conn: psycopg.Connection, compiled: CompiledBuild, build: Build, evaluate: Callable[[Parameters], object]
) -> bool:
    """Make the first failing event, in the order of the stream, a dead letter; return whether there was any."""
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
    """Yield a cursor as runs between two snapshots, each with its progress."""
    yield Cursor(EMPTY, cursor.done, LAST)
    if cursor.target is not None and cursor.progress is not None:
        yield cursor
