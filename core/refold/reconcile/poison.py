"""Events that a build has passed and that fail when healing evaluates them: they are set aside, as a page would.

Somebody had put something harmless in their place, or they came behind the cursor; or the function has changed its
mind. Without this one of them would keep its whole slice from being healed. An audit that only looks sets nothing
aside: it fails, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import psycopg

from refold.builds import reads
from refold.builds.build import Build, by_id
from refold.builds.dead_letters import Bound, left_out, set_aside
from refold.builds.upkeeper import Upkeeper
from refold.cursor import EMPTY, Cursor, Key
from refold.worker.culprits import of_an_event
from refold.worker.page import FIRST, LAST, cursor_parameters

T = TypeVar("T")

Parameters = Mapping[str, str]


def without_culprits(
    conn: psycopg.Connection,
    keeper: Upkeeper,
    build: Build,
    work: Callable[[Parameters], T],
    evaluate: Callable[[Parameters], object],
) -> T:
    """Does some work on what a build has applied; events that make it fail become dead letters of the build.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        keeper: the build's SQL.
        build: the build.
        work: what to do, given the cursor and the dead letters as parameters (`cursor_parameters`).
        evaluate: what may fail of that, given the cursor of any part of what was applied; what it writes is undone.

    Raises:
        BuildError: too many fail.
        Exception: the work's own, where no event is to blame.
    """
    while True:
        parameters = cursor_parameters(build.cursor, left_out(conn, by_id(conn, build.build_id)))
        try:
            with conn.transaction():
                return work(parameters)
        except Exception as error:
            if not of_an_event(error) or not _set_aside_first(conn, keeper, build, evaluate):
                raise


def _set_aside_first(
    conn: psycopg.Connection, keeper: Upkeeper, build: Build, evaluate: Callable[[Parameters], object]
) -> bool:
    """Sets the first event aside, in the order of the stream, without which all before it can be evaluated."""
    dead = left_out(conn, by_id(conn, build.build_id))

    def failure(cursor: Cursor) -> Exception | None:
        try:
            with conn.transaction(force_rollback=True):
                evaluate(cursor_parameters(cursor, dead))
        except Exception as error:
            if not of_an_event(error):
                raise
            return error
        return None

    for run in _runs(build.cursor):
        found = failure(run)
        if found is None:
            continue
        rows = _Rows(conn, keeper, run, dead)
        if not rows.count:
            continue
        passes, fails = 0, rows.count
        while fails - passes > 1:
            middle = (passes + fails) // 2
            error = failure(Cursor(run.done, run.target, rows.at(middle)[1]))
            if error is None:
                passes = middle
            else:
                fails, found = middle, error
        if fails == 1 and failure(Cursor(run.done, run.target, FIRST)) is not None:
            return False  # It fails without any event.
        event_id, key = rows.at(fails)
        Bound.of(conn, by_id(conn, build.build_id), rows.count).take(found)
        set_aside(conn, build, event_id, key, found)
        reads.forget(conn, keeper, key)
        return True
    return False


def _runs(cursor: Cursor) -> Iterator[Cursor]:
    """A cursor as runs from one snapshot to another, so that a progress says how far each is gone."""
    yield Cursor(EMPTY, cursor.done, LAST)
    if cursor.target is not None and cursor.progress is not None:
        yield cursor


class _Rows:
    """The rows of a stream that a run has applied, in order."""

    def __init__(self, conn: psycopg.Connection, keeper: Upkeeper, run: Cursor, dead: list[str]) -> None:
        self._conn = conn
        ordinal = "ordinal" if keeper.stream.ordinal else "0"
        self._query = (
            f"SELECT event_id, txid::text::bigint, position, {ordinal} FROM {keeper.stream.table}\n"
            f"WHERE NOT pg_visible_in_snapshot(txid, %(done)s::pg_snapshot) AND {keeper.stream.applied()}\n"
            f"ORDER BY {keeper.stream.coordinates}"
        )
        self._parameters = cursor_parameters(run, dead)
        row = conn.execute(f"SELECT count(*) FROM (\n{self._query}\n) AS r".encode(), self._parameters).fetchone()
        assert row is not None
        self.count = int(row[0])

    def at(self, number: int) -> tuple[str, Key]:
        """The row of that number, from 1: its id and key."""
        row = self._conn.execute(f"{self._query} OFFSET {number - 1} LIMIT 1".encode(), self._parameters).fetchone()
        assert row is not None
        event_id, *key = row
        return event_id, Key(*key)
