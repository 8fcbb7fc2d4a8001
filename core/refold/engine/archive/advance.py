"""The manifest of a database that was restored from an older backup, brought up to what the store has.

Since the backup, segments may have been archived that the manifest does not know, and files may have been written anew
as another generation and the former ones removed. Files are known by their names: those of other claims than this
database ever had are not touched.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psycopg

from refold.engine.archive import ownership, records
from refold.engine.archive.failures import NotOwner, StoreFailed
from refold.engine.archive.object_store import Store, open_store
from refold.engine.archive.write import read_back
from refold.store import archives, incidents
from refold.store.archives import Archive
from refold.store.builds.build import based
from refold.store.log.seal import move
from refold.store.schema.settings import read_settings

_NAME = re.compile(r"log/(?P<owner>[^/]+)/(?P<lower>\d{15})-(?P<upper>\d{15})\.g(?P<generation>\d+)\.\w+\.parquet")


@dataclass(slots=True)
class Advanced:
    """What the store has that the manifest did not know, or the other way round.

    Args:
        gone: files of the manifest that the store does not have any more.
        found: files that the manifest did not know, of segments that stand in the log; they are read back with the
            next run of the archive.
        taken: files that have taken the place of others, of purged segments.
        strangers: files of segments that this database does not have, or has another file of: events from after the
            backup.
        lost: purged segments of which the store has no file that is as it was proved.
        failed: why the store could not be asked.
    """

    gone: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    failed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict, for JSON and for the incident."""
        return asdict(self)


def advance(conn: psycopg.Connection, *, by: str) -> Advanced:
    """Bring the manifest up to what the store has. It writes nothing there.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        by: name of the command, for incidents.
    """
    result = Advanced()
    location = read_settings(conn).archive
    if location is None:
        return result
    try:
        store = open_store(location)
        if ownership.marker_of(store) is None:
            raise NotOwner(f"{location} has no {ownership.MARKER}: it is empty, not mounted, or another folder")
        _advance(conn, store, result, by)
    except StoreFailed as error:
        # What is in the database is right without the store; `refold archive verify` tells the rest when it answers.
        result.failed = str(error)
    return result


def _advance(conn: psycopg.Connection, store: Store, result: Advanced, by: str) -> None:
    names = store.names("log")
    known = archives.find(conn)
    for one in known:
        if one.state not in ("replaced", "gone") and one.location not in names:
            result.gone.append(one.location)
    owners = {match["owner"] for one in known if (match := _NAME.fullmatch(one.location))}
    claim = archives.claim_of(conn)
    if claim is not None:
        owners.add(claim.owner)
    strangers: dict[tuple[int, int], list[tuple[int, str]]] = {}
    for name in sorted(names.keys() - {one.location for one in known}):
        match = _NAME.fullmatch(name)
        if match is not None and match["owner"] in owners:
            span = int(match["lower"]), int(match["upper"])
            strangers.setdefault(span, []).append((int(match["generation"]), name))
    for one in known:
        if one.location in result.gone and one.state != "purged":
            with conn.transaction():
                archives.gone(conn, one)
        elif one.location in result.gone:
            newer = strangers.pop((one.lower_position, one.upper_position), [])
            taken = next((name for _, name in sorted(newer, reverse=True) if _takes(conn, store, one, name, by)), None)
            if taken is None:
                result.lost.append(one.segment)
                _lost(conn, one, by)
            else:
                result.taken.append(taken)
    current = {one.lower_position for one in archives.find(conn, "a.state NOT IN ('replaced', 'gone')")}
    standing = set(conn.execute("SELECT lower_position, upper_position FROM refold.segments").fetchall())
    for span, files in strangers.items():
        generation, name = max(files)
        if span in standing and span[0] not in current:
            with conn.transaction():
                archives.adopt(conn, *span, generation, name)
            result.found.append(name)
            files = [one for one in files if one[1] != name]
        result.strangers += [name for _, name in files]


def _takes(conn: psycopg.Connection, store: Store, former: Archive, name: str, by: str) -> bool:
    """Let a file take the place of one with purged events, if it has the same events in each slice.

    Their content may differ: what was erased is not in it any more. Their ids may not, unless the record of an erasure
    says that it put this file in the place of the other.
    """
    kept = archives.slices_of(conn, former)
    # Nothing is known of its bytes yet.
    unread = replace(former, location=name, size=None, sha256=None)
    try:
        content, thawed = read_back(conn, store, unread, None, lambda: None)
    except StoreFailed:
        return False
    same = {number: (one.events, one.ids) for number, one in thawed.slices.items()}
    if same != {number: (one.events, one.ids) for number, one in kept.items()} and (
        former.sha256 is None or content.sha256 not in records.successors(store, former.sha256)
    ):
        return False
    with conn.transaction():
        archives.succeed(
            conn, former, archives.begin(conn, former.partition, name), content.size, content.sha256, thawed.slices,
            thawed.first_ts, thawed.last_ts, ended="gone",
        )  # fmt: skip
        conn.execute("SET LOCAL ROLE refold_owner")
        move(conn, kept, thawed.slices)
        conn.execute("SET LOCAL ROLE refold_worker")
        for build in based(conn):
            # Until it is healed from this file.
            incidents.detect(conn, "drift", build.projection, by=by, evidence={"file": name})
    return True


def _lost(conn: psycopg.Connection, archive: Archive, by: str) -> None:
    with conn.transaction():
        incidents.detect(
            conn, "archive_damage", archive.segment, by=by,
            evidence={"file": archive.location, "found": "the store has no such file, and its events were purged"},
        )  # fmt: skip
