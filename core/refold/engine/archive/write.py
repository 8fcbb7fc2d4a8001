"""Writing the archive: sealed segments become files, and each is proved before it counts.

The data's way: rows of the segment and their checksums, by COPY into a file of this host; that into the store under a
new name; back from the store into another file. The checksums must be the sealed ones. The rows that were read back, as
CSV again, must be what COPY had sent. A process may be killed between any two steps. What it leaves is a row of the
manifest that counts for nothing, and perhaps an object that only this row names: the next one reads that object back,
and uses or removes it. What COPY had sent is not known then: the rows go into a temporary table, whose checksums are
compared with the sealed ones.
"""

from __future__ import annotations

import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import psycopg

from refold.engine.archive import ownership, parquet
from refold.engine.archive.failures import Differs, Missing, StoreFailed
from refold.engine.archive.object_store import Content, Store, open_store
from refold.engine.archive.parquet import Contents, Rows, Written
from refold.engine.archive.thaw import thaw
from refold.errors import BuildError, InputError
from refold.postgres.failpoints import failpoint
from refold.prose import counted
from refold.store import archives, incidents
from refold.store.archives import Archive, Claim, LeaseLost
from refold.store.log import damage
from refold.store.log.integrity import LogDamaged, look, portions
from refold.store.log.seal import Segment, agree, sealed
from refold.store.schema.settings import read_settings

log = logging.getLogger("refold.archive")

BEAT_S = 5.0
"""Seconds between two signs of life in the database."""
NOT_SET = "no archive is set"
SET_IT = "`refold archive claim s3://bucket/prefix` (or a folder) says where it is."


@dataclass(slots=True)
class Archived:
    """What a run did.

    Args:
        written: files that were written, and whose rows agree.
        verified: segments whose files are verified now.
        events: events in the files that were written.
        bytes: their size.
        seconds: duration of writing, sending included.
        proving_seconds: duration of reading back and comparing.
        left: whether more segments wait.
    """

    written: list[str] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    events: int = 0
    bytes: int = 0
    seconds: float = 0.0
    proving_seconds: float = 0.0
    left: bool = False


def run(
    conn: psycopg.Connection,
    *,
    by: str,
    seconds: float | None = None,
    older_than_s: float | None = None,
    progress: Callable[[str], None] = lambda segment: None,
) -> Archived:
    """Archive the sealed segments that are old enough, one after another.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        by: duty or command, for incidents.
        seconds: no segment is begun after so many; None: all that are due.
        older_than_s: only segments that were sealed so long ago, seconds; None: as `archive_after` says.
        progress: called with the name of every segment.

    Raises:
        InputError: no archive is set.
        StoreFailed: the store does not do what it was asked, belongs to another database, or gave other rows back
            than were written (Differs).
        LogDamaged: the rows of a segment are not those that were sealed.
        BuildError: another process writes the archive.
    """
    settings = read_settings(conn)
    if settings.archive is None:
        raise InputError(NOT_SET, remedy=SET_IT)
    age = settings.archive_after if older_than_s is None else older_than_s
    store = open_store(settings.archive)
    done, until = Archived(), None if seconds is None else time.monotonic() + seconds
    with leased(conn, store, settings.archive) as writer:
        writer.complete(done, by)
        for archive in archives.unproved(conn):
            progress(archive.segment)
            writer.settle(archive, done, by)
        for segment in archives.due(conn, age):
            if until is not None and time.monotonic() >= until:
                done.left = True
                break
            progress(segment.name)
            writer.archive(segment, done, by)
    return done


@contextmanager
def leased(conn: psycopg.Connection, store: Store, location: str) -> Iterator[Writer]:
    """Be the only writer of the archive until the block ends.

    Raises:
        BuildError: another process is.
        NotOwner: the store belongs to another database.
    """
    holder = secrets.token_hex(8)
    claim = archives.claim_of(conn)
    ownership.insist(store, claim, location)
    claim = archives.take(conn, holder)
    if claim is None:
        raise BuildError(
            "another process writes the archive",
            remedy="Wait until it ends. If it was killed, its lease ends with its database session, or else"
            f" {archives.LEASE_S} s after its last step.",
        )
    try:
        yield Writer(conn, store, location, claim, holder)
    except LeaseLost as lost:
        raise BuildError(str(lost), remedy="Nothing is lost: the other one goes on.") from lost
    finally:
        if not conn.closed:
            archives.let_go(conn, holder)


class Writer:
    """The writer of the archive, while it holds the lease.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        store: the store.
        location: its address.
        claim: the claim of this database.
        holder: names the lease.
    """

    def __init__(self, conn: psycopg.Connection, store: Store, location: str, claim: Claim, holder: str) -> None:
        self._conn, self._store, self._location, self._claim, self._holder = conn, store, location, claim, holder
        self._beaten = time.monotonic()

    def archive(self, segment: Segment, done: Archived, by: str) -> None:
        """Write a sealed segment into a new file, and prove it."""
        started = time.monotonic()
        archive = self.begin(segment)
        failpoint("archive_begun")
        with _spool() as spool:
            sent, written = self._write(archive, spool, done, started)
        self._prove(archive, sent, done, by, written)
        done.written.append(archive.segment)

    def settle(self, archive: Archive, done: Archived, by: str) -> None:
        """Finish what was interrupted: prove the file if the store has it, otherwise forget it."""
        self._turn()
        if archive.state == "written":
            self._prove(archive, None, done, by)
            return
        if self._store.size(archive.location) is not None:
            try:
                self._prove(archive, None, done, by)
                return
            except Differs as differs:
                # Killed while it was sent, to a store in which a file grows.
                log.info("%s: begun, and not whole (%s)", archive.location, differs)
        self._forget(archive)

    def _write(self, archive: Archive, spool: BinaryIO, done: Archived, started: float) -> tuple[Content, Written]:
        standing = sealed(self._conn, *archive.slices)
        about = {
            "refold.segment": archive.segment,
            "refold.positions": f"[{archive.lower_position},{archive.upper_position})",
            "refold.owner": self._claim.owner,
        }
        written = parquet.write(
            self._conn,
            spool,
            archive.lower_position,
            archive.upper_position,
            [number for number, one in standing.items() if one.events],
            about,
            self.beat,
        )
        failpoint("archive_spooled")
        spool.seek(0)
        sent = self._store.put(archive.location, spool, self.beat)
        failpoint("archive_sent")
        with self._conn.transaction():
            self.hold()
            archives.written(self._conn, archive, sent.size, sent.sha256)
        failpoint("archive_written")
        done.events += written.events
        done.bytes += sent.size
        done.seconds += time.monotonic() - started
        return sent, written

    def _prove(
        self, archive: Archive, sent: Content | None, done: Archived, by: str, written: Written | None = None
    ) -> None:
        """Read a file back, and mark it as proved if its rows are those that were sealed.

        Args:
            archive: the file.
            sent: what was sent; None if that is not known.
            done: to add to.
            by: duty or command, for incidents.
            written: what rows were written; None if that is not known.

        Raises:
            Differs: the store gave something else back; an incident says so, and the file counts for nothing.
            LogDamaged: the file is what was written, but the log is not.
        """
        started = time.monotonic()
        try:
            found, contents = read_back(self._conn, self._store, archive, sent, self.beat, written)
            differ = self._mark(archive, found, contents)
        except (Missing, Differs) as error:
            # Of what was begun, and perhaps not sent as a whole, nobody expects anything.
            if archive.sha256 is not None or sent is not None:
                self._lied(archive, error, by)
            if isinstance(error, Differs):
                raise
            raise Differs(f"{archive.location}: the store has no such file, though it took it") from error
        if differ:
            self._refuse(archive, differ, by, known=archive.sha256 is not None or sent is not None)
            return
        failpoint("archive_proved")
        done.proving_seconds += time.monotonic() - started
        self.complete(done, by)

    def complete(self, done: Archived, by: str) -> None:
        """Mark the files as verified of which all slices agree, with those of the segments beside them."""
        with self._conn.transaction():
            self.hold()
            for one in archives.complete(self._conn):
                done.verified.append(one.segment)
                incidents.resolve(self._conn, "archive_damage", one.segment, by=by, outcome={"verified": one.location})

    def _mark(self, archive: Archive, found: Content, contents: Contents) -> list[int]:
        """Mark a file as proved if its rows agree with the sealed checksums; return the slices that differ."""
        self._turn()
        with self._conn.transaction():
            self.hold()
            # An erasure that is about to commit has changed them, and knows nothing of a file that was begun since.
            self._conn.execute(
                "SELECT FROM refold.sealed_slices WHERE slice BETWEEN %s AND %s FOR SHARE", archive.slices
            )
            standing = sealed(self._conn, *archive.slices)
            low, high = archive.slices
            differ = sorted(
                number
                for number in contents.slices.keys() | standing.keys()
                if not low <= number <= high
                or (archive.whole(number) and not agree(contents.slices.get(number), standing.get(number)))
            )
            if not differ:
                archives.written(self._conn, archive, found.size, found.sha256)
                archives.proved(self._conn, archive, contents.slices, contents.first_ts, contents.last_ts)
        return differ

    def _refuse(self, archive: Archive, differ: list[int], by: str, *, known: bool) -> None:
        """Deal with a file whose rows are not those that were sealed.

        Args:
            archive: the file.
            differ: the slices.
            by: duty or command, for incidents.
            known: whether its bytes are known to be those that were written.
        """
        error = Differs(
            f"{archive.location}: the rows of {counted(len(differ), 'slice')} are not those that were sealed",
            tuple(differ),
        )
        if not known:
            raise error
        if archive.rewritten or archive.verified_at is not None:
            # A restored log is what counts. The file stays, for it may have more.
            with self._conn.transaction():
                self.hold()
                archives.replaced(self._conn, archive)
            log.warning("%s; a new file is written from the log, and this one stays", error)
            return
        with self._conn.transaction():
            looks = [look(self._conn, part) for part in portions(differ)]
            found = [one for looked in looks for one in looked.damage]
            slices = {number for looked in looks for number in looked.slices}
            damage.leave(self._conn, found, slices, by=by)
        self._turn()
        self._remove(archive)
        with self._conn.transaction():
            self.hold()
            archives.gone(self._conn, archive)
        if found:
            raise LogDamaged(found, slices)
        raise error

    def _lied(self, archive: Archive, error: Exception, by: str) -> None:
        """Record that the store has not kept what it took.

        Raises:
            NotOwner: it is not the store any more: a folder was unmounted, say.
        """
        ownership.insist(self._store, archives.claim_of(self._conn), self._location)
        with self._conn.transaction():
            self.hold()
            archives.gone(self._conn, archive)
            incidents.detect(
                self._conn, "archive_damage", archive.segment, by=by,
                evidence={"file": archive.location, "found": str(error)},
            )  # fmt: skip

    def _remove(self, archive: Archive) -> None:
        """Remove a file of an attempt that came to nothing: only one of this claim, which was never verified."""
        if self.owns(archive) and archive.verified_at is None:
            self._store.remove(archive.location)

    def _forget(self, archive: Archive) -> None:
        """Remove what an attempt that came to nothing has left, and the row of it."""
        self._remove(archive)
        with self._conn.transaction():
            self.hold()
            archives.forget(self._conn, archive)

    def begin(self, segment: Segment) -> Archive:
        """Give the next file of a segment a name that no other attempt has, so that nothing is written over."""
        name = f"log/{self._claim.owner}/{segment.lower:015}-{segment.upper:015}.g{{}}.{secrets.token_hex(4)}.parquet"
        self._turn()
        with self._conn.transaction():
            self.hold()
            return archives.begin(self._conn, segment, name)

    def send(self, archive: Archive, spool: BinaryIO) -> Content:
        """Put a file that was begun into the store."""
        return self._store.put(archive.location, spool, self.beat)

    def abandon(self, purged: Archive) -> None:
        """Remove what interrupted attempts at another file of a purged segment have left."""
        for one in archives.find(self._conn, "a.lower_position = %s AND a.state = 'begun'", purged.lower_position):
            self._turn()
            self._forget(one)

    def hold(self) -> None:
        """Keep others from the archive until the caller's transaction ends.

        Raises:
            LeaseLost: another process has it.
        """
        archives.keep(self._conn, self._holder)

    def owns(self, archive: Archive) -> bool:
        """Return whether a file is of this claim: files of others are never removed."""
        return archive.location.startswith(f"log/{self._claim.owner}/")

    def withdraw(self, archive: Archive) -> None:
        """Remove a file of this claim that does not count any more, and see that the store has it no longer.

        Raises:
            StoreFailed: the store still has it.
        """
        assert self.owns(archive)
        self._turn()
        self._store.remove(archive.location)
        failpoint("erasure_removed")
        if self._store.size(archive.location) is not None:
            raise StoreFailed(f"{archive.location} was removed, and the store still has it")
        with self._conn.transaction():
            self.hold()
            archives.withdrawn(self._conn, archive)

    def _turn(self) -> None:
        self.hold()
        ownership.turn(self._conn, self._store, self._claim, self._location)

    def beat(self) -> None:
        """Give a sign of life now and then."""
        if time.monotonic() - self._beaten >= BEAT_S:
            self._beaten = time.monotonic()
            # A COPY may be running.
            if self._conn.info.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
                self.hold()


def read_back(
    conn: psycopg.Connection,
    store: Store,
    archive: Archive,
    sent: Content | None,
    beat: Callable[[], None],
    written: Written | None = None,
) -> tuple[Content, Contents]:
    """Return what a file holds: its size and SHA-256, and the checksums of its rows.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        store: the store.
        archive: what the manifest says of it.
        sent: what must come back; None: what the manifest says, if it does.
        beat: gives a sign of life.
        written: what rows were written, by this process; None if that is not known.

    Raises:
        Missing: the store does not have it.
        Differs: it has other bytes, or no rows of the log.
    """
    with _spool() as back:
        found = store.fetch(archive.location, back, beat)
        back.seek(0)
        insist_on_bytes(archive, found, sent)
        if written is not None and not archive.rewritten:
            # The same text is the same rows: a server that is given a row's text makes that row of it.
            if Rows(back, archive.location).texts() == written.texts:
                return found, written.contents
            back.seek(0)
        return found, thaw(conn, back, archive, beat)


@contextmanager
def _spool() -> Iterator[BinaryIO]:
    """A file of this host for a segment on its way.

    Raises:
        StoreFailed: the host has no room for it.
    """
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        raise StoreFailed(
            f"cannot write a file of this host: {error.strerror or error}",
            remedy=f"Make room in {tempfile.gettempdir()}, or set TMPDIR to a folder that has it.",
        ) from error


def insist_on_bytes(archive: Archive, found: Content, sent: Content | None = None) -> None:
    """Raise an error if a file is not what was sent, or what the manifest says."""
    if sent is None and archive.sha256 is not None and archive.size is not None:
        sent = Content(archive.size, archive.sha256)
    if sent is not None and found != sent:
        how = f"{found.size:,} bytes of {sent.size:,}" if found.size != sent.size else "as many bytes, and not the same"
        raise Differs(f"{archive.location} is not what was written: {how}")
