"""Erasures of people: `refold.erasures`, and `refold.erased_events`, by which an erased event is known again.

Neither holds a person: they know user ids, values and event ids by their HMACs under `refold.erasure_key`. While an
erasure runs, the log says who the person is: an event of it, the witness, is changed last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from refold.model.erasure import TOKEN, Person
from refold.postgres.rows import one_row

Mode = Literal["anonymise", "delete"]
Step = Literal["log", "archive", "vacuum", "proof", "done"]


@dataclass(frozen=True, slots=True)
class Erasure:
    """A row of `refold.erasures`.

    Args:
        erasure_id: its number in this database.
        name: names it in every database, export and store.
        subject: HMAC of the user id.
        mode: whether events of the person stay, without the person.
        fields: fields of metadata in which events of others name the person.
        macs: HMACs of what these fields hold then.
        keeps: fields of the person's metadata that stay.
        reason: why, in words of who asked.
        requested_by: login that asked.
        requested_at: when, UTC.
        step: what is done next.
        finished_at: when it was proved, UTC; None: it is not finished.
        evidence: what was found and done.
    """

    erasure_id: int
    name: UUID
    subject: bytes
    mode: Mode
    fields: list[str]
    macs: list[bytes]
    keeps: list[str]
    reason: str
    requested_by: str
    requested_at: datetime
    step: Step
    finished_at: datetime | None
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """An event that an erasure concerns.

    Args:
        position: where it stands in the log.
        mention: whether it is another's event that names the person.
        renamed: whether its id holds the person.
    """

    position: int
    mention: bool
    renamed: bool


_COLUMNS = ", ".join(Erasure.__dataclass_fields__)


def find(conn: psycopg.Connection, condition: str = "true", *parameters: object) -> list[Erasure]:
    """Return the erasures that satisfy an SQL condition over `refold.erasures`, oldest first."""
    with conn.cursor(row_factory=class_row(Erasure)) as cursor:
        query = f"SELECT {_COLUMNS} FROM refold.erasures WHERE {condition} ORDER BY erasure_id"
        return cursor.execute(query.encode(), parameters).fetchall()


def by_id(conn: psycopg.Connection, erasure_id: int) -> Erasure:
    """Return an erasure by its number."""
    return find(conn, "erasure_id = %s", erasure_id)[0]


def unfinished(conn: psycopg.Connection) -> list[Erasure]:
    """Return the erasures that have begun and are not proved."""
    return find(conn, "finished_at IS NULL")


def steps_left(conn: psycopg.Connection, *, for_hours: int = 0) -> dict[int, str]:
    """Return the next step of each erasure that is not proved, by number; an observer may ask.

    Args:
        conn: acts as one of `READERS`.
        for_hours: only those that were asked for so long ago.
    """
    rows = conn.execute(
        "SELECT erasure_id, step FROM refold.erasures WHERE finished_at IS NULL"
        " AND requested_at <= clock_timestamp() - make_interval(hours => %s) ORDER BY erasure_id",
        (for_hours,),
    )
    return dict(rows.fetchall())


def mac(conn: psycopg.Connection, what: str) -> bytes:
    """Return the HMAC of a user id, a value or an event id."""
    return bytes(one_row(conn, "SELECT refold.erasure_mac(%s)", (what,))[0])


def new_id(mac: str) -> str:
    """Return the SQL of what stands in the place of an event id that holds a person.

    It is the same in every database with this key, and does not say without the key which HMAC it was made of.

    Args:
        mac: SQL of the HMAC of the id.
    """
    return f"'{TOKEN}' || left(encode(refold.erasure_mac(encode({mac}, 'hex')), 'hex'), 32)"


def new_ids(conn: psycopg.Connection, ids: Sequence[str]) -> dict[str, str]:
    """Return what stands in the place of event ids that hold a person, by these."""
    query = f"SELECT u.id, {new_id('refold.erasure_mac(u.id)')} FROM unnest(%s::text[]) AS u (id)"
    return dict(conn.execute(query.encode(), (list(ids),)).fetchall())


def former_ids(conn: psycopg.Connection, erasure: Erasure, macs: Sequence[bytes]) -> dict[str, str]:
    """Return ids of the ledger whose events an erasure does not find any more, and what stands in their place.

    Args:
        conn: acts as refold_owner.
        erasure: the erasure, begun again.
        macs: HMACs of ids that hold the person.
    """
    return dict(
        conn.execute(
            f"""
            SELECT k.event_id, {new_id("u.mac")}
            FROM refold.event_ids AS k JOIN unnest(%s::bytea[]) AS u (mac) ON u.mac = refold.erasure_mac(k.event_id)
            WHERE NOT EXISTS (
                SELECT FROM refold.erased_events AS x WHERE x.erasure_id = %s AND x.mac = u.mac AND NOT x.done)
            """.encode(),
            (list(macs), erasure.erasure_id),
        ).fetchall()
    )


_PERSON = """
    (e.user_id = %(user)s OR EXISTS (
        SELECT FROM unnest(%(fields)s::text[], %(values)s::text[]) AS u (field, value)
        WHERE e.metadata ->> u.field = u.value))
"""
_HELD = "EXISTS (SELECT FROM unnest(%(all)s::text[]) AS v WHERE strpos(e.event_id, v) > 0)"


def parameters(person: Person) -> dict[str, Any]:
    """Return the parameters by which statements find the events of a person."""
    return {
        "user": person.user_id,
        "fields": [name for name, _ in person.also],
        "values": [value for _, value in person.also],
        "all": list(person.values),
    }


def count(conn: psycopg.Connection, person: Person) -> tuple[int, int]:
    """Return how many events are the person's, and how many of others name the person."""
    row = one_row(
        conn,
        f"SELECT count(*) FILTER (WHERE user_id = %(user)s), count(*) FROM refold.events AS e WHERE {_PERSON}".encode(),
        parameters(person),
    )
    return int(row[0]), int(row[1]) - int(row[0])


def begin(
    conn: psycopg.Connection,
    person: Person,
    mode: Mode,
    keeps: Sequence[str],
    reason: str,
    name: UUID | None = None,
    purged: Sequence[tuple[int, str, bool]] = (),
) -> Erasure:
    """Add an erasure, and the events that it concerns.

    Args:
        conn: acts as refold_owner; the caller's transaction.
        person: the person.
        mode: what becomes of the person's events.
        keeps: fields of metadata that stay.
        reason: why.
        name: its name, if it was done in another database before.
        purged: position and id of each purged event that it concerns, and whether that is another's.
    """
    (erasure_id,) = one_row(
        conn,
        """
        INSERT INTO refold.erasures (name, subject, mode, fields, macs, keeps, reason)
        SELECT coalesce(%(name)s, gen_random_uuid()), refold.erasure_mac(%(user)s), %(mode)s, %(fields)s::text[],
               ARRAY(SELECT refold.erasure_mac(v) FROM unnest(%(values)s::text[]) WITH ORDINALITY AS u (v, at)
                     ORDER BY at),
               %(keeps)s::text[], %(reason)s
        RETURNING erasure_id
        """,
        parameters(person) | {"mode": mode, "keeps": list(keeps), "reason": reason, "name": name},
    )
    conn.execute(
        f"""
        INSERT INTO refold.erased_events (erasure_id, position, mac, mention, renamed)
        SELECT %(erasure)s, e.position, refold.erasure_mac(e.event_id), e.user_id IS DISTINCT FROM %(user)s, {_HELD}
        FROM refold.events AS e WHERE {_PERSON}
        """.encode(),
        parameters(person) | {"erasure": erasure_id},
    )
    conn.execute(
        f"""
        INSERT INTO refold.erased_events (erasure_id, position, mac, mention, renamed)
        SELECT %(erasure)s, e.position, refold.erasure_mac(e.event_id), e.mention, {_HELD}
        FROM unnest(%(positions)s::bigint[], %(ids)s::text[], %(mentions)s::boolean[])
            AS e (position, event_id, mention)
        """.encode(),
        parameters(person)
        | {
            "erasure": erasure_id,
            "positions": [one[0] for one in purged],
            "ids": [one[1] for one in purged],
            "mentions": [one[2] for one in purged],
        },
    )
    choose_witnesses(conn, erasure_id)
    return by_id(conn, erasure_id)


def begin_again(
    conn: psycopg.Connection, record: Mapping[str, Any], purged: Sequence[tuple[int, bytes, bool]] = ()
) -> Erasure:
    """Add an erasure of another database, and the events that it concerns here, found by the HMACs of their ids.

    Ids of events that this database does not have are refused from now on, too.

    Args:
        conn: acts as refold_owner; the caller's transaction.
        record: the erasure, as `refold.engine.erasure.again` exports it.
        purged: position of each purged event that it concerns, the HMAC of the id that it had, and whether the event
            has been changed.
    """
    events = record["events"]
    known = {
        **{
            name: record[name] for name in ("name", "mode", "fields", "keeps", "reason", "requested_by", "requested_at")
        },
        "subject": bytes.fromhex(record["subject"]),
        "field_macs": [bytes.fromhex(one) for one in record["macs"]],
        "macs": [bytes.fromhex(mac) for mac, _, _ in events],
        "mentions": [mention for _, mention, _ in events],
        "held": [held for _, _, held in events],
    }
    (erasure_id,) = one_row(
        conn,
        """
        INSERT INTO refold.erasures (name, subject, mode, fields, macs, keeps, reason, requested_by, requested_at)
        VALUES (%(name)s, %(subject)s, %(mode)s, %(fields)s::text[], %(field_macs)s::bytea[], %(keeps)s::text[],
                %(reason)s, %(requested_by)s, %(requested_at)s)
        RETURNING erasure_id
        """,
        known,
    )
    known["erasure"] = erasure_id
    conn.execute(
        """
        INSERT INTO refold.erased_events (erasure_id, position, mac, mention, renamed)
        SELECT %(erasure)s, e.position, u.mac, u.mention, u.held
        FROM unnest(%(macs)s::bytea[], %(mentions)s::boolean[], %(held)s::boolean[]) AS u (mac, mention, held)
        JOIN refold.events AS e ON refold.erasure_mac(e.event_id) = u.mac
        """,
        known,
    )
    conn.execute(
        """
        INSERT INTO refold.erased_events (erasure_id, position, mac, mention, renamed, done)
        SELECT %(erasure)s, e.position, u.mac, u.mention, u.held, e.done
        FROM unnest(%(macs)s::bytea[], %(mentions)s::boolean[], %(held)s::boolean[]) AS u (mac, mention, held)
        JOIN unnest(%(positions)s::bigint[], %(of)s::bytea[], %(done)s::boolean[]) AS e (position, mac, done)
            USING (mac)
        """,
        known
        | {
            "positions": [one[0] for one in purged],
            "of": [one[1] for one in purged],
            "done": [one[2] for one in purged],
        },
    )
    conn.execute(
        """
        INSERT INTO refold.erased_events (erasure_id, position, mac, mention, renamed, done)
        SELECT %(erasure)s, -row_number() OVER (), u.mac, u.mention, true, true
        FROM unnest(%(macs)s::bytea[], %(mentions)s::boolean[]) AS u (mac, mention)
        WHERE NOT EXISTS (SELECT FROM refold.erased_events AS x WHERE x.erasure_id = %(erasure)s AND x.mac = u.mac)
        """,
        known,
    )
    choose_witnesses(conn, erasure_id)
    return by_id(conn, erasure_id)


def choose_witnesses(conn: psycopg.Connection, erasure_id: int) -> None:
    """Let one event of the person, and one for each field, be the last that is changed."""
    conn.execute(
        """
        UPDATE refold.erased_events AS x SET witness = true
        WHERE x.erasure_id = %(erasure)s AND x.position IN (
            SELECT max(o.position) FROM refold.erased_events AS o
            WHERE o.erasure_id = %(erasure)s AND NOT o.mention
            UNION ALL
            SELECT max(e.position)
            FROM refold.erasures AS r CROSS JOIN LATERAL unnest(r.fields, r.macs) AS u (field, mac)
            JOIN refold.erased_events AS o ON o.erasure_id = r.erasure_id
            JOIN refold.events AS e ON e.position = o.position
                AND refold.erasure_mac(e.metadata ->> u.field) = u.mac
            WHERE r.erasure_id = %(erasure)s GROUP BY u.field, u.mac)
        """,
        {"erasure": erasure_id},
    )


def known_person(conn: psycopg.Connection, erasure: Erasure) -> Person | None:
    """Return the person of an unfinished erasure, as the log says it; None if the log does not any more."""
    user = conn.execute(
        """
        SELECT e.user_id FROM refold.erased_events AS x JOIN refold.events AS e USING (position)
        WHERE x.erasure_id = %s AND x.witness AND NOT x.done AND NOT x.mention
          AND refold.erasure_mac(e.user_id) = %s LIMIT 1
        """,
        (erasure.erasure_id, erasure.subject),
    ).fetchone()
    if user is None:
        return None
    also = conn.execute(
        """
        SELECT DISTINCT u.field, e.metadata ->> u.field
        FROM unnest(%s::text[], %s::bytea[]) AS u (field, mac)
        JOIN refold.erased_events AS x ON x.erasure_id = %s AND x.witness AND NOT x.done
        JOIN refold.events AS e ON e.position = x.position AND refold.erasure_mac(e.metadata ->> u.field) = u.mac
        """,
        (erasure.fields, erasure.macs, erasure.erasure_id),
    ).fetchall()
    return Person(user[0], tuple(also))


def waiting(conn: psycopg.Connection, erasure: Erasure, most: int) -> tuple[list[Target], bool]:
    """Return the next events to change, in order, and whether they are the last: then all witnesses are among them."""
    rows = conn.execute(
        "SELECT position, mention, renamed, witness FROM refold.erased_events WHERE erasure_id = %s AND NOT done"
        " AND position >= refold.log_floor() ORDER BY witness, position LIMIT %s",
        (erasure.erasure_id, most + 1 + len(erasure.fields) + 1),
    ).fetchall()
    last = len(rows) <= most + 1 + len(erasure.fields)
    chosen = rows if last else [row for row in rows if not row[3]][:most]
    return [Target(*row[:3]) for row in chosen], last


def waiting_in(conn: psycopg.Connection, erasure: Erasure, lower: int, upper: int) -> list[Target]:
    """Return the events to change between two positions, in order."""
    rows = conn.execute(
        "SELECT position, mention, renamed FROM refold.erased_events"
        " WHERE erasure_id = %s AND NOT done AND position >= %s AND position < %s ORDER BY position",
        (erasure.erasure_id, lower, upper),
    ).fetchall()
    return [Target(*row) for row in rows]


def done(conn: psycopg.Connection, erasure: Erasure, positions: Sequence[int]) -> None:
    """Record that events are changed, and the digest of what the log has in their place.

    Args:
        conn: acts as refold_owner; the transaction that has changed them.
        erasure: the erasure.
        positions: where they stand, or stood.
    """
    conn.execute(
        """
        UPDATE refold.erased_events AS x
        SET done = true, digest = e.digest
        FROM unnest(%(positions)s::bigint[]) AS p (position)
        LEFT JOIN (
            SELECT position, refold.digest(user_id, action, ts, metadata, version) AS digest FROM refold.events
            WHERE position BETWEEN %(low)s AND %(high)s AND position = ANY (%(positions)s::bigint[])
        ) AS e USING (position)
        WHERE x.position = p.position AND (x.done OR x.erasure_id = %(erasure)s)
        """,
        {
            "erasure": erasure.erasure_id,
            "positions": list(positions),
            "low": min(positions, default=0),
            "high": max(positions, default=0),
        },
    )


def move(conn: psycopg.Connection, erasure: Erasure, step: Step, evidence: Mapping[str, Any]) -> Erasure:
    """Record what was done, and what is done next, unless another process has; return the erasure as it is then.

    Args:
        conn: acts as refold_worker or refold_owner; the transaction in which it was done.
        erasure: the erasure.
        step: what is done next; `done` finishes it.
        evidence: all of its evidence.
    """
    conn.execute(
        "UPDATE refold.erasures SET step = %(step)s, evidence = %(evidence)s,"
        " finished_at = CASE WHEN %(step)s = 'done' THEN clock_timestamp() END"
        " WHERE erasure_id = %(erasure)s AND step = %(was)s",
        {"step": step, "evidence": Jsonb(dict(evidence)), "erasure": erasure.erasure_id, "was": erasure.step},
    )
    return by_id(conn, erasure.erasure_id)
