"""The outbox: pgmq queues of keys, one queue for each sink.

A message names keys of rows that a transaction changed, and nothing of their content (a claim check): whoever delivers
reads the rows as they are then. So a slow receiver gets fewer and newer rows, and no stale one can overtake another.

Whoever sends holds the lock of the build until the end of its transaction, so messages become visible in the order of
their numbers: behind the last one that was delivered none can appear. Reading begins there, and does not have to step
over messages that are deleted but that an old snapshot of somebody else still keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from refold.model.sink_queue import KEYS, queue
from refold.postgres.rows import one_row

EVERY = 1_000_000
"""More messages than a queue holds."""
TUNED = "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 2"
"""Storage of a queue's table, whose rows live for moments."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for a sink.

    Args:
        messages: number of messages; a lower bound if it is more than was asked for.
        bytes: size of the queue's table.
        oldest_s: age of the oldest message in seconds; None without any.
    """

    messages: int
    bytes: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys that messages name, each once.

    Args:
        messages: the ids of the messages.
        keys: slice, and key as the text of a JSON object.
        all: whether there was no other message.
    """

    messages: list[int]
    keys: list[tuple[int, str]]
    all: bool


def create(conn: psycopg.Connection, sink_id: int) -> None:
    """Create the queue of a sink."""
    conn.execute("SELECT pgmq.create(%s)", (queue(sink_id),))
    conn.execute(sql.SQL("ALTER TABLE {} SET (" + TUNED + ")").format(_table(sink_id)))
    # Who may see the evidence of incidents may see what waits.
    conn.execute(sql.SQL("GRANT SELECT ON {} TO refold_inspector").format(_table(sink_id)))
    # An observer may count, and sees no key.
    conn.execute(sql.SQL("GRANT SELECT (msg_id, enqueued_at) ON {} TO refold_observer").format(_table(sink_id)))
    # Keys are short lived: to compress them costs a page more than it saves.
    conn.execute(sql.SQL("ALTER TABLE {} ALTER COLUMN message SET STORAGE EXTERNAL").format(_table(sink_id)))


def drop(conn: psycopg.Connection, sink_id: int) -> None:
    """Drop the queue of a sink, if it is there."""
    if conn.execute("SELECT to_regclass(%s)", (f"pgmq.q_{queue(sink_id)}",)).fetchone() != (None,):
        conn.execute("SELECT pgmq.drop_queue(%s)", (queue(sink_id),))


def purge(conn: psycopg.Connection, sink_id: int) -> None:
    """Drop all messages of a sink. No page may be writing: the caller holds the lock of the build.

    Pages wait for that lock, so this waits for nobody: a backup has locked the queue for as long as it runs.
    """
    try:
        with conn.transaction():
            conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(_table(sink_id)))
            conn.execute("SELECT pgmq.purge_queue(%s)", (queue(sink_id),))
    except psycopg.errors.LockNotAvailable:
        conn.execute(sql.SQL("DELETE FROM {}").format(_table(sink_id)))


def read(conn: psycopg.Connection, sink_id: int, passed: int, columns: Sequence[str], most: int) -> Keys:
    """Return the keys of the oldest messages.

    The lease of the sink excludes other deliverers, so that no message is marked as read: with an update for every
    read, the table would bloat.

    Args:
        conn: a transaction in REPEATABLE READ, so that the keys are of the same moment as the rows.
        sink_id: the sink.
        passed: number of the last message that was delivered.
        columns: the columns of the key.
        most: most messages to read.
    """
    found = conn.execute(
        sql.SQL("SELECT msg_id FROM {} WHERE msg_id > %s ORDER BY msg_id LIMIT %s").format(_table(sink_id)),
        (passed, most + 1),
    ).fetchall()
    ids = [int(one) for (one,) in found[:most]]
    lists = [sql.SQL("jsonb_array_elements(q.message -> 'key' -> {})").format(sql.Literal(name)) for name in columns]
    names = [sql.Identifier(f"c{at}") for at in range(len(columns))]
    pairs = [sql.SQL("{}, u.{}").format(sql.Literal(name), one) for name, one in zip(columns, names, strict=True)]
    keys = conn.execute(
        sql.SQL(
            "SELECT DISTINCT u.slice::integer, jsonb_build_object({pairs})::text FROM {table} AS q"
            " CROSS JOIN LATERAL ROWS FROM (jsonb_array_elements(q.message -> 'slices'), {lists}) AS u (slice, {names})"
            " WHERE q.msg_id = ANY (%s)"
        ).format(
            pairs=sql.SQL(", ").join(pairs),
            table=_table(sink_id),
            lists=sql.SQL(", ").join(lists),
            names=sql.SQL(", ").join(names),
        ),
        (ids,),
    ).fetchall()
    return Keys(ids, [(int(slice_), key) for slice_, key in keys], len(found) <= most)


def delete(conn: psycopg.Connection, sink_id: int, messages: Sequence[int]) -> None:
    """Delete messages whose keys were delivered."""
    if messages:
        conn.execute("SELECT count(*) FROM pgmq.delete(%s, %s::bigint[])", (queue(sink_id), list(messages)))


def waits(conn: psycopg.Connection, sink_id: int, passed: int) -> bool:
    """Return whether a sink has a message; `passed` is the number of the last that was delivered."""
    query = sql.SQL("SELECT FROM {} WHERE msg_id > %s ORDER BY msg_id LIMIT 1").format(_table(sink_id))
    return conn.execute(query, (passed,)).rowcount > 0


def backlog(conn: psycopg.Connection, sink_id: int, passed: int, most: int = 100_000) -> Backlog:
    """Return what waits for a sink.

    Args:
        conn: may read the queue.
        sink_id: the sink.
        passed: number of the last message that was delivered.
        most: most messages to count.
    """
    row = one_row(
        conn,
        sql.SQL(
            "SELECT (SELECT count(*)"
            "  FROM (SELECT FROM {0} WHERE msg_id > %(passed)s ORDER BY msg_id LIMIT %(most)s) AS q),"
            " pg_total_relation_size({1}::regclass),"
            " (SELECT extract(epoch FROM clock_timestamp() - enqueued_at)::float8 FROM {0}"
            "  WHERE msg_id > %(passed)s ORDER BY msg_id LIMIT 1)"
        ).format(_table(sink_id), sql.Literal(f"pgmq.q_{queue(sink_id)}")),
        {"passed": passed, "most": most},
    )
    return Backlog(int(row[0]), int(row[1]), row[2])


def send(conn: psycopg.Connection, sink_id: int, columns: Sequence[str], rows: sql.Composable) -> int:
    """Send keys to the queue of a sink; return the number of messages.

    Args:
        conn: the transaction that changes the rows, or that wants rows given again, under the build's lock.
        sink_id: the sink.
        columns: the columns of the key.
        rows: a query with the columns slice and key, a jsonb object.
    """
    lists = [sql.SQL("{0}, jsonb_agg(key -> {0})").format(sql.Literal(name)) for name in columns]
    return conn.execute(
        sql.SQL(
            "INSERT INTO {table} (vt, message) SELECT clock_timestamp(),"
            " jsonb_build_object('slices', jsonb_agg(slice), 'key', jsonb_build_object({lists})) FROM ("
            "SELECT slice, key, row_number() OVER () AS at"
            " FROM (SELECT DISTINCT slice, key FROM ({rows}) AS given) AS one"
            ") AS numbered GROUP BY at / {most}"
        ).format(table=_table(sink_id), lists=sql.SQL(", ").join(lists), rows=rows, most=sql.Literal(KEYS))
    ).rowcount


def _table(sink_id: int) -> sql.Composable:
    return sql.Identifier("pgmq", f"q_{queue(sink_id)}")


def readable(conn: psycopg.Connection, sink_id: int) -> bool:
    """Return whether this session may read the queue of a sink."""
    row = one_row(
        conn,
        "SELECT has_schema_privilege('pgmq', 'USAGE') AND has_table_privilege(c.oid, 'SELECT') FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'pgmq' AND c.relname = %s",
        (f"q_{queue(sink_id)}",),
    )
    return bool(row[0])
