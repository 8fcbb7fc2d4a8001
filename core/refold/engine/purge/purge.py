"""The purge: the lowest segment leaves the log, once everything that needs its events has them elsewhere.

Folding goes ahead, in bounded steps. The purge itself is one short transaction. It keeps new builds from being made,
locks all builds on the log, looks at every condition once more, moves the floors, records the segment as purged, and
detaches it, which no reader and no producer may hinder for longer than a moment. The table is dropped in another one.
A process may be killed anywhere: until the commit nothing has happened, and after it the next run drops the table.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

import psycopg
from psycopg.rows import class_row

from refold.engine.apply.page import apply_next_page
from refold.engine.apply.step import FRESH
from refold.engine.archive import ownership
from refold.engine.archive.failures import Differs
from refold.engine.archive.object_store import open_store
from refold.engine.archive.write import NOT_SET, SET_IT
from refold.engine.purge import fold
from refold.engine.purge.conditions import Obstacle, counts, covered, obstacles, on_the_log, verified
from refold.errors import BuildError, InputError
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.failpoints import failpoint
from refold.postgres.retry import in_short_attempts
from refold.postgres.rows import one_row
from refold.store import archives, bases, totals
from refold.store.archives import Archive
from refold.store.builds.build import EVENT_GRAIN, Build
from refold.store.builds.compiled import Compiler
from refold.store.log import integrity
from refold.store.schema.settings import read_settings

log = logging.getLogger("refold.archive")

LOCK_S = 20.0
"""Seconds for which a purge tries to detach a segment while other transactions hold the log."""
REST = 1.0
"""Seconds of rest for each second of folding: whoever appends and reads has the processors then."""
FIRST_MS, GROWS, LAST_MS = 25, 1.15, 150
"""Longest wait of the first attempt at the log's lock, the factor to the next one, and the longest of any: producers
and workers queue behind it, and behind the detach."""
BUILDS = "10s"
"""Longest wait for whoever holds a build, or makes one: it keeps no producer waiting."""


@dataclass(frozen=True, slots=True)
class Due:
    """A segment that is old enough to leave the log.

    Args:
        name: its table.
        lower: its first position.
        upper: the first position behind it.
        sealed_at: when the last of its slices was sealed.
        events: number of its events; None without a verified file.
        bytes: size of its table and indexes.
    """

    name: str
    lower: int
    upper: int
    sealed_at: datetime
    events: int | None
    bytes: int


@dataclass(slots=True)
class Candidate:
    """A segment that is due, and what is in its way."""

    due: Due
    obstacles: list[Obstacle] = field(default_factory=list)


@dataclass(slots=True)
class Purged:
    """What a run did.

    Args:
        segments: segments that left the log.
        events: their events.
        bytes: the room that they had taken.
        stopped_at: the segment at which it stopped, and what is in its way; None if none is left.
        dropped: tables that were dropped.
    """

    segments: list[str] = field(default_factory=list)
    events: int = 0
    bytes: int = 0
    stopped_at: Candidate | None = None
    dropped: list[str] = field(default_factory=list)


_DUE = f"""
    SELECT format('refold.%%I', c.relname) AS name, g.lower_position AS lower, g.upper_position AS upper,
           s.sealed_at, a.events, pg_total_relation_size(g.segment) AS bytes
    FROM refold.segments AS g
    JOIN pg_class AS c ON c.oid = g.segment
    CROSS JOIN LATERAL (
        SELECT CASE WHEN bool_and(n.sealed_at IS NOT NULL)
                         -- The positions of its last slice may not all be drawn.
                         AND EXISTS (SELECT FROM refold.sealed_slices AS l WHERE l.sealed_at IS NOT NULL
                                     AND l.slice >= ((g.upper_position - 1) >> {POSITION_BITS})::integer)
                    THEN max(n.sealed_at) END AS sealed_at, count(*) AS known
        FROM refold.sealed_slices AS n
        WHERE n.slice >= (g.lower_position >> {POSITION_BITS})::integer
          AND n.slice <= ((g.upper_position - 1) >> {POSITION_BITS})::integer
    ) AS own
    CROSS JOIN LATERAL (
        -- Empty slices are not recorded.
        SELECT coalesce(own.sealed_at, CASE WHEN own.known = 0 THEN min(n.sealed_at) END) AS sealed_at
        FROM refold.sealed_slices AS n WHERE n.slice > ((g.upper_position - 1) >> {POSITION_BITS})::integer
    ) AS s
    LEFT JOIN refold.archives AS a ON a.lower_position = g.lower_position AND a.state = 'verified'
    WHERE s.sealed_at < %s
    ORDER BY g.lower_position
"""


def before(conn: psycopg.Connection, limit: datetime | None = None) -> datetime | None:
    """Return the instant before which a segment must have been sealed to be due; None if the log keeps everything.

    Args:
        conn: may read `refold.settings`.
        limit: the instant that a person gave.
    """
    if limit is not None:
        return limit
    found: datetime | None = one_row(conn, "SELECT clock_timestamp() - keep_log FROM refold.settings")[0]
    return found


def due(conn: psycopg.Connection, limit: datetime | None = None) -> list[Due]:
    """Return the segments that are old enough to leave the log, the lowest first.

    Args:
        conn: acts as refold_worker or an inspector.
        limit: only segments that were sealed before; None: as `refold.settings.keep_log` says.
    """
    oldest = before(conn, limit)
    if oldest is None:
        return []
    with conn.cursor(row_factory=class_row(Due)) as cursor:
        return cursor.execute(_DUE.encode(), (oldest,)).fetchall()


def plan(conn: psycopg.Connection, limit: datetime | None = None) -> list[Candidate]:
    """Return the segments that are due, each with what is in its way; changes nothing."""
    return [Candidate(one, obstacles(conn, one.lower, one.upper, one.name)) for one in due(conn, limit)]


def purge(
    conn: psycopg.Connection,
    compiler: Compiler,
    *,
    limit: datetime | None = None,
    seconds: float | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    result: Purged | None = None,
) -> Purged:
    """Purge the segments that are due, one after another from the lowest, until something is in the way.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds.
        limit: only segments that were sealed before; None: as `refold.settings.keep_log` says.
        seconds: after which nothing else is begun; None: all that is due.
        progress: called with the segment, the positions that are folded of all bases, and all of them.
        result: what the run adds to, and returns; it tells what was done before an error, too.

    Raises:
        InputError: no archive is set.
        StoreFailed: the store does not answer, belongs to another database, or lacks a file.
    """
    settings = read_settings(conn)
    if settings.archive is None:
        raise InputError(f"{NOT_SET}, and nothing leaves the log without one", remedy=SET_IT)
    until = None if seconds is None else time.monotonic() + seconds
    result = result or Purged()
    result.dropped += drop(conn)
    for one in due(conn, limit):
        if until is not None and time.monotonic() >= until:
            break
        archive = verified(conn, one.lower, one.upper)
        if archive is not None:
            _cover(conn, compiler, archive)
            _copy_letters(conn, archive)
            if not _fold(conn, compiler, archive, until, progress):
                break
        found = obstacles(conn, one.lower, one.upper, one.name)
        if archive is not None and not found:
            _insist_on_file(conn, archive, settings.archive)
            found = let_go(conn, archive)
        if archive is None or found:
            if _purged(conn, one):
                continue
            result.stopped_at = Candidate(one, found)
            break
        result.segments.append(one.name)
        result.events += archive.events or 0
        result.bytes += one.bytes
        result.dropped += drop(conn)
    _settle(conn, compiler, until)
    return result


def _purged(conn: psycopg.Connection, one: Due) -> bool:
    """Return whether another session has purged a segment meanwhile."""
    return integrity.floor(conn) > one.lower


def drop(conn: psycopg.Connection) -> list[str]:
    """Drop the tables of segments that have left the log, and return their names."""
    dropped = list(one_row(conn, "SELECT refold.drop_purged()")[0])
    if dropped:
        failpoint("purge_dropped")
    return dropped


def _insist_on_file(conn: psycopg.Connection, archive: Archive, location: str) -> None:
    """Raise StoreFailed if the store is not ours, or has not the file that alone will have the events."""
    store = open_store(location)
    ownership.insist(store, archives.claim_of(conn), location)
    found = store.size(archive.location)
    if found != archive.size:
        has = "is gone" if found is None else f"has {found:,} bytes of {archive.size or 0:,}"
        raise Differs(f"{archive.location} {has}")


def _cover(conn: psycopg.Connection, compiler: Compiler, archive: Archive) -> None:
    """Let cursors that have nothing to read go on, until they cover a segment.

    A cursor moves with events, and stays behind each transaction that was open when the last one came. On a log in
    which nothing more comes it would stay there for ever.
    """
    for build in on_the_log(conn):
        if build.state == "retired" or not build.loaded or covered(conn, build, archive):
            continue
        (unread,) = one_row(
            conn, "SELECT refold.has_unread(%s::pg_snapshot, refold.last_txid())", (str(build.cursor.done),)
        )
        if unread:
            continue
        try:
            # An empty page; it reads again, so that nothing is lost that has come just now.
            apply_next_page(conn, compiler.of(conn, build), FRESH)
        except BuildError as error:
            log.warning("%s: its cursor stays: %s", build.table_name, error)
    if counts(conn, archive):
        totals.count_events(conn, onward=True)


def _copy_letters(conn: psycopg.Connection, archive: Archive) -> None:
    """Copy the events of dead letters, so that they can be tried again without the log."""
    conn.execute(
        """
        UPDATE refold.dead_letters AS d SET event = to_jsonb(e)
        FROM refold.events AS e, refold.builds AS b
        WHERE b.build_id = d.build_id AND b.upstream_id IS NULL AND d.state <> 'released' AND d.event IS NULL
          AND d.position >= %(lower)s AND d.position < %(upper)s
          AND e.position = d.position AND e.txid = d.txid AND e.event_id = d.event_id
          AND e.position >= %(lower)s AND e.position < %(upper)s
        """,
        {"lower": archive.lower_position, "upper": archive.upper_position},
    )


def _fold(
    conn: psycopg.Connection,
    compiler: Compiler,
    archive: Archive,
    until: float | None,
    progress: Callable[[str, int, int], None],
) -> bool:
    """Fold a segment into the bases that lack it, as far as it goes; return False if the time is over."""
    builds = [one for one in on_the_log(conn) if _folds(conn, one, archive)]
    width = archive.upper_position - archive.lower_position
    for at, build in enumerate(builds):
        began = time.monotonic()
        while not fold.fold(conn, compiler, build, archive):
            time.sleep(REST * (time.monotonic() - began))
            began = time.monotonic()
            mark = bases.find(conn, build.build_id)
            done = 0 if mark is None else mark.folded - archive.lower_position
            progress(archive.segment, at * width + done, len(builds) * width)
            if until is not None and time.monotonic() >= until:
                return False
    if builds:
        failpoint("purge_folded")
    return True


def _folds(conn: psycopg.Connection, build: Build, archive: Archive) -> bool:
    return (
        build.upkeep in ("merge", "members")
        and build.loaded
        and build.floor == archive.lower_position
        and covered(conn, build, archive)
    )


def let_go(conn: psycopg.Connection, archive: Archive) -> list[Obstacle]:
    """Let a segment go, if nothing is in the way under the locks; return what is.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        archive: its file.

    Raises:
        BuildError: a transaction holds the log, or another command makes builds.
    """
    waits_ms = (min(round(FIRST_MS * GROWS**attempt), LAST_MS) for attempt in count())
    try:
        found = in_short_attempts(conn, LOCK_S, lambda: _let_go(conn, archive, next(waits_ms)))
    except psycopg.errors.LockNotAvailable as error:
        raise BuildError(
            f"{archive.segment} could not be detached: for {LOCK_S:.0f} s a transaction held the log, or a deploy ran",
            remedy="Nothing has happened. `refold status` names long transactions; run the command again.",
        ) from error
    if not found:
        failpoint("purge_committed")
    return found


def _let_go(conn: psycopg.Connection, archive: Archive, wait_ms: int) -> list[Obstacle]:
    conn.execute("SELECT set_config('lock_timeout', %s, true)", (BUILDS,))
    # No build is made meanwhile: it would be told the former begin of the log.
    conn.execute("LOCK TABLE refold.deployments IN SHARE UPDATE EXCLUSIVE MODE")
    conn.execute(
        "SELECT FROM refold.builds WHERE upstream_id IS NULL AND state <> 'dropped' ORDER BY build_id FOR NO KEY UPDATE"
    )
    builds = on_the_log(conn)
    for build in builds:
        bases.find(conn, build.build_id, lock=True)
    found = obstacles(conn, archive.lower_position, archive.upper_position, archive.segment)
    found += _unproved(conn, builds, archive)
    if found:
        return found
    upper = archive.upper_position
    conn.execute("UPDATE refold.builds SET floor = %s WHERE upstream_id IS NULL AND state <> 'dropped'", (upper,))
    for build in builds:
        if build.upkeep in EVENT_GRAIN:
            bases.begin(conn, build.build_id, upper)
    failpoint("purge_floors")
    archives.purged(conn, archive)
    failpoint("purge_recorded")
    conn.execute("SELECT set_config('lock_timeout', %s, true)", (f"{wait_ms}ms",))
    conn.execute("SELECT refold.detach_segment(%s)", (archive.lower_position,))
    # The detach has waited for every reader: an erasure that found its events there has committed that it begins.
    if conn.execute("SELECT FROM refold.erasures WHERE step = 'log'").rowcount:
        raise BuildError("an erasure of a person began", remedy="Nothing has happened. Run the command again after it.")
    failpoint("purge_detached")
    return []


def _unproved(conn: psycopg.Connection, builds: list[Build], archive: Archive) -> list[Obstacle]:
    """Return the builds whose base has read other events than the archive was proved to have; they fold again."""
    found = []
    proved = one_row(
        conn,
        "SELECT events, ids, hash FROM refold.archives WHERE lower_position = %s AND generation = %s",
        (archive.lower_position, archive.generation),
    )
    for build in builds:
        mark = bases.find(conn, build.build_id)
        if build.upkeep in EVENT_GRAIN or mark is None:
            continue
        if (mark.events, mark.ids, mark.hash) != proved:
            bases.doubt(conn, build.build_id, archive.lower_position)
            found.append(
                Obstacle(
                    f"{build.projection} has folded other events than {archive.location} holds",
                    "They are folded again. If this recurs, `refold scrub` tells whether the log is damaged.",
                    passes=True,
                )
            )
    return found


def _settle(conn: psycopg.Connection, compiler: Compiler, until: float | None) -> None:
    """Merge what counts since the last purge into one row for each key."""
    for build in on_the_log(conn):
        if not build.based or build.upkeep in EVENT_GRAIN or not build.loaded:
            continue
        while fold.settle(conn, compiler, build):
            if until is not None and time.monotonic() >= until:
                return
