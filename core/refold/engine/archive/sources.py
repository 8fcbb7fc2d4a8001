"""Sources: events that were purged from the log, thawed for the statement that reads them.

A reader takes one range of positions after another, and for each gets a relation with the columns of the log, in the
log's present coordinates. At any time one file is on this host, and the rows of one range are in the database: in a
table without a write-ahead log that no other session ever sees, for it goes before the transaction ends.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import psycopg

from refold.engine.archive.failures import Differs, Missing, StoreFailed
from refold.engine.archive.object_store import open_store
from refold.engine.archive.parquet import TOGETHER_BITS, Rows, copy_back
from refold.engine.archive.thaw import present, refused
from refold.engine.archive.write import NOT_SET, SET_IT, insist_on_bytes
from refold.model.sql_text import ident
from refold.model.stream.slices import POSITION_BITS
from refold.store import archives
from refold.store.archives import Archive
from refold.store.schema.settings import read_settings

PORTION = 1 << TOGETHER_BITS
"""Positions that are thawed at least."""
REMEDY = (
    "Bring the store back as it was: `refold archive verify --deep` names the files that are missing or damaged. Then"
    " run the command again; what is done stays."
)
RECOVER = (
    "The store has another file of this segment: this database was restored from a backup from before that was written,"
    " as by an erasure. Run `refold recover` first, which takes the file, and does erasures again. Do not bring the"
    " former file back: it may hold people who were erased."
)


class Unreadable(StoreFailed):
    """Purged events cannot be read, because the archive does not have them as it was proved to."""

    def __init__(self, what: str, error: Exception | None = None, *, remedy: str = REMEDY) -> None:
        super().__init__(
            f"{what} were purged from the log, and cannot be read from the archive" + (f": {error}" if error else ""),
            remedy=remedy,
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Events of a range of positions, for as long as the caller's block lasts.

    Args:
        archive: the file that they are from.
        lower: the first position.
        upper: the first position behind them.
        relation: an SQL relation with the columns of the log.
        table: the table that it reads.
        events: number of events.
    """

    archive: Archive
    lower: int
    upper: int
    relation: str
    table: str
    events: int


def purged(conn: psycopg.Connection, lower: int = 1) -> list[Archive]:
    """Return the files of purged segments from a position on, in order.

    Args:
        conn: may read the manifest.
        lower: a position.

    Raises:
        Unreadable: a purged position is in none of them.
    """
    found = archives.find(conn, "a.state = 'purged' AND a.upper_position > %s", lower)
    at = lower
    for one in found:
        if one.lower_position > at:
            raise Unreadable(f"positions {at:,} to {one.lower_position - 1:,}")
        at = one.upper_position
    return found


class Sources:
    """Reads purged events, and keeps the file that it has fetched last until a reader has all or fails.

    It is not bound to a connection: a step of a load may be on another one than the step before.
    """

    def __init__(self) -> None:
        self._held: tuple[str, BinaryIO] | None = None

    def close(self) -> None:
        """Let go of the file."""
        if self._held is not None:
            self._held[1].close()
            self._held = None

    @contextmanager
    def thawing(self, conn: psycopg.Connection, lower: int, upper: int, *, most: int = PORTION) -> Iterator[Source]:
        """Provide the events from a position on, of one file, in the caller's transaction.

        Args:
            conn: acts as refold_worker; the caller's transaction.
            lower: the first position.
            upper: the first that is too far.
            most: positions that may be thawed together; at least one portion is.

        Raises:
            Unreadable: the file is missing or damaged, or no file has the position.
        """
        within = "a.lower_position <= %s AND a.upper_position > %s"
        found = archives.find(conn, f"a.state = 'purged' AND {within}", lower, lower)
        if not found:
            raise Unreadable(f"positions from {lower:,} on")
        archive = found[0]
        first = lower >> TOGETHER_BITS
        behind = min(upper, archive.upper_position, (first + max(most >> TOGETHER_BITS, 1)) << TOGETHER_BITS)
        table = f"refold_builds.{ident(f'thawed__{conn.info.backend_pid}')}"
        conn.execute(f"CREATE UNLOGGED TABLE {table} (LIKE refold.events)".encode())
        with self.file(conn, archive) as file:
            events = _copy(conn, file, archive, table, range(first, ((behind - 1) >> TOGETHER_BITS) + 1))
        outside = conn.execute(
            f"DELETE FROM {table} WHERE position < %s OR position >= %s".encode(), (lower, behind)
        ).rowcount
        expected = _proved(conn, archive, lower, behind)
        if expected is not None and expected != events - outside:
            self.close()
            raise Unreadable(
                f"positions {lower:,} to {behind - 1:,}",
                Differs(f"{archive.location} has {events - outside:,} events there, of {expected:,} that were proved"),
            )
        conn.execute(f"ANALYZE {table}".encode())
        yield Source(archive, lower, behind, present(archive, table), table, events - outside)
        conn.execute(f"DROP TABLE {table}".encode())

    @contextmanager
    def file(self, conn: psycopg.Connection, archive: Archive) -> Iterator[BinaryIO]:
        """Provide a file of the archive, whose bytes are those that were proved.

        Args:
            conn: may read the settings.
            archive: what the manifest says of it.

        Raises:
            Unreadable: it is missing or damaged.
        """
        try:
            yield self._file(conn, archive)
        except StoreFailed as error:
            self.close()
            newer = isinstance(error, Missing) and _another(conn, archive)
            what = f"the events of {archive.segment}"
            raise Unreadable(what, error, remedy=RECOVER if newer else REMEDY) from error

    def _file(self, conn: psycopg.Connection, archive: Archive) -> BinaryIO:
        """Return a file of the archive, whose bytes are those that were proved."""
        if self._held is None or self._held[0] != archive.location:
            self.close()
            location = read_settings(conn).archive
            if location is None:
                raise StoreFailed(NOT_SET, remedy=SET_IT)
            file = tempfile.TemporaryFile()  # noqa: SIM115
            try:
                insist_on_bytes(archive, open_store(location).fetch(archive.location, file, lambda: None))
            except BaseException:
                file.close()
                raise
            self._held = archive.location, file
            weakref.finalize(self, file.close)
        self._held[1].seek(0)
        return self._held[1]


def _another(conn: psycopg.Connection, archive: Archive) -> bool:
    """Return whether the store has a file of a segment, other than those that the manifest knows."""
    location = read_settings(conn).archive
    if location is None:
        return False
    folder, _, file = archive.location.rpartition("/")
    names = open_store(location).names(folder.partition("/")[0])
    known = {one.location for one in archives.find(conn)}
    span = file.partition(".")[0]
    return any(name.rpartition("/")[2].partition(".")[0] == span for name in names.keys() - known)


def _copy(conn: psycopg.Connection, file: BinaryIO, archive: Archive, table: str, portions: range) -> int:
    """Copy the rows of some portions of a file; return how many."""
    with refused(archive):
        found = Rows(file, archive.location).portions(portions.__contains__)
        return sum(copy_back(conn, portion, table) for _, portion in found)


def _proved(conn: psycopg.Connection, archive: Archive, lower: int, upper: int) -> int | None:
    """Return the number of events that a file was proved to have in whole slices; None if the range cuts one."""
    for border in (lower, upper):
        if border & ((1 << POSITION_BITS) - 1) and border not in (archive.lower_position, archive.upper_position):
            return None
    kept = archives.slices_of(conn, archive)
    low, high = lower >> POSITION_BITS, (upper - 1) >> POSITION_BITS
    return sum(one.events for number, one in kept.items() if low <= number <= high)
