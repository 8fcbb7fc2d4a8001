"""Reading a stream for a sink of grain `events`: each row once, in the order of the stream, behind a cursor of its own.

The sink is one more reader of the build: `next_read` says what it may read, as it does for projections. Pages send it
no keys, so nothing grows while its receiver is away: the stream is the buffer. Rows that change behind its cursor, by a
heal or a dead letter that is released, come by messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from refold.model.stream.cursor import Cursor, Key, advance, next_read
from refold.model.stream.page_sql import Stream
from refold.model.stream.parameters import read_parameters
from refold.model.stream.slices import position_slice
from refold.sinks.read import TOGETHER
from refold.store.builds.build import Build
from refold.store.builds.compiled import stream_of

KEY = "jsonb_build_object('event_id', event_id)::text"


@dataclass(frozen=True, slots=True)
class StreamPage:
    """The next rows of a stream.

    Args:
        keys: slice, and key as the text of a JSON object, in the order of the stream.
        cursor: the cursor after these rows.
        all: whether these are all rows that the build has by now.
    """

    keys: list[tuple[int, str]]
    cursor: Cursor
    all: bool


def next_page(conn: psycopg.Connection, build: Build, cursor: Cursor, limit: int = TOGETHER) -> StreamPage | None:
    """Return the next rows behind a cursor; None if there is nothing to read.

    Args:
        conn: a transaction in REPEATABLE READ.
        build: the build, as the same snapshot shows it.
        cursor: what the sink has delivered.
        limit: most rows.
    """
    read = next_read(cursor, build.cursor)
    if read is None:
        return None
    rows = conn.execute(
        (
            f"SELECT {position_slice()}, {KEY}, txid::text::bigint, position, ordinal"
            f" FROM (\n{stream_of(build).page(['event_id']).rows}\n) AS page ORDER BY 3, 4, 5"
        ).encode(),
        read_parameters(read, limit),
        prepare=True,
    ).fetchall()
    last = Key(*rows[-1][2:]) if rows else None
    after = advance(cursor, read, last, len(rows) >= limit)
    return StreamPage([(int(slice_), key) for slice_, key, *_ in rows], after, after.covers(build.cursor))


def passed(
    conn: psycopg.Connection, build: Build, cursor: Cursor, keys: Sequence[tuple[int, str]]
) -> list[tuple[int, str]]:
    """Return those keys that the cursor has passed, or whose row is gone; the others come with a later page.

    Args:
        conn: a transaction in REPEATABLE READ.
        build: the build.
        cursor: what the sink has delivered.
        keys: slice, and key as the text of a JSON object.
    """
    at = coordinates(conn, build, [key for _, key in keys])
    return [(slice_, key) for slice_, key in keys if key not in at or cursor.applied(at[key])]


def coordinates(conn: psycopg.Connection, build: Build, keys: Sequence[str]) -> dict[str, Key]:
    """Return the coordinates of rows by their keys; a row that is gone has none.

    Args:
        conn: the caller's transaction.
        build: the build.
        keys: keys as the texts of JSON objects.
    """
    stream: Stream = stream_of(build)
    return {
        key: Key(*at)
        for key, *at in conn.execute(
            (
                f"SELECT {KEY}, txid::text::bigint, position, ordinal FROM {stream.table}"
                " WHERE event_id IN (SELECT k::jsonb ->> 'event_id' FROM unnest(%s::text[]) AS k)"
            ).encode(),
            (list(keys),),
        ).fetchall()
    }
