"""The indexes that recompute needs on its streams: by a hash of its key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import psycopg

from refold.errors import BuildError
from refold.model.projection.plan import Plan
from refold.model.sql_text import ident
from refold.model.stream.page_sql import LOG_TABLE, Stream
from refold.model.upkeep import recompute
from refold.postgres.retry import in_short_attempts
from refold.store.builds.build import BY_KEY, Build, kept
from refold.store.builds.compiled import Compiler, stream_of

WRITERS_S = 300.0
"""Seconds for which a deploy waits for transactions that have the log locked."""


def index_streams(conn: psycopg.Connection, fresh: Iterable[Build]) -> None:
    """Makes the key indexes of all who read these streams, or will after the switch, while they are empty.

    Nobody else sees the tables yet. Later it would take CREATE INDEX CONCURRENTLY, which waits for every open
    transaction of the database.

    Args:
        conn: the caller's transaction, which made the builds.
        fresh: those builds.
    """
    compiler = Compiler(None)  # They are SQL: no transform is needed.
    builds = kept(conn)
    fingerprints = {build.build_id: build.fingerprint for build in builds}
    for reader in builds:
        if reader.upkeep not in BY_KEY or reader.upstream_id is None:
            continue
        for build in fresh:
            # A changed stream may lack the key; its readers of now do not follow it.
            if build.fingerprint == fingerprints.get(reader.upstream_id):
                plan, stream = compiler.of(conn, reader).plan, stream_of(build)
                conn.execute(recompute.key_index(plan, stream, _index_name(plan, stream)).encode())


def key_indexes(conn: psycopg.Connection, compiler: Compiler) -> list[str]:
    """Makes the indexes that recompute needs on the streams of all kept builds; returns those it made.

    They are made CONCURRENTLY: producers and workers go on. It waits for transactions that are open now.

    Args:
        conn: in autocommit mode, allowed to act as refold_owner and refold_worker.
        compiler: gives the plan of each build.

    Raises:
        BuildError: a transaction that wrote to the log stays open.
    """
    made: list[str] = []
    for build in kept(conn):
        if build.upkeep not in BY_KEY:
            continue
        compiled = compiler.of(conn, build)
        name = _index_name(compiled.plan, compiled.stream)
        on_log = compiled.stream.table == LOG_TABLE
        schema = "refold" if on_log else "refold_builds"
        if _usable(conn, f"{schema}.{ident(name)}"):
            continue
        statement = recompute.key_index(compiled.plan, compiled.stream, name)
        if on_log:
            _index_log(conn, statement, name)
        else:
            # What a deploy that was killed has left.
            conn.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{ident(name)}".encode())
            conn.execute(statement.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY").encode())
        made.append(name)
    return made


def _usable(conn: psycopg.Connection, index: str) -> bool:
    row = conn.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (index,)).fetchone()
    return row is not None and bool(row[0])


def _index_name(plan: Plan, stream: Stream) -> str:
    """Readers with the same key share an index."""
    what = recompute.key_index(plan, stream, "")
    return "key_" + hashlib.sha256(what.encode()).hexdigest()[:16]


def _index_log(conn: psycopg.Connection, statement: str, name: str) -> None:
    """An index on the partitioned log, segment by segment: on the parent at once it would block producers.

    One that was interrupted is completed. A segment that is attached after the parent's index was made gets
    its own by that.
    """
    conn.execute("SET ROLE refold_owner")
    try:
        _index_parent(conn, statement.replace(f"ON {LOG_TABLE}", f"ON ONLY {LOG_TABLE}"))
        segments = conn.execute(
            """
            SELECT s.segment::text, s.lower_position
            FROM refold.segments AS s
            WHERE NOT EXISTS (
                SELECT FROM pg_inherits AS link JOIN pg_index AS i ON i.indexrelid = link.inhrelid
                WHERE link.inhparent = to_regclass(%s) AND i.indrelid = s.segment)
            ORDER BY s.lower_position
            """,
            (f"refold.{ident(name)}",),
        ).fetchall()
        for segment, lower in segments:
            part = f"{name}_{lower}"
            conn.execute(f"DROP INDEX CONCURRENTLY IF EXISTS refold.{ident(part)}".encode())
            conn.execute(
                statement.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY")
                .replace(f"EXISTS {ident(name)}", f"EXISTS {ident(part)}")
                .replace(f"ON {LOG_TABLE}", f"ON {segment}")
                .encode()
            )
            conn.execute(f"ALTER INDEX refold.{ident(name)} ATTACH PARTITION refold.{ident(part)}".encode())
    finally:
        conn.execute("SET ROLE refold_worker")


def _index_parent(conn: psycopg.Connection, statement: str) -> None:
    """The empty index on the log itself. It waits for open writers, and in its queue all others would wait too."""
    try:
        in_short_attempts(conn, WRITERS_S, lambda: conn.execute(statement.encode()))
    except psycopg.errors.LockNotAvailable as error:
        raise BuildError(
            f"the log needs an index, and a transaction that wrote to it has been open for {WRITERS_S:.0f} s",
            remedy="End it (see pg_stat_activity for 'idle in transaction'), then deploy again.",
        ) from error
