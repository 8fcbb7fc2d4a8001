"""Every place of refold's own tables that can hold a person, and what an erasure makes of it.

A test walks the catalogue: each column that can hold text is here, or in `NEVER` with the reason why it holds no
person.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import psycopg

from refold.errors import DatabaseError
from refold.model.erasure import ERASED, TOKEN, HeldBy, Person, Sought, json_without, without
from refold.model.sql_text import ident

Kind = Literal["text", "json", "id"]
"""How a column is written. An `id` stays one: what stands in its place is like no other."""


@dataclass(frozen=True, slots=True)
class Place:
    """A table whose rows may hold a person.

    Args:
        table: its qualified name.
        columns: the columns that may, and how they are written.
        wiped: columns that are replaced as a whole, with the SQL of what stands there then, if any column of the row
            holds the person: they may say more of it than its name.
        kept: condition on rows that stay as they are, because something has to be done with them first.
    """

    table: str
    columns: Mapping[str, Kind]
    wiped: Mapping[str, str] = field(default_factory=dict)
    kept: str = "false"


_CHECKED_AGAIN = "CASE WHEN state = 'checked' THEN NULL ELSE checked_at END"
_STAGED_AGAIN = "CASE WHEN state = 'checked' THEN 'staged' ELSE state END"
PLACES: tuple[Place, ...] = (
    # The number of the record keeps two of them apart that are now the same.
    Place(
        "refold.rejected", {"source": "text", "reason": "text", "raw": "text"}, {"raw": f"'{ERASED} ' || rejected_id"}
    ),
    Place("refold.dead_letters", {"event_id": "id", "error": "text", "traceback": "text", "reason": "text"}),
    Place("refold.repairs", {"key": "json", "before": "json", "after": "json"}, {"before": "NULL", "after": "NULL"}),
    Place("refold.incidents", {"subject": "id", "evidence": "json", "outcome": "json"}),
    Place("refold.actions", {"arguments": "json", "outcome": "text"}),
    Place("refold.acceptances", {"reason": "text", "details": "json"}),
    Place("refold.notices", {"error": "text"}),
    Place("refold.routes", {"error": "text"}),
    Place("refold.duties", {"error": "text"}),
    Place("refold.archive_store", {"error": "text"}),
    Place("refold.builds", {"error": "text"}),
    Place("refold.deployments", {"given_up_because": "text"}),
    Place("refold.capture_gaps", {"error": "text"}),
    Place("refold.canaries", {"because": "text"}),
    Place("refold.canary_builds", {"verdict": "json"}, {"verdict": "NULL"}),
    # What was found is of records that are erased, too: the backfill is checked again.
    Place(
        "refold.file_backfills",
        {"files": "json", "options": "json", "because": "text", "findings": "json"},
        {
            "findings": "NULL",
            "checked_at": _CHECKED_AGAIN,
            "state": _STAGED_AGAIN,
        },
    ),
    Place("refold.series", {"name": "id"}),
    Place("refold.sink_states", {"error": "text", "status": "text"}),
    Place(
        "refold.undelivered",
        {"key": "json", "status": "text", "error": "text", "reason": "text"},
        kept="state = 'waiting'",
    ),
    # A backfill that is not over goes on from here.
    Place("refold.backfills", {"last": "text"}, {"last": "NULL"}, kept="finished_at IS NULL"),
    Place("refold.violations", {"event_id": "id"}),
    Place("refold.lost_events", {"event_id": "id"}),
    Place("refold.erasures", {"reason": "text", "evidence": "json"}),
)
"""The tables of schema `refold`, which `clean` goes through."""

OTHERWISE: Mapping[str, str] = {
    "refold.events": "the log: changed or removed, with checksums by subtraction",
    "refold.event_ids": "the ledger: the id stays, or another in its place if it holds the person",
    "refold_builds.*": "metrics: healed",
    "refold_backfill.staged_*": "staged records: emptied, so that they become no events",
    "pgmq.q_*": "keys on their way to receivers: delivered, for a receiver must hear what goes",
    "pgmq.a_*": "keys that pgmq has archived, which refold does not make it do: cleaned",
    "refold.sink_keys": "keys that a receiver was given: they go with the delivery of what goes",
}
"""Tables of which other steps take care, and how."""

NEVER: Mapping[str, str] = {
    "refold.*.by": "a login",
    "refold.*.accepted_by": "a login",
    "refold.*.acknowledged_by": "a login",
    "refold.*.changed_by": "a login",
    "refold.*.claimed_by": "a login",
    "refold.*.created_by": "a login",
    "refold.*.detected_by": "a duty or command",
    "refold.*.ended_by": "a login",
    "refold.*.repaired_by": "a login",
    "refold.*.requested_by": "a login",
    "refold.*.resolved_by": "a duty or command",
    "refold.*.set_by": "a login",
    "refold.*.started_by": "a login",
    "refold.*.state": "a word of refold",
    "refold.*.kind": "a word of refold",
    "refold.*.level": "a word of refold",
    "refold.*.depth": "a word of refold",
    "refold.*.stage": "a word of refold",
    "refold.*.what": "a word of refold",
    "refold.*.step": "a word of refold",
    "refold.*.mode": "a word of refold",
    "refold.*.grain": "a word of refold",
    "refold.*.language": "a word of refold",
    "refold.*.upkeep": "a word of refold",
    "refold.*.change": "a word of refold",
    "refold.*.least": "a word of refold",
    "refold.*.answer": "a word of refold",
    "refold.*.operation": "a word of refold",
    "refold.*.operations": "words of refold",
    "refold.*.sqlstate": "a code of Postgres",
    "refold.*.condition": "a word of refold",
    "refold.*.signal": "a word of refold",
    "refold.*.command": "words of a command, without arguments",
    "refold.*.projection": "a name from the project's files",
    "refold.*.definition": "text of the project's files: what an author writes there, he removes there",
    "refold.*.fingerprint": "a hash of the project's files",
    "refold.*.table_name": "a name from the project's files",
    "refold.*.table_schema": "a name from the project's files",
    "refold.*.relation": "a name from the project's files",
    "refold.*.route": "a name from the project's files",
    "refold.*.done": "numbers of transactions",
    "refold.*.target": "numbers of transactions",
    "refold.*.holder": "a random name of a process",
    "refold.*.sha256": "a hash of a file",
    "refold.*.mac": "an HMAC, whose key is here alone",
    "refold.acceptances.segment": "a name of refold",
    "refold.alembic_version.version_num": "a number",
    "refold.archive_store.location": "the address of the store",
    "refold.archive_store.owner": "a random name",
    "refold.archive_store.turns": "random names",
    "refold.archives.location": "a name of refold",
    "refold.builds.reads": "names of columns",
    "refold.canaries.expect": "rules from a command, by names of columns",
    "refold.canary_builds.marks": "numbers",
    "refold.captures.name": "a name from the project's files",
    "refold.captures.key": "names of columns",
    "refold.captures.columns": "names of columns",
    "refold.captures.functions": "hashes of functions",
    "refold.captures.triggers": "names of triggers",
    "refold.contracts.*": "from the project's files; an action says what happened, and to nobody in particular",
    "refold.dead_letters.event": "a copy of an event: it goes from the letters of events that an erasure changes",
    "refold.deployments.views": "from the project's files",
    "refold.duties.name": "a name of refold",
    "refold.erasure_key.inner_pad": "the key",
    "refold.erasure_key.outer_pad": "the key",
    "refold.erasures.subject": "an HMAC, whose key is here alone",
    "refold.erasures.macs": "HMACs, whose key is here alone",
    "refold.erasures.fields": "names of fields",
    "refold.erasures.keeps": "names of fields",
    "refold.file_backfills.name": "a name from a command",
    "refold.routes.name": "a name from the project's files",
    "refold.series_values.delays": "numbers",
    "refold.settings.too_many_dead_letters": "a word of refold",
    "refold.settings.archive": "the address of the store",
    "refold.settings.unknown_versions": "a word of refold",
    "refold.settings.erasure_keeps": "names of fields",
    "refold.sink_states.tokens": "random names",
    "refold.sinks.name": "a name from the project's files",
    "refold.tokens.*": "tokens of producers: systems, and no users of the application",
    "refold.violations.action": "what happened, and to nobody in particular",
    "refold.violations.rule": "a rule of a contract, without values",
    "pgmq.*.queue_name": "a name of refold",
    "pgmq.topic_bindings.*": "names of queues",
}
"""Columns that hold no person, each with the reason. A `*` stands for any table, or for any column of one."""


def clean(conn: psycopg.Connection, person: Person) -> dict[str, int]:
    """Remove a person from all places; return the number of rows that were changed, by table.

    Args:
        conn: acts as refold_worker, in the caller's transaction; its login may act as refold_owner.
        person: the person, with the ids of events that hold it.

    Raises:
        DatabaseError: a backfill is staged, and the login may not act as refold_backfill.
    """
    return _each(conn, person, change=True)


def clean_ids(conn: psycopg.Connection, ids: Sequence[str]) -> None:
    """Remove event ids that hold a person from all places, whoever the person is; the arguments are `clean`'s."""
    if ids:
        _each(conn, HeldBy(tuple(ids)), change=True)


def count(conn: psycopg.Connection, person: Person) -> dict[str, int]:
    """Return the number of rows that hold a person, by table; tables without any are left out.

    Args:
        conn: acts as refold_worker; its login may act as refold_owner.
        person: the person.
    """
    with conn.transaction():
        return _each(conn, person, change=False)


def waiting(conn: psycopg.Connection, person: Person) -> dict[str, int]:
    """Return the number of rows that hold a person until a receiver was told, by table; the arguments are `count`'s."""
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        found = {
            "refold.undelivered": _rows(conn, _UNDELIVERED, person),
            "refold.sink_keys": _rows(conn, _KEYS, person),
        }
        conn.execute("SET LOCAL ROLE refold_worker")
        for queue in _tables(conn, "pgmq", "q_"):
            found[queue] = _rows(conn, Place(queue, {"message": "json"}), person)
        return {table: rows for table, rows in found.items() if rows}


_UNDELIVERED = Place("refold.undelivered", {"key": "json"}, kept="state <> 'waiting'")
_KEYS = Place("refold.sink_keys", {"key": "json"})


def _each(conn: psycopg.Connection, sought: Sought, *, change: bool) -> dict[str, int]:
    found: dict[str, int] = {}
    conn.execute("SET LOCAL ROLE refold_owner")
    for place in PLACES:
        found[place.table] = _rows(conn, place, sought, change=change)
    conn.execute("SET LOCAL ROLE refold_worker")
    for archived in _tables(conn, "pgmq", "a_"):
        found[archived] = _rows(conn, Place(archived, {"message": "json"}), sought, change=change)
    staged = _tables(conn, "refold_backfill", "staged_")
    if staged:
        _as_backfill(conn)
        for table in staged:
            found[table] = _staged(conn, table, sought, change=change)
        conn.execute("SET LOCAL ROLE refold_worker")
    return {table: rows for table, rows in found.items() if rows}


def _rows(conn: psycopg.Connection, place: Place, sought: Sought, *, change: bool = False) -> int:
    """Return how many rows of a place hold what is sought, and clean them if they are to be changed."""
    names = list(place.columns)
    listed = ", ".join(f"{ident(name)}::text" for name in names)
    held = " OR ".join(f"strpos({ident(name)}::text, s) > 0" for name in names)
    signs = list(dict.fromkeys((*sought.signs, *sought.ids)))
    rows = conn.execute(
        f"SELECT ctid::text, {listed} FROM {place.table}"
        f" WHERE NOT ({place.kept}) AND EXISTS (SELECT FROM unnest(%s::text[]) AS s WHERE {held})"
        f"{' FOR UPDATE' if change else ''}".encode(),
        (signs,),
    ).fetchall()
    number = 0
    for at, *values in rows:
        cleaned = [_cleaned(sought, kind, value) for kind, value in zip(place.columns.values(), values, strict=True)]
        if cleaned == values:
            continue
        number += 1
        if not change:
            continue
        # A text[] is only ever wiped.
        kept = [(name, value) for name, value in zip(names, cleaned, strict=True) if name not in place.wiped]
        sets = [f"{ident(name)} = %s{'::jsonb' if place.columns[name] == 'json' else ''}" for name, _ in kept]
        sets += [f"{ident(name)} = {sql}" for name, sql in place.wiped.items()]
        conn.execute(
            f"UPDATE {place.table} SET {', '.join(sets)} WHERE ctid = %s::tid".encode(),
            (*(value for _, value in kept), at),
        )
    return number


def _cleaned(sought: Sought, kind: Kind, value: str | None) -> str | None:
    if value is None:
        return None
    if kind == "json":
        return json_without(sought, value)
    cleaned = without(sought, value)
    return TOKEN + secrets.token_hex(8) if kind == "id" and cleaned != value else cleaned


def _staged(conn: psycopg.Connection, table: str, sought: Sought, *, change: bool) -> int:
    """Return how many staged records have what is sought, and make them no events if they are to be changed."""
    held = (
        "user_id = %(user)s OR event_id = ANY (%(ids)s)"
        " OR EXISTS (SELECT FROM unnest(%(signs)s::text[]) AS s WHERE strpos(raw, s) > 0)"
        " OR EXISTS (SELECT FROM unnest(%(fields)s::text[], %(values)s::text[]) AS u (field, value)"
        " WHERE metadata ->> u.field = u.value)"
    )
    also = sought.also if isinstance(sought, Person) else ()
    known = {
        "user": sought.user_id if isinstance(sought, Person) else None,
        "ids": list(sought.ids),
        "signs": sought.signs or list(sought.ids),
        "fields": [name for name, _ in also],
        "values": [value for _, value in also],
    }
    if not change:
        return len(conn.execute(f"SELECT number FROM {table} WHERE {held}".encode(), known).fetchall())
    rows = conn.execute(
        f"UPDATE {table} SET event_id = NULL, user_id = NULL, action = NULL, ts = NULL, metadata = NULL,"
        f" version = NULL, problem = '{ERASED}', raw = '' WHERE {held} RETURNING number".encode(),
        known,
    ).rowcount
    if rows:
        # What a check found, it found of other records.
        conn.execute(
            f"UPDATE refold.file_backfills SET invalid = (SELECT count(*) FROM {table} WHERE problem IS NOT NULL),"
            f" findings = NULL, checked_at = {_CHECKED_AGAIN},"
            f" state = {_STAGED_AGAIN} WHERE backfill_id = %s AND state <> 'staging'".encode(),
            (int(table.rsplit("_", 1)[1]),),
        )
    return rows


def _tables(conn: psycopg.Connection, schema: str, prefix: str) -> list[str]:
    rows = conn.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = %s AND starts_with(tablename, %s) ORDER BY tablename",
        (schema, prefix),
    ).fetchall()
    return [f"{ident(schema)}.{ident(name)}" for (name,) in rows]


def _as_backfill(conn: psycopg.Connection) -> None:
    (may,) = conn.execute("SELECT pg_has_role(session_user, 'refold_backfill', 'MEMBER')").fetchone() or (False,)
    if not may:
        raise DatabaseError(
            "a backfill is staged, and this login may not act as refold_backfill, which may change its records",
            remedy="GRANT refold_backfill TO the login, or end the backfill: `refold backfill abort NAME`.",
        )
    conn.execute("SET LOCAL ROLE refold_backfill")
