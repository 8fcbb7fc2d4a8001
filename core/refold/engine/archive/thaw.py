"""Thawing: the rows of a file back in the database, where the SQL that seals the log computes their checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import psycopg

from refold.engine.archive.failures import Differs
from refold.engine.archive.object_store import Beat
from refold.engine.archive.parquet import COLUMNS, Contents, Rows, copy_back
from refold.model.stream.cursor import BOUND
from refold.postgres.rows import one_row
from refold.store.archives import Archive
from refold.store.log.seal import checksums

TABLE = "pg_temp.thawed"
"""The table with the thawed rows, while a transaction of `thawing` lasts."""


def thaw(conn: psycopg.Connection, file: BinaryIO, archive: Archive, beat: Beat) -> Contents:
    """Return the checksums of the rows of a file, under the transaction ids of `proved`; a transaction a portion.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        file: the file, on this host.
        archive: what the manifest says of it.
        beat: gives a sign of life.

    Raises:
        Differs: the file cannot be read, or holds what the log cannot.
    """
    found = Contents()
    for _ in thawing(conn, file, archive):
        first, last = one_row(conn, f"SELECT min(ts), max(ts) FROM {TABLE}".encode())
        for number, one in checksums(conn, rows_of=proved(archive)).items():
            found.add(number, one, first, last)
        beat()
    return found


def thawing(
    conn: psycopg.Connection, file: BinaryIO, archive: Archive, wanted: Callable[[int], bool] = lambda portion: True
) -> Iterator[None]:
    """Yield once for each portion of a file, in a transaction in which `TABLE` has its rows.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        file: the file, on this host.
        archive: what the manifest says of it.
        wanted: returns whether a portion is to be read.

    Raises:
        Differs: the file cannot be read, or holds what the log cannot.
    """
    for _, portion in Rows(file, archive.location).portions(wanted):
        with conn.transaction(), refused(archive):
            make_table(conn)
            copy_back(conn, portion, TABLE)
            yield


def make_table(conn: psycopg.Connection) -> None:
    """Create `TABLE`, which goes when the transaction ends."""
    conn.execute("CREATE TEMPORARY TABLE thawed (LIKE refold.events) ON COMMIT DROP")


def present(archive: Archive, table: str = TABLE) -> str:
    """Return the relation of the thawed rows with the transaction ids that the log has now.

    A recovery gives all events the same txid, and the next ones to those that share a position: see
    `refold.engine.recovery.coordinates`, whose rule this is.

    Args:
        archive: what the manifest says of the file.
        table: the table with its rows; of a position, all of them.
    """
    if not archive.rewritten:
        return table
    others = ", ".join(COLUMNS[1:])
    return (
        f"(SELECT (1 + row_number() OVER (PARTITION BY position ORDER BY txid))::text::xid8 AS txid, {others}"
        f" FROM {table}) AS thawed"
    )


def proved(archive: Archive) -> str:
    """Return the relation of the thawed rows with the transaction ids under which their checksums are kept.

    A recovery gives the log other ids and seals it again, and the files of its segments are proved under these. Of a
    segment that was purged before, nothing but the file has the events: its checksums stay those of the file's own ids.

    Args:
        archive: what the manifest says of the file.
    """
    return TABLE if archive.upto is not None and archive.upto >= BOUND else present(archive)


@contextmanager
def refused(archive: Archive) -> Iterator[None]:
    """Raise what the database refuses of a file's rows as a Differs."""
    try:
        yield
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        what = error.diag.message_primary or type(error).__name__
        raise Differs(f"{archive.location} holds what the log cannot hold: {what}") from error
