"""Sinks and their states in the database: `refold.model.sink.state` decides, this module records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import class_row

from refold.errors import InputError
from refold.model.sink.state import SinkState, collapsed, paused, switched
from refold.postgres.rows import one_row
from refold.store.schema.installed import insist_on
from refold.suggest import did_you_mean

if TYPE_CHECKING:
    from refold.model.sink.sink_file import Grain

_STATE = ", ".join(field.name for field in fields(SinkState))
KEEP = 100
"""States of a sink that a cleaning keeps."""

Step = Callable[[SinkState, datetime], SinkState | None]
"""step(state, now): the next state, or None to stay."""


class Fenced(Exception):
    """Another session has taken a step of the sink since: whoever was about to take one must read it again."""


@dataclass(frozen=True, slots=True)
class Sink:
    """A sink as it was deployed.

    Args:
        sink_id: its number.
        name: its name.
        projection: the metric that it delivers.
        grain: what it delivers of it.
        kind: the kind of its receiver.
        definition: the text of its file; empty for an observer.
        once: whether rows of its stream are given once, and not again when another build of the stream goes live.
    """

    sink_id: int
    name: str
    projection: str
    grain: Grain
    kind: str
    definition: str
    once: bool


def insist_on_tables(conn: psycopg.Connection) -> None:
    """Raise NotInstalled if the database is of a version without sinks."""
    insist_on(conn, "refold.sinks")


def every(conn: psycopg.Connection, *, definitions: bool = True) -> list[Sink]:
    """Return all sinks, by name; an observer may not read their definitions."""
    text = "definition" if definitions else "'' AS definition"
    with conn.cursor(row_factory=class_row(Sink)) as cursor:
        return cursor.execute(
            f"SELECT sink_id, name, projection, grain, kind, {text}, once FROM refold.sinks ORDER BY name".encode()
        ).fetchall()


def known(conn: psycopg.Connection, name: str) -> Sink:
    """Return a sink by its name; raise InputError with a suggestion if there is none."""
    insist_on_tables(conn)
    found = {one.name: one for one in every(conn)}
    if name not in found:
        raise InputError(
            f"there is no sink {name!r}.{did_you_mean(name, found)}", remedy="`refold sinks list` shows them."
        )
    return found[name]


def states(conn: psycopg.Connection, *, errors: bool = True) -> dict[int, SinkState]:
    """Return the state of every sink, by its number; an observer may not read errors."""
    columns = _STATE
    if not errors:
        columns = columns.replace(" error,", " NULL AS error,").replace(" tokens", " '{}'::text[] AS tokens")
    with conn.cursor(row_factory=class_row(SinkState)) as cursor:
        found = cursor.execute(f"SELECT {columns} FROM refold.sinks_now".encode()).fetchall()
    return {one.sink_id: one for one in found}


def state(conn: psycopg.Connection, sink_id: int) -> tuple[SinkState, datetime]:
    """Return the state of a sink, and the database's time, by which leases and pauses are measured."""
    (now,) = one_row(conn, "SELECT clock_timestamp()")
    return (
        one_row(
            conn,
            f"SELECT {_STATE} FROM refold.sinks_now WHERE sink_id = %s".encode(),
            (sink_id,),
            row=class_row(SinkState),
        ),
        now,
    )


def lock(conn: psycopg.Connection, sink_id: int) -> bool:
    """Lock a sink until the end of the transaction; return False if it is gone. After a build's lock, never before."""
    return conn.execute("SELECT FROM refold.sinks WHERE sink_id = %s FOR NO KEY UPDATE", (sink_id,)).rowcount > 0


def step(conn: psycopg.Connection, sink_id: int, to: Step, *, after: int | None = None) -> SinkState | None:
    """Take a step from the present state of a sink, under its lock; return the new state.

    Args:
        conn: the caller's transaction.
        sink_id: the sink.
        to: returns the next state, given the present one and the time; None takes no step.
        after: number of the state that the caller knows.

    Raises:
        Fenced: the present state is another one than `after`, or the sink is gone.
    """
    if not lock(conn, sink_id):
        raise Fenced
    now, at = state(conn, sink_id)
    if after is not None and now.number != after:
        raise Fenced
    new = to(now, at)
    if new is not None:
        add(conn, new)
    return new


def add(conn: psycopg.Connection, new: SinkState) -> None:
    """Record a state, under the lock of its sink; now and then delete old ones."""
    values = ", ".join(f"%({field.name})s" for field in fields(SinkState))
    conn.execute(
        f"INSERT INTO refold.sink_states ({_STATE}) VALUES ({values})".encode(),
        {field.name: getattr(new, field.name) for field in fields(SinkState)} | {"tokens": list(new.tokens)},
    )
    if new.number % KEEP == 0:
        conn.execute(
            "DELETE FROM refold.sink_states WHERE sink_id = %s AND number < %s", (new.sink_id, new.number - KEEP)
        )


def attach(conn: psycopg.Connection, build_id: int, sink_id: int) -> None:
    """Let the pages of a build send keys to a sink, from the end of this transaction on; under the build's lock."""
    conn.execute(
        "UPDATE refold.builds SET sinks = array_append(sinks, %s) WHERE build_id = %s AND NOT %s = ANY (sinks)",
        (sink_id, build_id, sink_id),
    )


def detach(conn: psycopg.Connection, sink_id: int) -> None:
    """Let no build send keys to a sink any more; under the locks of the builds that do."""
    conn.execute("UPDATE refold.builds SET sinks = array_remove(sinks, %s) WHERE %s = ANY (sinks)", (sink_id, sink_id))


def collapse_all(conn: psycopg.Connection, sinks: Iterable[int]) -> None:
    """Let sinks compare slices before they follow messages again, because rows change without messages."""
    for sink_id in sinks:
        step(conn, sink_id, lambda now, _: collapsed(now))


def switch(conn: psycopg.Connection, projection: str, build_id: int | None, *, only: int | None = None) -> list[int]:
    """Let the sinks of a metric deliver another build from now on, under a higher epoch; return their numbers.

    Messages with keys of the former build are to be dropped: its key may have been another one.

    Args:
        conn: the transaction of the switch, which holds the locks of both builds.
        projection: the metric.
        build_id: the build that is live from now on; None if none is.
        only: the sink that does not deliver it yet; None for all.
    """
    found = conn.execute(
        "SELECT sink_id, once FROM refold.sinks WHERE projection = %(projection)s"
        " AND (%(only)s::bigint IS NULL OR sink_id = %(only)s) ORDER BY sink_id",
        {"projection": projection, "only": only},
    ).fetchall()
    for sink_id, once in found:
        detach(conn, sink_id)
        if build_id is not None and not _same_view(conn, sink_id, build_id):
            forget_checksums(conn, sink_id)
        step(conn, sink_id, lambda now, at, once=once: switched(now, build_id, epoch_at(at), once=once))  # type: ignore[misc]
    return [int(sink_id) for sink_id, _ in found]


def _same_view(conn: psycopg.Connection, sink_id: int, build_id: int) -> bool:
    """Return whether a build's view shows its rows as that of the build which a sink has delivered last.

    Checksums are those of tables: under another view the same table is other rows for the receiver.
    """
    return (
        conn.execute(
            """
            SELECT FROM refold.builds AS b
            WHERE b.build_id = %(build)s AND b.fingerprint = (
                SELECT a.fingerprint FROM refold.sink_states AS s JOIN refold.builds AS a USING (build_id)
                WHERE s.sink_id = %(sink)s ORDER BY s.number DESC LIMIT 1
            )
            """,
            {"build": build_id, "sink": sink_id},
        ).rowcount
        > 0
    )


def of_rows(conn: psycopg.Connection, sinks: Sequence[int]) -> tuple[int, ...]:
    """Return those of some sinks to which pages send keys, in order: for the others, the stream is the buffer."""
    if not sinks:
        return ()
    rows = conn.execute(
        "SELECT sink_id FROM refold.sinks WHERE sink_id = ANY (%s) AND grain = 'rows'", (list(sinks),)
    ).fetchall()
    found = {sink_id for (sink_id,) in rows}
    return tuple(one for one in sinks if one in found)


def adopt_checksums(conn: psycopg.Connection, sink_id: int, build_id: int) -> None:
    """Record the checksums of a build as those of the receiver, which is given no row of before."""
    conn.execute("DELETE FROM refold.sink_checksums WHERE sink_id = %s", (sink_id,))
    conn.execute(
        """
        INSERT INTO refold.sink_checksums (sink_id, slice, rows, hash)
        SELECT %(sink)s, slice, sum(rows)::bigint, sum(hash) FROM (
            SELECT slice, rows, hash FROM refold.checksums WHERE build_id = %(build)s AND relation = 0
            UNION ALL
            SELECT slice, rows, hash FROM refold.checksum_changes WHERE build_id = %(build)s AND relation = 0
        ) AS kept GROUP BY slice HAVING sum(rows) <> 0 OR sum(hash) <> 0
        """,
        {"sink": sink_id, "build": build_id},
    )


def rename(conn: psycopg.Connection, old: str, new: str) -> None:
    """Let the sinks of a metric deliver it under its new name."""
    conn.execute("UPDATE refold.sinks SET projection = %s WHERE projection = %s", (new, old))


def restored(conn: psycopg.Connection) -> list[str]:
    """Pause all sinks after a restore, under a new epoch, and return their names.

    The receivers may have been given later versions than this database knows of, or belong to the database of which
    this one is a copy.
    """
    for sink in every(conn):
        step(conn, sink.sink_id, lambda now, at: paused(switched(now, now.build_id, epoch_at(at))))
    return [sink.name for sink in every(conn)]


def epoch_at(at: datetime) -> int:
    """Return the lowest epoch that may begin at a time: its second, so that it is above all of before. Pure."""
    return int(at.timestamp())


def checksums(conn: psycopg.Connection, sink_id: int) -> dict[int, tuple[int, int] | None]:
    """Return what the receiver has confirmed, by slice: rows and hash; None where it is not known."""
    rows = conn.execute("SELECT slice, rows, hash FROM refold.sink_checksums WHERE sink_id = %s", (sink_id,)).fetchall()
    return {int(one): None if count is None else (int(count), int(hash_)) for one, count, hash_ in rows}


def unknown_slices(conn: psycopg.Connection, sink_id: int) -> set[int]:
    """Return the slices of which it is not known what the receiver has confirmed."""
    rows = conn.execute("SELECT slice FROM refold.sink_checksums WHERE sink_id = %s AND rows IS NULL", (sink_id,))
    return {int(one) for (one,) in rows.fetchall()}


def confirm(conn: psycopg.Connection, sink_id: int, slices: Sequence[tuple[int, int | None, int | None]]) -> None:
    """Record checksums of slices as confirmed: slice, rows, hash; without rows and hash they are not known."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO refold.sink_checksums AS s (sink_id, slice, rows, hash) VALUES (%s, %s, %s, %s)
            ON CONFLICT (sink_id, slice) DO UPDATE SET rows = excluded.rows, hash = excluded.hash
            WHERE (s.rows, s.hash) IS DISTINCT FROM (excluded.rows, excluded.hash)
            """,
            [(sink_id, *one) for one in slices],
        )
    empty = [number for number, rows, hash_ in slices if rows == 0 and hash_ == 0]
    if empty:
        conn.execute("DELETE FROM refold.sink_checksums WHERE sink_id = %s AND slice = ANY (%s)", (sink_id, empty))


def doubt(conn: psycopg.Connection, sink_id: int, slices: Sequence[int]) -> None:
    """Record that it is not known what a receiver has of some slices."""
    conn.execute(
        "INSERT INTO refold.sink_checksums AS s (sink_id, slice) SELECT %s, unnest(%s::integer[])"
        " ON CONFLICT (sink_id, slice) DO UPDATE SET rows = NULL, hash = NULL WHERE s.rows IS NOT NULL",
        (sink_id, list(slices)),
    )


def differing(conn: psycopg.Connection, sink_id: int, build_id: int) -> list[int]:
    """Return the slices of a build that a receiver does not have as they are, in order.

    While no message waits for a sink that follows, there is none but those with rows that the receiver refused.

    Args:
        conn: a transaction in REPEATABLE READ.
        sink_id: the sink.
        build_id: the build.
    """
    rows = conn.execute(
        """
        SELECT coalesce(k.slice, c.slice)
        FROM (
            SELECT slice, sum(rows)::bigint AS rows, sum(hash) AS hash FROM (
                SELECT slice, rows, hash FROM refold.checksums WHERE build_id = %(build)s AND relation = 0
                UNION ALL
                SELECT slice, rows, hash FROM refold.checksum_changes WHERE build_id = %(build)s AND relation = 0
            ) AS both_sides GROUP BY slice HAVING sum(rows) <> 0 OR sum(hash) <> 0
        ) AS k
        FULL JOIN (SELECT slice, rows, hash FROM refold.sink_checksums WHERE sink_id = %(sink)s) AS c USING (slice)
        WHERE (coalesce(k.rows, 0), coalesce(k.hash, 0)) IS DISTINCT FROM
              (CASE WHEN c.slice IS NULL THEN 0 ELSE c.rows END, CASE WHEN c.slice IS NULL THEN 0 ELSE c.hash END)
        ORDER BY 1
        """,
        {"build": build_id, "sink": sink_id},
    ).fetchall()
    return [int(number) for (number,) in rows]


def forget_checksums(conn: psycopg.Connection, sink_id: int, slices: Iterable[int] = ()) -> None:
    """Record that nothing is known of what a receiver has, so that it is given every slice.

    Args:
        conn: the caller's transaction, under the sink's lock.
        sink_id: the sink.
        slices: slices of which the receiver has rows, whatever was known.
    """
    conn.execute("UPDATE refold.sink_checksums SET rows = NULL, hash = NULL WHERE sink_id = %s", (sink_id,))
    confirm(conn, sink_id, [(slice_, None, None) for slice_ in slices])


def remember_keys(
    conn: psycopg.Connection,
    sink_id: int,
    epoch: int,
    number: int,
    given: Sequence[tuple[str, int]],
    gone: Sequence[str],
) -> None:
    """Record the keys that a receiver was given, and forget those of rows that it was told to remove."""
    if given:
        conn.execute(
            """
            INSERT INTO refold.sink_keys (sink_id, digest, key, slice, epoch, number)
            SELECT %s, md5(k.key), k.key::jsonb, k.slice, %s, %s
            FROM unnest(%s::text[], %s::integer[]) AS k (key, slice)
            ON CONFLICT (sink_id, digest) DO UPDATE
            SET slice = excluded.slice, epoch = excluded.epoch, number = excluded.number
            """,
            (sink_id, epoch, number, [key for key, _ in given], [slice_ for _, slice_ in given]),
        )
    if gone:
        conn.execute(
            "DELETE FROM refold.sink_keys"
            " WHERE sink_id = %s AND digest IN (SELECT md5(k) FROM unnest(%s::text[]) AS k)",
            (sink_id, list(gone)),
        )


def keys_before(conn: psycopg.Connection, sink_id: int, slice_: int, epoch: int, number: int) -> list[str]:
    """Return the keys of a slice that the receiver was last given under an older version."""
    rows = conn.execute(
        "SELECT key::text FROM refold.sink_keys"
        " WHERE sink_id = %s AND slice = %s AND (epoch, number) < (%s, %s) ORDER BY digest",
        (sink_id, slice_, epoch, number),
    ).fetchall()
    return [str(key) for (key,) in rows]


def key_slices(conn: psycopg.Connection, sink_id: int) -> set[int]:
    """Return the slices of which the receiver was given keys."""
    rows = conn.execute("SELECT DISTINCT slice FROM refold.sink_keys WHERE sink_id = %s", (sink_id,)).fetchall()
    return {int(one) for (one,) in rows}
