"""The events that make a step of a first load fail, in a stream that may be too long to list.

A step is a statement over all of it, so halves of the stream are tried, and whatever that writes is rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from refold.builds.build import Build
from refold.builds.dead_letters import Bound, left_out
from refold.builds.upkeeper import Upkeeper
from refold.cursor import Key, Read
from refold.worker.culprits import bisect, of_an_event
from refold.worker.page import read_parameters


@dataclass(frozen=True, slots=True)
class Culprit:
    """An event that fails alone.

    Args:
        event_id: of the row in the stream.
        key: its coordinates.
        error: what it makes.
    """

    event_id: str
    key: Key
    error: Exception


@dataclass(frozen=True, slots=True)
class _Span:
    """Some rows of the stream: where they are, and how many."""

    read: Read
    rows: int


def culprits_within(
    conn: psycopg.Connection,
    keeper: Upkeeper,
    build: Build,
    read: Read,
    probe: Callable[[dict[str, str]], None],
) -> list[Culprit]:
    """Finds the events of a read that fail alone.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        keeper: the build's SQL.
        build: the build.
        read: where to look; from nothing.
        probe: does what a step of the load does, with the parameters of a read.

    Raises:
        BuildError: too many fail.
    """
    return _Search(conn, keeper, build, probe).within(read)


class _Search:
    def __init__(
        self, conn: psycopg.Connection, keeper: Upkeeper, build: Build, probe: Callable[[dict[str, str]], None]
    ) -> None:
        self._conn = conn
        self._stream = keeper.stream
        self._build = build
        self._probe = probe
        self._dead = left_out(conn, build)
        self._found: list[Culprit] = []

    def within(self, read: Read) -> list[Culprit]:
        [rows] = self._row(f"SELECT count(*) FROM {self._stream.table} WHERE {self._stream.run()}", read)
        bound = Bound.of(self._conn, self._build, rows)

        def blame(span: _Span, error: Exception) -> None:
            bound.take(error)
            self._found.append(self._culprit(span, error))

        bisect(_Span(read, rows), attempt=self._attempt, halves=self._halves, blame=blame)
        return self._found

    def _attempt(self, span: _Span) -> Exception | None:
        try:
            with self._conn.transaction(force_rollback=True):
                self._probe(read_parameters(span.read, 0, self._dead))
        except Exception as error:
            if not of_an_event(error):
                raise
            return error
        return None

    def _halves(self, span: _Span) -> tuple[_Span, _Span] | None:
        if span.rows < 2:
            return None
        first = span.rows // 2
        middle = Key(*self._row(self._stream.boundary(), span.read, first))
        return (
            _Span(replace(span.read, upto=middle), first),
            _Span(replace(span.read, after=middle), span.rows - first),
        )

    def _culprit(self, span: _Span, error: Exception) -> Culprit:
        ordinal = "ordinal" if self._stream.ordinal else "0"
        event_id, *key = self._row(
            f"SELECT event_id, txid::text::bigint, position, {ordinal} FROM {self._stream.table}\n"
            f"WHERE {self._stream.run()} ORDER BY {self._stream.coordinates} LIMIT 1",
            span.read,
        )
        return Culprit(event_id, Key(*key), error)

    def _row(self, query: str, read: Read, limit: int = 0) -> tuple[Any, ...]:
        row = self._conn.execute(query.encode(), read_parameters(read, limit, self._dead)).fetchone()
        assert row is not None
        return row
