"""A page (micro-batch) of a build: rows, cursor and statistics in one transaction, under the build's lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import psycopg

from refold import tracing
from refold.engine.apply.copy_rows import write_rows
from refold.engine.apply.decoding import decoded
from refold.engine.isolate.search import Culprit, Portion, sift
from refold.model.stream.cursor import EMPTY, LAST_ORDINAL, Cursor, Key, Read, Snapshot, advance, next_read
from refold.model.stream.parameters import (
    BYTES,
    LAST,
    end_of,
    read_parameters,
    settled_part,
)
from refold.model.upkeep.transform import BYTES_SO_FAR
from refold.postgres.failpoints import failpoint
from refold.postgres.rows import one_row
from refold.postgres.savepoint import savepoint
from refold.postgres.sqlstate import caused_by_event
from refold.store.builds.build import BY_KEY, Build, Locked, by_id, lock, move
from refold.store.builds.compiled import CompiledBuild
from refold.store.builds.dead_letters import DeadLetterBudget, excluded_event_ids, quarantine
from refold.store.log.traces import Failed, Traced, of_page


class Written(NamedTuple):
    """The part of a read that was written.

    Args:
        events: rows of the stream.
        last: key of the last row.
        full: whether the read may have more rows: its limit in rows or in bytes was reached.
        failed: rows that became dead letters.
    """

    events: int
    last: Key | None
    full: bool
    failed: Sequence[Culprit] = ()


Apply = Callable[[psycopg.Connection, CompiledBuild, Build, Read, int], Written]
"""apply(conn, compiled, build, read, limit): writes the rows of a read."""

CAREFUL = 20_000
"""Most rows of a page in which an event fails."""
PORTION = 1_000
"""Rows of the first portion that a transform gets; each later portion is four times as large, up to the bound in
bytes. To find the rows that fit, the server computes the size of all rows of a portion."""
CUTS = 64
"""Portions of a step of a first load that may end at the bound in bytes."""
FREE = 0.25
"""Seconds that a page may take before the next one has to wait."""
ALIVE_EVERY = 0.2
"""Seconds between two signs of life in the middle of a page."""

_EVENT_ID = 3
"""Index of the event id in a row of a transform."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcome of a page.

    Args:
        events: rows of the stream that were applied.
        full: whether more rows may be ready now.
        last: key of the last row.
        seconds: duration of the page, with its commit.
        traced: the sampled traces of its events.
        failed: events that became dead letters.
    """

    events: int
    full: bool
    last: Key | None = None
    seconds: float = 0.0
    traced: Traced = field(default_factory=Traced, repr=False)
    failed: int = 0


def apply_next_page(conn: psycopg.Connection, compiled: CompiledBuild, limit: int) -> Applied | None:
    """Apply the next page of a build in a transaction of its own.

    Args:
        conn: a worker's connection, in autocommit mode.
        compiled: the build's SQL.
        limit: most rows of the stream to apply.

    Returns:
        The outcome; None if another worker holds the build, or it reads another upstream by now.

    Raises:
        BuildError: too many events of the page fail.
    """
    began = tracing.Moment.now()
    try:
        try:
            return _in_transaction(conn, compiled, limit, write_read)
        except Exception as error:
            if not caused_by_event(error):
                raise
        # Start the page again: so a page without failing events costs nothing extra.
        return _in_transaction(conn, compiled, min(limit, CAREFUL), write_isolating_failures)
    except Exception as error:
        if tracing.environment.ON:
            tracing.consumed(began, _consumed(compiled, Applied(0, full=False)), error)
        raise


def _in_transaction(conn: psycopg.Connection, compiled: CompiledBuild, limit: int, apply: Apply) -> Applied | None:
    started = time.perf_counter()
    began = tracing.Moment.now()
    with conn.transaction():
        build = lock(conn, compiled.build_id)
        # A promote may have moved the build to another upstream since `compiled` was made. With the new cursor and
        # the old table, the page would skip the rows that the old table lacks. Or it may have another sink.
        if build is None or not build.loaded or not compiled.fits(build):
            return None
        failpoint("locked")
        applied = apply_page(conn, compiled, build, limit, apply=apply)
    failpoint("committed")
    if tracing.environment.ON and (applied.events or applied.failed):
        # Only now: a page that was rolled back must leave no span.
        tracing.consumed(began, _consumed(compiled, applied, build))
    return replace(applied, seconds=time.perf_counter() - started)


def _consumed(compiled: CompiledBuild, applied: Applied, build: Build | None = None) -> tracing.Consumed:
    plan = compiled.plan
    return tracing.Consumed(
        "apply",
        plan.name if build is None else build.projection,
        plan.stream,
        {"refold.upkeep": plan.upkeep, "refold.build": compiled.build_id},
        applied.events,
        applied.traced.contexts,
        # Whoever asks when an event could be seen means the build that analysts see.
        each=build is not None and build.state == "live",
        more=applied.traced.more,
        dead_letters=applied.failed,
    )


def apply_page(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    build: Build,
    limit: int,
    *,
    known: Snapshot = EMPTY,
    apply: Apply | None = None,
) -> Applied:
    """Apply the next page of a build, inside the caller's transaction, which holds the build's lock.

    Args:
        conn: the caller's transaction.
        compiled: the build's SQL.
        build: the build, as it is under the lock.
        limit: most rows of the stream to apply.
        known: the snapshot of another build that the transaction has locked too: see `Snapshot.capped`.
        apply: function that writes the rows; by default `write_read`.
    """
    started = time.perf_counter()
    upstream = upstream_cursor(conn, build, known=known)
    read = next_read(build.cursor, upstream)
    if read is None:
        return Applied(0, full=False)
    failpoint("looked")
    events, last, full, failed = (apply or write_read)(conn, compiled, build, read, limit)
    failpoint("rows")
    cursor = advance(build.cursor, read, last, full)
    if events or cursor != build.cursor:
        move(conn, build, cursor, events=events, milliseconds=(time.perf_counter() - started) * 1000)
    traced = Traced()
    if tracing.environment.ON and (events or failed):
        read = replace(read, upto=last) if full else read
        traced = of_page(
            conn, compiled.stream, read, [Failed(one.key, tracing.error_type(one.error)) for one in failed]
        )
    failpoint("cursor")
    return Applied(events, full, last, traced=traced, failed=len(failed))


def upstream_cursor(conn: psycopg.Connection, build: Build, *, known: Snapshot = EMPTY) -> Cursor:
    """Return how far the build may read: the upstream's cursor, or for the log the present snapshot.

    It is read after the lock is taken and before the rows are read. `lock` reads it in passing; for a build that the
    transaction has locked earlier, this function runs a statement. The snapshot of the log is capped at this
    transaction's own id: see `Snapshot.capped`.
    """
    if isinstance(build, Locked):
        return build.upstream(known)
    if build.upstream_id is not None:
        return by_id(conn, build.upstream_id).cursor
    row = one_row(conn, "SELECT pg_current_snapshot()::text, pg_current_xact_id()::text")
    return Cursor(Snapshot.parse(row[0]).capped(int(row[1]), known))


def write_read(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, read: Read, limit: int) -> Written:
    """Read a page and write its rows."""
    return write_rows_of(conn, compiled, read, limit, _left_out(conn, compiled, build))


def _left_out(conn: psycopg.Connection, compiled: CompiledBuild, build: Build) -> list[str]:
    """Return the ids of the dead letters that a page could read: it may read all events of its keys again, and a
    first load may have started over."""
    return excluded_event_ids(conn, build) if compiled.plan.upkeep in BY_KEY or not build.loaded else []


def write_isolating_failures(
    conn: psycopg.Connection, compiled: CompiledBuild, build: Build, read: Read, limit: int
) -> Written:
    """Read a page and write its rows, of which some fail: those become dead letters.

    If many events fail, the page ends after the first portion of them.

    Raises:
        BuildError: too many events fail.
    """
    rows = _coordinates(conn, compiled, read, limit)
    if not rows:
        return Written(0, None, False)
    dead = _left_out(conn, compiled, build)
    budget = DeadLetterBudget.for_page(conn, build, len(rows))
    culprits: list[Culprit] = []
    at = 0

    def attempt(count: int) -> Exception | None:
        nonlocal at
        within = Read(read.done, read.target, rows[at - 1][1] if at else read.after, rows[at + count - 1][1])
        try:
            with savepoint(conn):
                write_all(conn, compiled, within, count, dead)
        except Exception as error:
            if not caused_by_event(error):
                raise
            return error
        at += count
        return None

    def blame(error: Exception) -> None:
        nonlocal at
        budget.spend(error)
        event_id, key = rows[at]
        culprits.append(Culprit(event_id, stored_key(compiled, key), error))
        # Another event of its key would evaluate it again.
        dead.append(event_id)
        at += 1

    _prepare(conn, compiled, read, dead)
    done = sift(len(rows), attempt=attempt, blame=blame, enough=Portion(culprits).enough)
    quarantine(conn, build, culprits, beyond=budget.beyond)
    return Written(done, rows[done - 1][1], done < len(rows) or len(rows) >= limit, culprits)


def _prepare(conn: psycopg.Connection, compiled: CompiledBuild, read: Read, dead: Sequence[str]) -> None:
    """Read an empty page: psycopg keeps only successful statements prepared, and all attempts may fail."""
    for statement in (compiled.statements.page, compiled.statements.backlog):
        _execute(conn, compiled, statement, Read(read.done, read.target, LAST, LAST), 1, dead)


def _coordinates(conn: psycopg.Connection, compiled: CompiledBuild, read: Read, limit: int) -> list[tuple[str, Key]]:
    """Return the event ids and keys of the rows of a page, in order."""
    query = compiled.stream.page(["event_id"]).rows
    found = conn.execute(
        f"SELECT event_id, txid::text::bigint, position, ordinal FROM (\n{query}\n) AS page ORDER BY 2, 3, 4".encode(),
        read_parameters(read, limit),
    ).fetchall()
    return [(event_id, _key(compiled, *key)) for event_id, *key in found]


def stored_key(compiled: CompiledBuild, key: Key) -> Key:
    """Return a key as the stream stores it: a row of the log has the ordinal 0."""
    return key if compiled.stream.ordinal else Key(key.txid, key.position, 0)


def write_all(conn: psycopg.Connection, compiled: CompiledBuild, read: Read, limit: int, dead: Sequence[str]) -> None:
    """Write all rows of a read, however many bytes they have; the arguments are those of `write_rows_of`."""
    while limit > 0:
        events, last, full, _ = write_rows_of(conn, compiled, read, limit, dead)
        if not full:
            break
        read, limit = replace(read, after=last), limit - events


def write_rows_of(
    conn: psycopg.Connection, compiled: CompiledBuild, read: Read, limit: int, dead: Sequence[str]
) -> Written:
    """Write the rows of a read, up to a limit in rows and in bytes.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        compiled: the build's SQL.
        read: the rows to write.
        limit: most rows to write.
        dead: the ids of the build's dead letters.
    """
    settled = settled_part(read)
    if settled is None:
        return _in_portions(conn, compiled, compiled.statements.page, read, limit, dead)
    written = _in_portions(conn, compiled, compiled.statements.backlog, settled, limit, dead)
    if written.full or settled.upto == (read.upto or end_of(read.target.xmax - 1)):
        return written
    rest = Read(read.done, read.target, settled.upto, read.upto)
    more = _in_portions(conn, compiled, compiled.statements.page, rest, limit - written.events, dead)
    return Written(written.events + more.events, more.last or written.last, more.full)


def _in_portions(
    conn: psycopg.Connection, compiled: CompiledBuild, statement: str, read: Read, limit: int, dead: Sequence[str]
) -> Written:
    """Write a read by one statement; for a transform, in portions up to its bound in bytes."""
    if compiled.transform is None:
        return _execute(conn, compiled, statement, read, limit, dead)
    # A first load may read its whole stream for each statement. So after a portion that was cut by its bytes it goes
    # on with small portions, and does not compute the sizes of a full step again each time.
    loads = read.done == EMPTY
    events, portion, cuts = 0, limit if loads else PORTION, 0
    while True:
        step = min(portion, limit - events)
        written = _execute(conn, compiled, statement, read, step, dead)
        events += written.events
        last = written.last or read.after
        cut = written.full and written.events < step
        cuts += cut
        if not written.full or events >= limit or cuts > (CUTS if loads else 0):
            # The portion was cut by its bytes: a page ends here.
            return Written(events, last if events else None, written.full)
        read, portion = replace(read, after=last), 2 * written.events if cut else portion * 4


def _execute(
    conn: psycopg.Connection, compiled: CompiledBuild, statement: str, read: Read, limit: int, dead: Sequence[str]
) -> Written:
    parameters = read_parameters(read, limit, dead) | {"build": str(compiled.build_id)}
    if compiled.transform is not None:
        page = list(decoded(conn, statement, parameters))
        if not page:
            return Written(0, None, False)
        # Compute all rows before the COPY: the server's time-out for idle transactions does not run during a COPY, and
        # a worker that is frozen in the function would hold the build for ever.
        read_on = [row for row in page if row["event_id"] not in dead] if dead else page
        rows = list(compiled.transform.rows(alive(conn, read_on)))
        write_rows(conn, compiled.statements.load[0], rows)
        if compiled.statements.checksums:
            moved = {
                "ids": [row[_EVENT_ID] for row in rows],
                "positions": [row["position"] for row in read_on],
                "ordinals": [row["ordinal"] for row in read_on],
            }
            conn.execute(compiled.statements.checksums.encode(), parameters | moved, prepare=True)
        end = page[-1]
        full = len(page) >= limit or end[BYTES_SO_FAR] >= BYTES
        return Written(len(page), _key(compiled, end["txid"], end["position"], end["ordinal"]), full)
    row = one_row(conn, statement.encode(), parameters, prepare=True)
    events, txid, position, ordinal = row
    return Written(events, None if txid is None else _key(compiled, txid, position, ordinal), events >= limit)


def alive(conn: psycopg.Connection, page: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows for a function, and send a query now and then: the server ends a session that is idle for long."""
    due = time.monotonic() + ALIVE_EVERY
    for row in page:
        yield row
        if time.monotonic() >= due:
            conn.execute("SELECT")
            due = time.monotonic() + ALIVE_EVERY


def _key(compiled: CompiledBuild, txid: int, position: int, ordinal: int) -> Key:
    """Return the last key of a page; a reader of the log has then read all of the event."""
    return Key(txid, position, ordinal if compiled.stream.ordinal else LAST_ORDINAL)
