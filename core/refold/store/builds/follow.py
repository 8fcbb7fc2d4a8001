"""The switch of a reader to another build of its stream, without a gap.

A loaded build has read its stream up to its cursor. Another build of the same stream may hold other rows up to
there: of an event that only one of the two had to quarantine, a reader would for ever have too little or too much, and
no later page would tell. So whoever points a build at another stream does it here, under the locks of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import psycopg

from refold.errors import BuildError
from refold.model.stream.cursor import Cursor
from refold.store.builds.build import Build, by_id
from refold.store.builds.dead_letters import find as find_letters
from refold.store.builds.first_load import start_over
from refold.store.builds.proofs import begin_again


class Gap(BuildError):
    """The stream that a build has read differs from the stream that it would read from now on."""


class Behind(Gap):
    """The other stream is behind the reader, so the streams cannot be compared yet."""


def follow(
    conn: psycopg.Connection,
    reader: Build,
    successor: Build,
    *,
    prove: Callable[[Build], object] | None = None,
) -> None:
    """Point a build at another build of its stream; it continues from its own cursor.

    A first load that has read events that the successor does not have starts again.

    Args:
        conn: the caller's transaction, which holds the locks of both, the successor's first.
        reader: the build.
        successor: what it reads from now on.
        prove: makes the reader what its query over the successor is, under these locks; then there can be no gap.

    Raises:
        Gap: the reader has passed what only one of the two streams has.
        Behind: it has passed what the successor has yet to reach.
    """
    reader, successor = by_id(conn, reader.build_id), by_id(conn, successor.build_id)
    upstream = by_id(conn, reader.upstream_id or 0)
    passed = _passed(reader)
    if not _before_anything(reader):
        if upstream.fingerprint != successor.fingerprint:
            raise Gap(
                f"{successor.table_name} has another definition than the stream that {reader.table_name} has read"
            )
        # What it has yet to read may be quarantined there, or not: nobody knows.
        if not successor.loaded or not successor.cursor.covers(passed):
            raise Behind(f"{successor.table_name} is behind its reader {reader.table_name}")
        if prove is None or not reader.loaded:
            try:
                _refuse_gaps(conn, reader, passed, upstream, successor)
            except Gap:
                if reader.loaded:
                    raise
                start_over(conn, reader)
    conn.execute("UPDATE refold.builds SET upstream_id = %s WHERE build_id = %s", (successor.build_id, reader.build_id))
    begin_again(conn, reader.build_id)
    if prove is not None and reader.loaded:
        prove(by_id(conn, reader.build_id))


def _before_anything(reader: Build) -> bool:
    return not reader.loaded and reader.target is None


def _passed(reader: Build) -> Cursor:
    """Return how far a build has read its stream; a load by ranges of the key reads its whole target."""
    if reader.load_step and not reader.loaded and reader.progress_txid is None and reader.cursor.target is not None:
        return Cursor(reader.cursor.target)
    return reader.cursor


def _refuse_gaps(conn: psycopg.Connection, reader: Build, passed: Cursor, upstream: Build, successor: Build) -> None:
    """Raise Gap if the reader has already consumed an event that only one of the streams contains."""
    letters = find_letters(
        conn, "d.build_id = ANY (%s) AND d.state <> 'released'", [upstream.build_id, successor.build_id]
    )
    times = Counter(letter.event_id for letter in letters)
    for letter in letters:
        if times[letter.event_id] == 1 and passed.applied(letter.key._replace(ordinal=0)):
            raise Gap(
                f"{reader.projection} has already consumed {letter.event_id}, which {letter.table_name} excludes"
                f" and its {'successor' if letter.build_id == upstream.build_id else 'predecessor'} contains",
                remedy=f"Rebuild both: `refold rebuild {upstream.projection} --cascade`.",
            )
