"""The archive after an erasure: each file with events of it is written again, and the former one removed.

The log holds what shall stand in the archive, so the next generation is written from there and proved as any file: read
back, and compared with the sealed checksums, which are those of before, less the erased events. Only then the former
file goes. This database must own the store; a copy leaves the files to their owner, and the proof says so.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field

import psycopg

from refold.engine.archive import ownership, records
from refold.engine.archive.failures import Missing, arrow
from refold.engine.archive.object_store import RemoteStore, Store, open_store
from refold.engine.archive.write import Archived, Writer, leased
from refold.engine.erasure import not_provable
from refold.errors import BuildError
from refold.model.event.exact_json import document
from refold.postgres.failpoints import failpoint
from refold.store import archives
from refold.store.archives import Archive
from refold.store.erasures import Erasure
from refold.store.schema.settings import read_settings

BY = "refold erase"
KEPT = "archive, files of other claims"
"""The place of files that hold the person and are not this database's to remove."""


@dataclass(slots=True)
class Rewritten:
    """What was done to the archive.

    Args:
        files: each former file with its successor, sizes and hashes.
        not_provable: what may hold the person still, and why.
        kept: files of other claims that hold the person still.
    """

    files: list[dict[str, object]] = field(default_factory=list)
    not_provable: list[str] = field(default_factory=list)
    kept: int = 0


def rewrite(conn: psycopg.Connection, erasure: Erasure) -> Rewritten:
    """Write files with events of an erasure again, and remove the former ones; return what was done.

    Killed anywhere, it does the rest when it is called again.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        erasure: the erasure, after the log.

    Raises:
        StoreFailed: the store does not answer, is not mounted, or still has what was removed.
        BuildError: another process writes the archive.
    """
    result = Rewritten()
    former = _former(conn, erasure)
    location = read_settings(conn).archive
    if location is None:
        result.not_provable += [f"{one.location} was written to an archive that is not set any more" for one in former]
        return result
    store = open_store(location)
    claim = archives.claim_of(conn)
    marker = ownership.marker_of(store)
    if marker is not None and not ownership.owned(claim, marker):
        result.not_provable.append(f"{location} belongs to another database: erase the person there too")
        return result
    with leased(conn, store, location) as writer:
        _write_again(conn, store, writer, former)
        for archive in former:
            result.files.append(_remove(conn, store, writer, archive, result))
        result.not_provable += [
            f"{one.location} does not count any more, and holds events of the person that the log has lost: remove it"
            " if nothing else of it is needed"
            for one in _lost(conn, store, erasure, {archive.location for archive in former})
        ]
    if former and isinstance(store, RemoteStore):
        result.not_provable += not_provable.versions(read_settings(conn))
    return result


def record(conn: psycopg.Connection, erasure: Erasure, content: dict[str, object]) -> None:
    """Put the record of an erasure into the archive's store, if this database owns one.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        erasure: the erasure.
        content: what a database needs that was restored from an older backup, and the proof.
    """
    location = read_settings(conn).archive
    if location is None:
        return
    store = open_store(location)
    if ownership.owned(archives.claim_of(conn), ownership.marker_of(store)):
        records.put(store, str(erasure.name), (document(content, str, indent=2) + "\n").encode())


def _former(conn: psycopg.Connection, erasure: Erasure) -> list[Archive]:
    """Return the files that hold events as they were before the erasure: none of them counts any more."""
    return archives.find(
        conn,
        "a.state IN ('replaced', 'gone') AND a.began_at <= %s::timestamptz AND EXISTS ("
        "SELECT FROM refold.erased_events AS x"
        " WHERE x.erasure_id = %s AND x.position >= a.lower_position AND x.position < a.upper_position)",
        erasure.evidence["erased_at"],
        erasure.erasure_id,
    )


def _write_again(conn: psycopg.Connection, store: Store, writer: Writer, former: list[Archive]) -> None:
    """See that each segment of former files has a proved one, made of what the log holds now."""
    done = Archived()
    writer.complete(done, BY)
    for archive in archives.unproved(conn):
        writer.settle(archive, done, BY)
    # A slice that a border cuts is proved together with the segment beside it.
    known = {one.lower_position for one in archives.find(conn, "a.state = 'replaced'")}
    # A file that was lost, so that it does not count, may be there again.
    known |= {one.lower_position for one in former if store.size(one.location) is not None}
    for segment in archives.due(conn, 0):
        if segment.lower in known:
            writer.archive(segment, done, BY)
            failpoint("erasure_file")


def _remove(
    conn: psycopg.Connection, store: Store, writer: Writer, archive: Archive, result: Rewritten
) -> dict[str, object]:
    """Remove a former file once another one is proved in its place, and return what is known of both."""
    current = archives.find(
        conn, "a.lower_position = %s AND a.proved_at IS NOT NULL AND a.state IN ('written', 'verified', 'purged')",
        archive.lower_position,
    )  # fmt: skip
    told: dict[str, object] = {
        "segment": archive.segment,
        "former": archive.location,
        "former_sha256": None if archive.sha256 is None else archive.sha256.hex(),
        "file": current[0].location if current else None,
        "sha256": current[0].sha256.hex() if current and current[0].sha256 else None,
        "events": current[0].events if current else None,
    }
    if store.size(archive.location) is None:
        return told | {"removed": True}
    if not current:
        raise BuildError(
            f"{archive.segment} has no other proved file yet, so {archive.location} stays for now",
            remedy="`refold archive status` shows what is in the way; workers go on with the erasure.",
        )
    if not writer.owns(archive):
        result.not_provable.append(
            f"{archive.location} is of another claim, whose files this database never removes: if no other database"
            " needs it, remove it"
        )
        result.kept += 1
        return told | {"removed": False}
    writer.withdraw(archive)
    return told | {"removed": True}


def _lost(conn: psycopg.Connection, store: Store, erasure: Erasure, known: set[str]) -> list[Archive]:
    """Return other files that do not count any more and hold the person: the log may have lost the events."""
    return [
        one
        for one in archives.find(conn, "a.state = 'replaced'")
        if one.location not in known
        and conn.execute(
            "SELECT FROM unnest(%s::text[]) AS u WHERE refold.erasure_mac(u) = %s LIMIT 1",
            (_users(store, one), erasure.subject),
        ).rowcount
    ]


def _users(store: Store, archive: Archive) -> list[str]:
    """Return the user ids of a file, from that column alone; none if the store does not have it."""
    with tempfile.TemporaryFile() as file:
        try:
            store.fetch(archive.location, file, lambda: None)
        except Missing:
            return []
        file.seek(0)
        column = arrow("pyarrow.parquet").ParquetFile(file).read(columns=["user_id"])["user_id"]
        return [one for one in column.unique().to_pylist() if one is not None]
