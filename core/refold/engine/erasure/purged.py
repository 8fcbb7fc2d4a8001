"""A person in purged segments: the archive alone has these events, so their files are searched.

A search reads the column of user ids, and that of metadata if events of others name the person, of every such file,
after its bytes were compared with what was proved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg

from refold.engine.archive.parquet import Rows
from refold.engine.archive.sources import Sources, purged
from refold.model.erasure import TOKEN, Person
from refold.store.erasures import new_id

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


@dataclass(frozen=True, slots=True)
class Recognised:
    """A purged event whose id an erasure of another database names.

    Args:
        position: where it stood in the log.
        event_id: the id that it has in the file.
        mac: HMAC of the id that it had.
        values: the user id, and what the fields of the erasure hold, where these are the person's; None: they are not.
        token: what stands in the place of the person, if the file was written again.
    """

    position: int
    event_id: str
    mac: bytes
    values: tuple[str | None, ...]
    token: str | None

    @property
    def changed(self) -> bool:
        """Whether nothing in the file says who the person is."""
        return not any(self.values)


def recognised(conn: psycopg.Connection, record: Mapping[str, Any]) -> list[Recognised]:
    """Return the purged events that an erasure of another database concerns, in order.

    Args:
        conn: acts as refold_worker.
        record: the erasure, as `refold.engine.erasure.again` exports it.

    Raises:
        Unreadable: the archive does not have purged events as it was proved to.
    """
    macs = [bytes.fromhex(mac) for mac, _, _ in record["events"]]
    new = conn.execute(f"SELECT {new_id('m.mac')} FROM unnest(%s::bytea[]) AS m (mac)".encode(), (macs,)).fetchall()
    known = {"macs": macs, "new": [event_id for (event_id,) in new]}
    wanted = known | {
        "subject": bytes.fromhex(record["subject"]),
        "fields": record["fields"],
        "values": [bytes.fromhex(mac) for mac in record["macs"]],
        "token": f"{TOKEN}%",
    }
    found: list[Recognised] = []
    with closing(Sources()) as sources:
        for archive in purged(conn):
            with sources.file(conn, archive) as file:
                rows = Rows(file, archive.location)
                positions = [
                    position
                    for portion, ids in rows.ids()
                    for (position,) in conn.execute(_KNOWN, known | {"positions": portion, "ids": ids}).fetchall()
                ]
                for of_positions, ids, users, metadata in rows.at(positions):
                    given = {"positions": of_positions, "ids": ids, "users": users, "metadata": metadata}
                    for position, event_id, mac, values, token in conn.execute(_WHOSE, wanted | given).fetchall():
                        found.append(Recognised(position, event_id, mac, tuple(values), token))
    return sorted(found, key=lambda one: one.position)


_OF_RECORD = """(
        SELECT n.mac, n.event_id
        FROM (
            SELECT refold.erasure_mac(i.event_id) AS mac, i.event_id FROM unnest(%(ids)s::text[]) AS i (event_id)
            UNION ALL SELECT m.mac, m.event_id FROM unnest(%(macs)s::bytea[], %(new)s::text[]) AS m (mac, event_id)
        ) AS n
        WHERE n.mac = ANY (%(macs)s::bytea[])
    )"""
"""The ids by which a record knows events, as they were and, where they held the person, as they are."""
_KNOWN = f"""
    SELECT e.position FROM unnest(%(positions)s::bigint[], %(ids)s::text[]) AS e (position, event_id)
    WHERE e.event_id IN (SELECT k.event_id FROM {_OF_RECORD} AS k)
""".encode()
_WHOSE = f"""
    SELECT e.position, e.event_id, k.mac,
           CASE WHEN refold.erasure_mac(e.user_id) = %(subject)s THEN e.user_id END || ARRAY(
               SELECT CASE WHEN refold.erasure_mac(e.metadata::jsonb ->> u.field) = u.mac
                           THEN e.metadata::jsonb ->> u.field END
               FROM unnest(%(fields)s::text[], %(values)s::bytea[]) WITH ORDINALITY AS u (field, mac, at) ORDER BY at),
           CASE WHEN e.user_id LIKE %(token)s THEN e.user_id END
    FROM unnest(%(positions)s::bigint[], %(ids)s::text[], %(users)s::text[], %(metadata)s::text[])
        AS e (position, event_id, user_id, metadata)
    JOIN {_OF_RECORD} AS k USING (event_id)
""".encode()


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
