"""Bringing a damaged or lost segment of the log back from the archive."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from typing import BinaryIO

import psycopg

from refold.engine.archive.object_store import open_store
from refold.engine.archive.parquet import COLUMNS, TOGETHER_BITS
from refold.engine.archive.thaw import make_table, present, thawing
from refold.engine.archive.write import NOT_SET, SET_IT, insist_on_bytes
from refold.errors import BuildError, InputError
from refold.model.stream.slices import POSITION_BITS, multirange, runs
from refold.postgres.failpoints import failpoint
from refold.postgres.rows import one_row
from refold.store import archives
from refold.store.archives import Archive
from refold.store.log.damage import look_again
from refold.store.log.guards import require_owner
from refold.store.log.seal import agree, sealed, standing
from refold.store.schema.settings import read_settings


@dataclass(slots=True)
class Restored:
    """What was restored, or would be.

    Args:
        segment: the segment.
        location: the file that has its events; None: no file has them.
        slices: slices of the log that differ from their sealed checksums.
        events: events that were put back.
        removed: events that stood in these slices before.
        created: whether the segment's table was missing.
    """

    segment: str
    location: str | None = None
    slices: list[int] = field(default_factory=list)
    events: int = 0
    removed: int = 0
    created: bool = False


def archive_of(conn: psycopg.Connection, segment: str) -> Archive | None:
    """Return the file that holds a segment, proved; None if there is none.

    Raises:
        InputError: the segment was purged: the metrics count its events without it.
    """
    for one in archives.proved_ones(conn):
        if one.segment == segment:
            if one.state == "purged":
                raise InputError(
                    f"{segment} was purged from the log, and is not missing from it",
                    remedy="Its events are counted, and their file stays in the archive.",
                )
            return one
    return None


def restore(conn: psycopg.Connection, segment: str, *, by: str, dry_run: bool = False) -> Restored:
    """Put the events of the archive in the place of what stands in the damaged slices of a segment.

    Each portion of eight slices is a transaction, which commits only if the slices then have their sealed checksums.
    A slice without damage is not touched. An interrupted restore is continued by running it again.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        segment: its qualified name.
        by: name of the command, for incidents.
        dry_run: look only.

    Raises:
        InputError: no archive is set, or no file has the segment.
        StoreFailed: the store does not answer, or has another file than was written.
        BuildError: what the file holds is not what was sealed.
    """
    location = read_settings(conn).archive
    if location is None:
        raise InputError(NOT_SET, remedy=SET_IT)
    archive = archive_of(conn, segment)
    if archive is None:
        raise InputError(
            f"the archive has no proved file of {segment}", remedy="`refold archive status` lists what it has."
        )
    result = Restored(segment, archive.location, created=not _stands(conn, archive))
    result.slices = _damaged(conn, archive)
    if dry_run or not (result.slices or result.created):
        return result
    require_owner(conn)
    store = open_store(location)
    with tempfile.TemporaryFile() as back:
        insist_on_bytes(archive, store.fetch(archive.location, back, lambda: None))
        back.seek(0)
        if result.created:
            _create(conn, archive)
            failpoint("archive_created")
        _put_back(conn, archive, back, result)
    look_again(conn, by=by)
    return result


def _put_back(conn: psycopg.Connection, archive: Archive, file: BinaryIO, result: Restored) -> None:
    left = set(result.slices)
    shift = TOGETHER_BITS - POSITION_BITS
    # Read first: a foreign event may stand in a slice of which the archive has none.
    for _ in thawing(conn, file, archive, {one >> shift for one in left}.__contains__):
        (portion,) = one_row(conn, f"SELECT min(position) >> {TOGETHER_BITS} FROM pg_temp.thawed".encode())
        slices = sorted(one for one in left if one >> shift == portion)
        _exchange(conn, archive, slices, result)
        left -= set(slices)
    for portion in sorted({one >> shift for one in left}):
        with conn.transaction():
            make_table(conn)
            _exchange(conn, archive, sorted(one for one in left if one >> shift == portion), result)
    failpoint("archive_restored")


def _exchange(conn: psycopg.Connection, archive: Archive, slices: list[int], result: Restored) -> None:
    """Exchange the events of some slices for those that are thawed, and see that they are what was sealed."""
    within = (
        f"position >= {archive.lower_position} AND position < {archive.upper_position}"
        f" AND refold.position_slice(position) <@ '{multirange(runs(slices))}'::int4multirange"
        f" AND position >= {slices[0] << POSITION_BITS} AND position < {(slices[-1] + 1) << POSITION_BITS}"
    )
    columns = ", ".join(COLUMNS)
    # The session's temporary table is the worker's.
    conn.execute("GRANT SELECT ON pg_temp.thawed TO refold_owner")
    conn.execute("SET LOCAL ROLE refold_owner")
    conn.execute("SET LOCAL refold.restoring = on")
    removed = conn.execute(f"DELETE FROM refold.events WHERE {within}".encode()).rowcount
    put = conn.execute(
        f"INSERT INTO refold.events ({columns}) SELECT {columns} FROM {present(archive)} WHERE {within}"
        " ORDER BY position".encode()
    ).rowcount
    conn.execute("SET LOCAL refold.restoring = off")
    conn.execute("SET LOCAL ROLE refold_worker")
    stand = standing(conn, slices[0] << POSITION_BITS, (slices[-1] + 1) << POSITION_BITS)
    kept = sealed(conn, slices[0], slices[-1])
    wrong = [one for one in slices if not agree(stand.get(one), kept.get(one))]
    if wrong:
        neighbour = "" if all(archive.whole(one) for one in wrong) else " Restore the segment beside it too."
        raise BuildError(
            f"{archive.location} does not hold what was sealed in slices {', '.join(map(str, wrong[:5]))}",
            remedy="The log was accepted with other events since, or restored."
            + (neighbour or " `refold scrub` names the events."),
        )
    failpoint("archive_exchanged")
    result.removed += removed
    result.events += put


def _damaged(conn: psycopg.Connection, archive: Archive) -> list[int]:
    """Return the slices of a segment whose events are not those that were sealed."""
    low, high = archive.slices
    stand = standing(conn, low << POSITION_BITS, (high + 1) << POSITION_BITS)
    kept = sealed(conn, low, high)
    return sorted(
        one
        for one in stand.keys() | kept.keys()
        if one in kept or archive.whole(one)
        if not agree(stand.get(one), kept.get(one))
    )


def _stands(conn: psycopg.Connection, archive: Archive) -> bool:
    row = conn.execute(
        "SELECT FROM refold.segments WHERE lower_position <= %s AND upper_position >= %s",
        (archive.lower_position, archive.upper_position),
    ).fetchone()
    return row is not None


def _create(conn: psycopg.Connection, archive: Archive) -> None:
    """Create the table of a lost segment."""
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        if one_row(conn, "SELECT to_regclass(%s) IS NOT NULL", (archive.segment,))[0]:
            raise BuildError(
                f"{archive.segment} stands beside the log, detached",
                remedy="Attach it again, or drop it and run this command again.",
            )
        conn.execute("SELECT refold.create_segment(%s, %s)", (archive.lower_position, archive.upper_position))
