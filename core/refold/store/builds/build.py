"""A build: one physical table that holds a projection at one fingerprint, and its cursor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
from psycopg.rows import BaseRowFactory, class_row

from refold.model.projection.plan import Upkeep
from refold.model.sink_queue import CHANNEL
from refold.model.stream.cursor import Cursor, Snapshot
from refold.postgres.rows import one_row

State = Literal["building", "live", "retired", "dropped"]
Language = Literal["sql", "python"]

EVENT_GRAIN: tuple[Upkeep, ...] = ("facts", "transform")
"""Kinds of upkeep whose tables are streams."""
BY_KEY: tuple[Upkeep, ...] = ("funnel", "recompute")
"""Kinds of upkeep that look up the events of a key by an index on their stream; they load by ranges of the key."""


@dataclass(frozen=True, slots=True)
class Build:
    """A row of `refold.builds_now`; `refold.store.schema.tables` describes the columns."""

    build_id: int
    projection: str
    fingerprint: str
    number: int
    state: State
    table_name: str
    language: Language
    definition: str
    upkeep: Upkeep
    upstream_id: int | None
    done: str
    target: str | None
    progress_txid: int | None
    progress_position: int | None
    progress_ordinal: int | None
    loaded: bool
    load_step: int
    load_steps: int | None
    events_applied: int
    pages_applied: int
    apply_ms: float
    applied_at: datetime | None
    deployment: int
    created_at: datetime
    promoted_at: datetime | None
    retired_at: datetime | None
    retired_by: int | None
    error: str | None
    dead_letters: int
    sinks: list[int]
    floor: int
    retained_from: int | None

    @property
    def retained(self) -> bool:
        """Return whether it keeps the newest of its slices only."""
        return self.retained_from is not None

    @property
    def based(self) -> bool:
        """Return whether events that it has applied have left the log."""
        return self.floor > 1

    @property
    def cursor(self) -> Cursor:
        """Return the cursor: which events the build has applied."""
        return Cursor.parse(self.done, self.target, self.progress_txid, self.progress_position, self.progress_ordinal)


COLUMNS = """
    b.build_id, b.projection, b.fingerprint, b.number, b.state, b.table_name, b.language, b.definition, b.upkeep,
    b.upstream_id, b.done::text AS done, b.target::text AS target, b.progress_txid::text::bigint AS progress_txid,
    b.progress_position, b.progress_ordinal, b.loaded, b.load_step, b.load_steps, b.events_applied,
    b.pages_applied, b.apply_ms, b.applied_at, b.deployment, b.created_at, b.promoted_at, b.retired_at, b.retired_by,
    b.error, b.dead_letters, b.sinks, b.floor, b.retained_from
"""
"""Columns of `refold.builds_now AS b`, for `class_row(Build)`."""
_ROW: BaseRowFactory[Build] = class_row(Build)


def find(conn: psycopg.Connection, condition: str = "true", *parameters: object) -> list[Build]:
    """Return the builds that satisfy an SQL condition over `b` (a row of refold.builds_now), oldest first."""
    with conn.cursor(row_factory=_ROW) as cursor:
        query = f"SELECT {COLUMNS} FROM refold.builds_now AS b WHERE {condition} ORDER BY b.build_id"
        return cursor.execute(query.encode(), parameters).fetchall()


def observed(conn: psycopg.Connection) -> list[Build]:
    """Return the builds that are kept up to date, without definitions and error texts, for an observer."""
    columns = COLUMNS.replace("b.definition", "'' AS definition").replace("b.error", "b.failing AS error")
    with conn.cursor(row_factory=_ROW) as cursor:
        query = (
            f"SELECT {columns} FROM refold.builds_now AS b WHERE b.state IN ('building', 'live') ORDER BY b.build_id"
        )
        return cursor.execute(query.encode()).fetchall()


def all_builds(conn: psycopg.Connection) -> list[Build]:
    """Every build that there has been and is not forgotten."""
    return find(conn)


def with_tables(conn: psycopg.Connection) -> list[Build]:
    """The builds whose tables are there: all but those that were dropped."""
    return find(conn, "b.state <> 'dropped'")


def kept(conn: psycopg.Connection) -> list[Build]:
    """Return the builds that workers keep up to date: live ones and those being built."""
    return find(conn, "b.state IN ('building', 'live')")


def based(conn: psycopg.Connection, state: State = "live") -> list[Build]:
    """Return the builds in a state that count purged events, or have rows of them."""
    return [one for one in find(conn, "b.state = %s AND b.upstream_id IS NULL", state) if one.based]


def live_builds(conn: psycopg.Connection) -> list[Build]:
    """The builds that analysts see, one of each metric."""
    return find(conn, "b.state = 'live'")


def unfinished(conn: psycopg.Connection) -> list[Build]:
    """The builds that are on their way to be live."""
    return find(conn, "b.state = 'building'")


def builds_of(conn: psycopg.Connection, *deployments: int, state: State | None = None) -> list[Build]:
    """The builds of some deployments; with a state, those in that one."""
    if state is None:
        return find(conn, "b.deployment = ANY (%s)", list(deployments))
    return find(conn, "b.deployment = ANY (%s) AND b.state = %s", list(deployments), state)


def readers_of(conn: psycopg.Connection, *build_ids: int) -> list[Build]:
    """The builds that read one of these and are kept."""
    return find(conn, "b.upstream_id = ANY (%s) AND b.state IN ('building', 'live')", list(build_ids))


def live(conn: psycopg.Connection, projection: str) -> Build | None:
    """Return the build that analysts see, if any."""
    found = find(conn, "b.state = 'live' AND b.projection = %s", projection)
    return found[0] if found else None


def by_id(conn: psycopg.Connection, build_id: int) -> Build:
    """Return a build by its id."""
    return find(conn, "b.build_id = %s", build_id)[0]


def cursor_of(conn: psycopg.Connection, build_id: int) -> Cursor:
    """Return the cursor of a build, for whoever may not read the build's definition."""
    row = one_row(
        conn,
        "SELECT done::text, target::text, progress_txid::text::bigint, progress_position, progress_ordinal"
        " FROM refold.builds_now WHERE build_id = %s",
        (build_id,),
    )
    return Cursor.parse(*row)


def by_ids(conn: psycopg.Connection, build_ids: Iterable[int]) -> list[Build]:
    """Some builds, oldest first."""
    return find(conn, "b.build_id = ANY (%s)", list(build_ids))


@dataclass(frozen=True, slots=True)
class Locked(Build):
    """A build under its lock, and the progress of its stream at that moment.

    Args:
        upstream_done: the cursor of its upstream, as above; all None for a build on the log.
        now: what had finished in the log's database.
        own_txid: the id of the transaction that holds the lock.
    """

    upstream_done: str | None
    upstream_target: str | None
    upstream_txid: int | None
    upstream_position: int | None
    upstream_ordinal: int | None
    now: str
    own_txid: int

    def upstream(self, known: Snapshot) -> Cursor:
        """Return how far the build may read; `known` as for `Snapshot.capped`."""
        if self.upstream_done is None:
            return Cursor(Snapshot.parse(self.now).capped(self.own_txid, known))
        return Cursor.parse(
            self.upstream_done, self.upstream_target, self.upstream_txid, self.upstream_position, self.upstream_ordinal
        )


_LOOK = f"""
SELECT {COLUMNS},
    u.done::text AS upstream_done, u.target::text AS upstream_target, u.progress_txid::text::bigint AS upstream_txid,
    u.progress_position AS upstream_position, u.progress_ordinal AS upstream_ordinal,
    pg_current_snapshot()::text AS now, pg_current_xact_id()::text::bigint AS own_txid
FROM refold.builds_now AS b
LEFT JOIN LATERAL (
    SELECT * FROM refold.cursors AS n WHERE n.build_id = b.upstream_id ORDER BY n.number DESC LIMIT 1
) AS u ON true
WHERE b.build_id = %s
"""
_LOCKED: BaseRowFactory[Locked] = class_row(Locked)


def lock(conn: psycopg.Connection, build_id: int, *, wait: bool = False, readers: bool = False) -> Locked | None:
    """Lock a build until the end of the transaction, then read it.

    In two statements: locking and looking in one would show, beside the lock, what was there before the lock was
    had, and the cursor would move backwards.

    Args:
        conn: the caller's transaction, READ COMMITTED.
        build_id: which build.
        wait: wait for another's lock instead of passing over.
        readers: also let nobody make a reader of it meanwhile (see `refold.engine.deployment.create`).

    Returns:
        The build as it is under the lock; None when somebody else has it, or it is not kept any more.
    """
    locked = conn.execute(
        "SELECT FROM refold.builds WHERE build_id = %s AND state IN ('building', 'live')"
        f" FOR {'' if readers else 'NO KEY '}UPDATE {'' if wait else 'SKIP LOCKED'}".encode(),
        (build_id,),
    )
    if not locked.rowcount:
        return None
    with conn.cursor(row_factory=_LOCKED) as cursor:
        return cursor.execute(_LOOK.encode(), (build_id,)).fetchone()


def move(conn: psycopg.Connection, build: Build, cursor: Cursor, *, events: int = 0, milliseconds: float = 0.0) -> None:
    """Insert the new cursor and statistics of a build, in the transaction that wrote the rows.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        build: the build.
        cursor: where it stands now.
        events: how many events were applied.
        milliseconds: how long that took.
    """
    progress = cursor.progress or (None, None, None)
    conn.execute(
        """
        INSERT INTO refold.cursors
            (build_id, number, done, target, progress_txid, progress_position, progress_ordinal,
             events_applied, pages_applied, apply_ms, applied_at, moved_at)
        SELECT c.build_id, c.number + 1, %s::pg_snapshot, %s::pg_snapshot,
               %s::text::xid8, %s::bigint, %s::integer,
               c.events_applied + %s::bigint, c.pages_applied + %s::integer, c.apply_ms + %s::double precision,
               CASE WHEN %s::integer > 0 THEN clock_timestamp() ELSE c.applied_at END, clock_timestamp()
        FROM refold.cursors AS c
        WHERE c.build_id = %s::bigint
        ORDER BY c.number DESC LIMIT 1
        """
        + (f"RETURNING pg_notify('{CHANNEL}', '')" if build.sinks and events else ""),
        (
            str(cursor.done),
            None if cursor.target is None else str(cursor.target),
            *(None if part is None else str(part) for part in progress),
            str(events),
            str(int(events > 0)),
            str(milliseconds),
            str(int(events > 0)),
            str(build.build_id),
        ),
    )


def changed(conn: psycopg.Connection, build: Build) -> None:
    """Record that rows of a build change outside a page, in the transaction that changes them, under the build's lock.

    Sinks tell versions of a row by the number of the newest row in `refold.cursors`; without sinks nobody does.
    """
    if build.sinks:
        move(conn, build, by_id(conn, build.build_id).cursor)


def version(conn: psycopg.Connection, build_id: int) -> int:
    """Return a number that grows with each transaction that changes rows of a build with sinks."""
    return int(one_row(conn, "SELECT max(number) FROM refold.cursors WHERE build_id = %s", (build_id,))[0])


def kept_reads(conn: psycopg.Connection, build_id: int) -> list[str] | None:
    """Return the columns of its stream that a build's query reads; None for a transform."""
    row = conn.execute("SELECT reads FROM refold.builds WHERE build_id = %s", (build_id,)).fetchone()
    return None if row is None else row[0]


def set_error(conn: psycopg.Connection, build: Build, message: str | None) -> None:
    """Store the error that stops a build, or clear it."""
    conn.execute("UPDATE refold.builds SET error = %s WHERE build_id = %s", (message, build.build_id))
