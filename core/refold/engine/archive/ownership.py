"""Whose a store is: its marker names the owner, and the newest turn of the owner.

Physical copies of a database, clones and restores to a point in time have all that the original has, its name for
itself too. So the owner takes a turn with every file: the store then holds a turn that no copy from before knows, and
the copy only reads. If the copy writes first, the original finds that out. Either way nothing is written over: a person
says who shall go on (`refold archive claim`), and the files of each claim have names of their own.
"""

from __future__ import annotations

import secrets

import psycopg
from pydantic import BaseModel, ConfigDict, ValidationError

from refold.engine.archive.failures import NotOwner
from refold.engine.archive.object_store import Store
from refold.postgres.failpoints import failpoint
from refold.postgres.rows import one_row
from refold.store import archives
from refold.store.archives import Claim

MARKER = "_refold_archive.json"
"""Name of the file that says whose the store is."""


class Marker(BaseModel):
    """What the file holds.

    Args:
        refold: version of this form.
        owner: the claim that owns the store.
        turn: the owner's newest turn.
        database: name of the database that claimed it.
        system_identifier: of the server.
    """

    model_config = ConfigDict(frozen=True)

    refold: int = 1
    owner: str
    turn: str
    database: str
    system_identifier: int


def marker_of(store: Store) -> Marker | None:
    """Return the marker of a store; None if it has none.

    Raises:
        NotOwner: a newer refold wrote it, or something else.
    """
    content = store.read(MARKER)
    if content is None:
        return None
    try:
        marker = Marker.model_validate_json(content)
    except ValidationError:
        marker = None
    if marker is None or marker.refold != 1:
        raise NotOwner(
            f"{MARKER} was not written by this version of refold", remedy="Use that version, or another store."
        )
    return marker


def insist(store: Store, claim: Claim | None, location: str) -> None:
    """Raise an error unless this database owns a store.

    Args:
        store: the store.
        claim: what this database has claimed.
        location: the store in `refold.settings`.

    Raises:
        NotOwner: it does not.
    """
    if claim is None or claim.location != location:
        raise NotOwner(f"this database has not claimed {location}", remedy=f"`refold archive claim {location}`.")
    marker = marker_of(store)
    if marker is None:
        raise NotOwner(
            f"{location} has no {MARKER}: it is empty, not mounted, or another folder",
            remedy="Bring the store back. If it is lost: `refold archive claim` begins again there.",
        )
    if marker.owner != claim.owner or marker.turn not in claim.turns:
        whose = "a copy of this database, or its original" if marker.owner == claim.owner else marker.database
        raise NotOwner(
            f"{location} belongs to {whose}: this database only reads it",
            remedy="If this database is a copy, give it a store of its own. If it takes over: `refold archive claim`.",
        )


def turn(conn: psycopg.Connection, store: Store, claim: Claim, location: str) -> None:
    """See that this database owns the store, and take a turn, so that no copy of the database does any more.

    Args:
        conn: acts as refold_worker, in autocommit mode; holds the lease.
        store: the store.
        claim: what this database has claimed.
        location: the store in `refold.settings`.

    Raises:
        NotOwner: it does not own it.
    """
    claim = archives.claim_of(conn) or claim
    insist(store, claim, location)
    new = secrets.token_hex(8)
    archives.turning(conn, new)
    failpoint("archive_turning")
    store.replace(MARKER, _marker(conn, claim.owner, new))
    failpoint("archive_turned")
    archives.turned(conn, new)


def claim(conn: psycopg.Connection, store: Store, location: str) -> str:
    """Make this database the owner of a store, whoever owned it before; return the name of the claim.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        store: the store.
        location: its address.

    Raises:
        NotOwner: the present store alone has events that were purged from the log.
        StoreFailed: the store cannot be written to; nothing is claimed.
    """
    owner, first = secrets.token_hex(8), secrets.token_hex(8)
    refuse_to_leave(conn, store, location)
    before = archives.claim_of(conn)
    # At once: a store that cannot be written to is not claimed.
    with conn.transaction():
        if before is not None and before.location != location:
            _move(conn, store)
        conn.execute("SET LOCAL ROLE refold_owner")
        archives.put_claim(conn, location, owner, first)
        store.replace(MARKER, _marker(conn, owner, first))
    return owner


def refuse_to_leave(conn: psycopg.Connection, store: Store, location: str) -> None:
    """Raise an error if the present store alone has events that were purged from the log.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        store: the store that shall be claimed.
        location: its address.

    Raises:
        NotOwner: it has.
    """
    before = archives.claim_of(conn)
    if before is None or before.location == location:
        return
    left = [one.location for one in archives.find(conn, "a.state = 'purged'") if store.size(one.location) != one.size]
    if left:
        raise NotOwner(
            f"{len(left):,} files with events that were purged from the log are not in this store: {left[0]}",
            remedy="Copy them from the present store, under the same names, and run this command again.",
        )


def _move(conn: psycopg.Connection, store: Store) -> None:
    """Let no file count that another store has; those that were copied to this one are read back again."""
    for one in archives.find(conn, "a.state IN ('begun', 'written', 'verified')"):
        copied = one.sha256 is not None and store.size(one.location) is not None
        with conn.transaction():
            archives.doubt(conn, one) if copied else archives.replaced(conn, one)


def owned(claim: Claim | None, marker: Marker | None) -> bool:
    """Return whether a marker is of the claim of this database. Pure."""
    return claim is not None and marker is not None and marker.owner == claim.owner and marker.turn in claim.turns


def _marker(conn: psycopg.Connection, owner: str, turn: str) -> bytes:
    identifier, database = one_row(conn, "SELECT system_identifier, current_database()::text FROM pg_control_system()")
    marker = Marker(owner=owner, turn=turn, database=database, system_identifier=identifier)
    return (marker.model_dump_json(indent=2) + "\n").encode()
