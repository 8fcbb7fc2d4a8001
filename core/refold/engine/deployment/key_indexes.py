"""Indexes on streams, over a hash of the key, for the kinds of upkeep that look up the events of a key."""

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
"""Seconds for which a deploy waits for transactions that hold locks on the log."""


def index_streams(conn: psycopg.Connection, fresh: Iterable[Build]) -> None:
    """Create the key indexes on new streams for all their readers, present and after the switch.

    The tables are empty and visible to no other session, so this is fast. Later it would take CREATE INDEX
    CONCURRENTLY, which waits for every open transaction of the database.

    Args:
        conn: the caller's transaction, which created the builds.
        fresh: these builds.
    """
    compiler = Compiler(None)  # The readers are SQL: no folder of transforms is needed.
    builds = kept(conn)
    fingerprints = {build.build_id: build.fingerprint for build in builds}
    for reader in builds:
        if reader.upkeep not in BY_KEY or reader.upstream_id is None:
            continue
        for build in fresh:
            # A changed stream may lack the key, and the present readers do not follow it.
            if build.fingerprint == fingerprints.get(reader.upstream_id):
                plan, stream = compiler.of(conn, reader).plan, stream_of(build)
                conn.execute(recompute.key_index(plan, stream, _index_name(plan, stream)).encode())


def key_indexes(conn: psycopg.Connection, compiler: Compiler) -> list[str]:
    """Create the key indexes that kept builds need on their streams; return the names of new indexes.

    CREATE INDEX CONCURRENTLY lets producers and workers go on, and waits for transactions that are open now.

    Args:
        conn: in autocommit mode, allowed to act as refold_owner and refold_worker.
        compiler: makes the plan of each build.

    Raises:
        BuildError: a transaction that wrote to the log stays open for too long.
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
            # A killed deploy may have left an invalid index.
            conn.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{ident(name)}".encode())
            conn.execute(statement.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY").encode())
        made.append(name)
    return made


def _usable(conn: psycopg.Connection, index: str) -> bool:
    row = conn.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (index,)).fetchone()
    return row is not None and bool(row[0])


def _index_name(plan: Plan, stream: Stream) -> str:
    """Return the name of a key index; readers with the same key share it."""
    what = recompute.key_index(plan, stream, "")
    return "key_" + hashlib.sha256(what.encode()).hexdigest()[:16]


def _index_log(conn: psycopg.Connection, statement: str, name: str) -> None:
    """Create an index on the partitioned log, segment by segment: CREATE INDEX on the parent would block producers.

    An interrupted index is completed. A segment that is attached after the index of the parent exists gets its index
    by that.
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
    """Create the empty index on the log, in short attempts: each waits for open writers, and other writers queue up."""
    try:
        in_short_attempts(conn, WRITERS_S, lambda: conn.execute(statement.encode()))
    except psycopg.errors.LockNotAvailable as error:
        raise BuildError(
            f"the log needs an index, and a transaction that wrote to it has been open for {WRITERS_S:.0f} s",
            remedy="End it (see pg_stat_activity for 'idle in transaction'), then run `refold deploy` again.",
        ) from error
