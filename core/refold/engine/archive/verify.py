"""Verifying the archive: whether the store still has what was written. It writes nothing there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from refold.engine.archive import ownership
from refold.engine.archive.failures import Differs, Missing, NotOwner
from refold.engine.archive.object_store import Content, Store, open_store
from refold.engine.archive.write import NOT_SET, SET_IT, insist_on_bytes, read_back
from refold.errors import InputError
from refold.store import archives, incidents
from refold.store.archives import Archive
from refold.store.log.seal import agree
from refold.store.schema.settings import read_settings


@dataclass(frozen=True, slots=True)
class Wrong:
    """A file that is not what was written.

    Args:
        segment: the segment that it holds.
        location: its name in the store.
        found: what is wrong.
    """

    segment: str
    location: str
    found: str


@dataclass(slots=True)
class Verified:
    """The result of a verification.

    Args:
        files: number of files that were compared.
        events: events in them.
        bytes: their size.
        wrong: files that are not what was written.
        lacking: segments that were found damaged before, and have no file that counts since then.
        strangers: files of this claim that the manifest does not know, with their sizes; a copy of the database, or
            its original, may.
    """

    files: int = 0
    events: int = 0
    bytes: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    strangers: dict[str, int] = field(default_factory=dict)


class _Digest:
    """A file that keeps nothing."""

    def write(self, part: bytes) -> int:
        return len(part)


def verify(
    conn: psycopg.Connection,
    *,
    by: str,
    deep: bool = False,
    only: Sequence[Archive] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verified:
    """Compare files of the archive with what was written, and record those that are not: they count for nothing.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        by: duty or command, for incidents.
        deep: compare all rows with the checksums of their slices, besides size and SHA-256 of the file.
        only: these files; by default all that are proved.
        progress: called with the number of compared files, and of all.

    Raises:
        InputError: no archive is set.
        StoreFailed: the store does not answer, or is not the one that the files were written to.
    """
    location = read_settings(conn).archive
    if location is None:
        raise InputError(NOT_SET, remedy=SET_IT)
    store = open_store(location)
    _insist_on_marker(store, location)
    files = archives.proved_ones(conn) if only is None else only
    result = Verified()
    for number, archive in enumerate(files):
        progress(number, len(files))
        try:
            _compare(conn, store, archive, deep=deep)
        except Missing:
            _insist_on_marker(store, location)
            _record(conn, archive, "the store has no such file", result, by)
        except Differs as differs:
            _record(conn, archive, str(differs), result, by)
        else:
            archives.checked(conn, archive)
            incidents.resolve(conn, "archive_damage", archive.segment, by=by, outcome={"verified": archive.location})
        result.files += 1
        result.events += archive.events or 0
        result.bytes += archive.size or 0
    if only is None:
        damaged = {one.subject for one in incidents.open_incidents(conn, "archive_damage")}
        result.lacking = sorted(damaged - {one.segment for one in result.wrong})
    claim = archives.claim_of(conn)
    if only is None and claim is not None:
        known = {one.location for one in archives.find(conn)}
        found = store.names(f"log/{claim.owner}")
        result.strangers = {name: size for name, size in found.items() if name not in known}
    progress(len(files), len(files))
    return result


def _insist_on_marker(store: Store, location: str) -> None:
    """Raise an error if this is no store: a folder that is not mounted has lost nothing."""
    if ownership.marker_of(store) is None:
        raise NotOwner(
            f"{location} has no {ownership.MARKER}: it is empty, not mounted, or another folder",
            remedy="Bring the store back.",
        )


def _compare(conn: psycopg.Connection, store: Store, archive: Archive, *, deep: bool) -> None:
    if not deep:
        size = store.size(archive.location)
        if size is not None and size != archive.size:
            insist_on_bytes(archive, Content(size, hashlib.sha256().digest()))
        insist_on_bytes(archive, store.fetch(archive.location, _Digest(), lambda: None))  # type: ignore[arg-type]
        return
    _, thawed = read_back(conn, store, archive, None, lambda: None)
    kept = archives.slices_of(conn, archive)
    differ = [one for one in thawed.slices.keys() | kept.keys() if not agree(thawed.slices.get(one), kept.get(one))]
    if differ:
        raise Differs(f"{archive.location}: rows of {len(differ)} slices are not those that were proved", tuple(differ))


def _record(conn: psycopg.Connection, archive: Archive, found: str, result: Verified, by: str) -> None:
    result.wrong.append(Wrong(archive.segment, archive.location, found))
    with conn.transaction():
        archives.gone(conn, archive)
        incidents.detect(
            conn, "archive_damage", archive.segment, by=by, evidence={"file": archive.location, "found": found}
        )
