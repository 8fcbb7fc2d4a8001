"""The first failing event of a run, where each attempt evaluates all events from the first.

That holds for healing, and for a load that does not read a range of the stream (recompute, by ranges of the key).
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from refold.engine.isolate.search import Culprit, first_failing
from refold.model.stream.cursor import Cursor, Key
from refold.model.stream.parameters import FIRST, cursor_parameters
from refold.postgres.sqlstate import caused_by_event
from refold.store.builds.compiled import CompiledBuild


def first_culprit(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    run: Cursor,
    dead: list[str],
    evaluate: Callable[[Cursor], object],
) -> tuple[int, Culprit] | None:
    """Return the first failing event of a run, in the order of the stream: without it, all earlier ones pass.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        compiled: the build's SQL.
        run: from one snapshot to another, up to its progress.
        dead: the ids of the build's dead letters.
        evaluate: evaluates the events that a cursor has applied; its writes are rolled back.

    Returns:
        The number of its row in the run, from 1, and the culprit; None if nothing fails, or if it fails without events.
    """

    def failure(cursor: Cursor) -> Exception | None:
        return failure_of(conn, lambda: evaluate(cursor))

    if failure(run) is None:
        return None
    rows = _Rows(conn, compiled, run, dead)
    if not rows.count:
        return None

    def of_so_many(count: int) -> Exception | None:
        return failure(run if count == rows.count else Cursor(run.done, run.target, rows.at(count)[1]))

    number, error = first_failing(rows.count, of_so_many)
    if number == 1 and failure(Cursor(run.done, run.target, FIRST)) is not None:
        return None
    event_id, key = rows.at(number)
    return number, Culprit(event_id, key, error)


def failure_of(conn: psycopg.Connection, work: Callable[[], object]) -> Exception | None:
    """Run some work, roll back its writes, and return the error that events cause, if any.

    Raises:
        Exception: an error that no event causes.
    """
    try:
        with conn.transaction(force_rollback=True):
            work()
    except Exception as error:
        if not caused_by_event(error):
            raise
        return error
    return None


class _Rows:
    """The rows of a stream that a run has applied, in order."""

    def __init__(self, conn: psycopg.Connection, compiled: CompiledBuild, run: Cursor, dead: list[str]) -> None:
        self._conn = conn
        ordinal = "ordinal" if compiled.stream.ordinal else "0"
        self._query = (
            f"SELECT event_id, txid::text::bigint, position, {ordinal} FROM {compiled.stream.table}\n"
            f"WHERE NOT pg_visible_in_snapshot(txid, %(done)s::pg_snapshot) AND {compiled.stream.applied()}\n"
            f"ORDER BY {compiled.stream.coordinates}"
        )
        self._parameters = cursor_parameters(run, dead)
        row = conn.execute(f"SELECT count(*) FROM (\n{self._query}\n) AS r".encode(), self._parameters).fetchone()
        assert row is not None
        self.count = int(row[0])

    def at(self, number: int) -> tuple[str, Key]:
        """Return the event id and the key of a row by its number, from 1."""
        row = self._conn.execute(f"{self._query} OFFSET {number - 1} LIMIT 1".encode(), self._parameters).fetchone()
        assert row is not None
        event_id, *key = row
        return event_id, Key(*key)
