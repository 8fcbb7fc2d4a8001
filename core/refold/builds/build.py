"""A build: one physical table that holds a projection at one fingerprint, and its cursor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
from psycopg.rows import BaseRowFactory, class_row

from refold.cursor import Cursor, Key, Snapshot

State = Literal["building", "live", "retired", "dropped"]

EVENT_GRAIN = ("facts", "transform")
"""The upkeeps whose tables are streams."""
BY_KEY = ("funnel", "recompute")
"""The upkeeps that look up the events of a key, by an index on their stream, and are loaded by ranges of it."""


@dataclass(frozen=True, slots=True)
class Build:
    """A row of `refold.builds`; the columns are described there."""

    build_id: int
    projection: str
    fingerprint: str
    number: int
    state: State
    table_name: str
    language: str
    definition: str
    upkeep: str
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

    @property
    def cursor(self) -> Cursor:
        """Which events it has applied."""
        progress = None
        if self.progress_txid is not None:
            assert self.progress_position is not None and self.progress_ordinal is not None
            progress = Key(self.progress_txid, self.progress_position, self.progress_ordinal)
        return Cursor(Snapshot.parse(self.done), None if self.target is None else Snapshot.parse(self.target), progress)


COLUMNS = """
    b.build_id, b.projection, b.fingerprint, b.number, b.state, b.table_name, b.language, b.definition, b.upkeep,
    b.upstream_id, b.done::text AS done, b.target::text AS target, b.progress_txid::text::bigint AS progress_txid,
    b.progress_position, b.progress_ordinal, b.loaded, b.load_step, b.load_steps, b.events_applied,
    b.pages_applied, b.apply_ms, b.applied_at, b.deployment, b.created_at, b.promoted_at, b.retired_at, b.retired_by,
    b.error, b.dead_letters
"""
"""Of `refold.builds AS b`, for `class_row(Build)`."""
_ROW: BaseRowFactory[Build] = class_row(Build)


def find(conn: psycopg.Connection, condition: str = "true", *parameters: object) -> list[Build]:
    """Builds that satisfy an SQL condition over `b` (a row of refold.builds), oldest first."""
    with conn.cursor(row_factory=_ROW) as cursor:
        query = f"SELECT {COLUMNS} FROM refold.builds AS b WHERE {condition} ORDER BY b.build_id"
        return cursor.execute(query.encode(), parameters).fetchall()


def kept(conn: psycopg.Connection) -> list[Build]:
    """The builds that workers keep up to date: live ones and those on their way."""
    return find(conn, "b.state IN ('building', 'live')")


def readers_of(conn: psycopg.Connection, build: Build) -> list[Build]:
    """The builds that read this one and are kept."""
    return find(conn, "b.upstream_id = %s AND b.state IN ('building', 'live')", build.build_id)


def live(conn: psycopg.Connection, projection: str) -> Build | None:
    """The build that analysts see, if any."""
    found = find(conn, "b.state = 'live' AND b.projection = %s", projection)
    return found[0] if found else None


def by_id(conn: psycopg.Connection, build_id: int) -> Build:
    """One build."""
    return find(conn, "b.build_id = %s", build_id)[0]


def lock(conn: psycopg.Connection, build_id: int, *, wait: bool = False, readers: bool = False) -> Build | None:
    """Locks a build until the end of the transaction.

    This must be a statement of its own, before the one that looks at the stream: locking and looking in one
    statement gives the newest build row beside an older snapshot, and the cursor moves backwards.

    Args:
        conn: the caller's transaction, READ COMMITTED.
        build_id: which build.
        wait: wait for another's lock instead of passing over.
        readers: also let nobody make a reader of it meanwhile (see `refold.builds.make`).

    Returns:
        The build as it is under the lock; None when somebody else has it, or it is not kept any more.
    """
    with conn.cursor(row_factory=_ROW) as cursor:
        return cursor.execute(
            f"SELECT {COLUMNS} FROM refold.builds AS b"
            " WHERE b.build_id = %s AND b.state IN ('building', 'live')"
            f" FOR {'' if readers else 'NO KEY '}UPDATE {'' if wait else 'SKIP LOCKED'}".encode(),
            (build_id,),
        ).fetchone()


def move(conn: psycopg.Connection, build: Build, cursor: Cursor, *, events: int = 0, milliseconds: float = 0.0) -> None:
    """Writes the cursor and the statistics, in the transaction that wrote the rows.

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
        UPDATE refold.builds SET
            done = %s::pg_snapshot, target = %s::pg_snapshot,
            progress_txid = %s::text::xid8, progress_position = %s::bigint, progress_ordinal = %s::integer,
            events_applied = events_applied + %s::bigint,
            pages_applied = pages_applied + %s::integer,
            apply_ms = apply_ms + %s::double precision,
            applied_at = CASE WHEN %s::integer > 0 THEN clock_timestamp() ELSE applied_at END,
            moved_at = clock_timestamp()
        WHERE build_id = %s::bigint
        """,
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


def set_error(conn: psycopg.Connection, build: Build, message: str | None) -> None:
    """Notes why a build does not move, or that it does again."""
    conn.execute("UPDATE refold.builds SET error = %s WHERE build_id = %s", (message, build.build_id))
