"""A person in purged segments: the archive alone has these events, so their files are searched.

A search reads the column of user ids, and that of metadata if events of others name the person, of every such file,
after its bytes were compared with what was proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import psycopg

from refold.engine.archive.parquet import Rows
from refold.engine.archive.sources import Sources, purged
from refold.model.erasure import Person

PLACE = "archive, purged"
"""How the count of these events is called beside those of tables."""


@dataclass(frozen=True, slots=True)
class Held:
    """An event of a purged segment that holds a person.

    Args:
        position: where it stood in the log.
        event_id: its id.
        mention: whether it is another's event that names the person.
    """

    position: int
    event_id: str
    mention: bool


def search(conn: psycopg.Connection, person: Person) -> list[Held]:
    """Return the purged events that are a person's or name the person, in order.

    Args:
        conn: acts as refold_worker.
        person: the person.

    Raises:
        Unreadable: the archive does not have purged events as it was proved to.
    """
    found: list[Held] = []
    with closing(Sources()) as sources:
        for archive in purged(conn):
            with sources.file(conn, archive) as file:
                signs = person.signs if person.also else ()
                rows = list(Rows(file, archive.location).of_user(person.user_id, signs))
            found += [Held(position, event_id, False) for position, event_id, own, _ in rows if own]
            found += _mentions(conn, person, [row for row in rows if not row[2]])
    return sorted(found, key=lambda one: one.position)


def recognised(conn: psycopg.Connection, macs: Sequence[bytes]) -> list[Held]:
    """Return the purged events whose ids have certain HMACs, in order; whose they are is not asked.

    Args:
        conn: acts as refold_worker.
        macs: the HMACs, under this database's key.

    Raises:
        Unreadable: the archive does not have purged events as it was proved to.
    """
    found: list[Held] = []
    query = (
        "SELECT e.position, e.event_id FROM unnest(%s::bigint[], %s::text[]) AS e (position, event_id)"
        " WHERE refold.erasure_mac(e.event_id) = ANY (%s)"
    )
    with closing(Sources()) as sources:
        for archive in purged(conn):
            with sources.file(conn, archive) as file:
                for positions, ids in Rows(file, archive.location).ids():
                    rows = conn.execute(query, (positions, ids, list(macs))).fetchall()
                    found += [Held(int(position), event_id, False) for position, event_id in rows]
    return sorted(found, key=lambda one: one.position)


def _mentions(
    conn: psycopg.Connection, person: Person, rows: Sequence[tuple[int, str, bool, str | None]]
) -> list[Held]:
    """Return the rows in whose metadata a field is the person; the database decides, as it does for the log."""
    named = conn.execute(
        """
        SELECT e.position, e.event_id
        FROM unnest(%(positions)s::bigint[], %(ids)s::text[], %(metadata)s::text[]) AS e (position, event_id, metadata)
        WHERE EXISTS (SELECT FROM unnest(%(fields)s::text[], %(values)s::text[]) AS u (field, value)
                      WHERE e.metadata::jsonb ->> u.field = u.value)
        """,
        {
            "positions": [row[0] for row in rows],
            "ids": [row[1] for row in rows],
            "metadata": [row[3] for row in rows],
            "fields": [name for name, _ in person.also],
            "values": [value for _, value in person.also],
        },
    ).fetchall()
    return [Held(int(position), event_id, True) for position, event_id in named]
