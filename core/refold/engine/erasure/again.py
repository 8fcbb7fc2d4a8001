"""Erasures that are done again, in a database that was restored from a backup from before them.

An export names nobody: it has HMACs of user ids and event ids under a key that is in every backup. So a restored
database finds the events, and the events say who the person is, for the search of all other places.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from pydantic import BaseModel, ConfigDict, ValidationError

from refold.errors import InputError
from refold.store import erasures
from refold.store.erasures import Erasure, Mode

NOT_SEARCHED = (
    "This database was restored, and its log has no event of the person: refold's own tables could not be searched by"
    " name. Erase the person by name once more, if the backup may hold input of the person that was rejected."
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    subject: str
    mode: Mode
    fields: list[str]
    macs: list[str]
    keeps: list[str]
    reason: str
    requested_by: str
    requested_at: str
    events: list[tuple[str, bool, bool]]


class _Export(BaseModel):
    model_config = ConfigDict(frozen=True)

    refold_erasures: int
    key: str
    erasures: list[_Record]


def export(conn: psycopg.Connection, chosen: Iterable[Erasure] | None = None) -> dict[str, Any]:
    """Return erasures as JSON that another database can apply.

    Args:
        conn: acts as refold_worker.
        chosen: the erasures; all by default.
    """
    found = erasures.find(conn) if chosen is None else chosen
    return {"refold_erasures": 1, "key": _key(conn), "erasures": [_record(conn, one) for one in found]}


def has_key(conn: psycopg.Connection, content: Mapping[str, Any]) -> bool:
    """Return whether an export was made with the key of this database."""
    return content.get("key") == _key(conn)


def insist_on_export(conn: psycopg.Connection, content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the erasures of an export.

    Raises:
        InputError: it is none, or was made with another key.
    """
    try:
        found = _Export.model_validate(content)
    except ValidationError as error:
        raise InputError(
            "this is no export of erasures", remedy="`refold erase export > FILE` makes one, in the other database."
        ) from error
    if found.refold_erasures != 1:
        raise InputError("a newer refold made this export", remedy="Use that version.")
    if not has_key(conn, content):
        raise InputError(
            "this export has another key: the backup is from before refold could erase, or of another database",
            remedy="Erase the people by name once more: `refold erase USER`.",
        )
    return [one.model_dump() for one in found.erasures]


def parsed(content: bytes | str) -> Mapping[str, Any]:
    """Return the JSON object of an export.

    Raises:
        InputError: it is none.
    """
    try:
        found = json.loads(content)
    except ValueError as error:
        raise InputError(
            "this is no export of erasures: it is no JSON", remedy="Give the file of an export."
        ) from error
    return found if isinstance(found, dict) else {}


def _record(conn: psycopg.Connection, erasure: Erasure) -> dict[str, Any]:
    events = conn.execute(
        # Ids of events that a restored database did not have are marked, so that they are refused there.
        "SELECT encode(mac, 'hex'), mention, renamed AND position > 0 FROM refold.erased_events"
        " WHERE erasure_id = %s ORDER BY position",
        (erasure.erasure_id,),
    ).fetchall()
    return {
        "name": str(erasure.name),
        "subject": erasure.subject.hex(),
        "mode": erasure.mode,
        "fields": erasure.fields,
        "macs": [mac.hex() for mac in erasure.macs],
        "keeps": erasure.keeps,
        "reason": erasure.reason,
        "requested_by": erasure.requested_by,
        "requested_at": erasure.requested_at.isoformat(),
        "events": [list(row) for row in events],
    }


def _key(conn: psycopg.Connection) -> str:
    """Return what tells the key from others, and does not help to find it."""
    return erasures.mac(conn, "refold erasures").hex()
