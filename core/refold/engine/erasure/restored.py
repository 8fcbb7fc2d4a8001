"""Erasures that a database does again which was restored from a backup from before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import psycopg

from refold.engine.archive import records
from refold.engine.archive.object_store import open_store
from refold.engine.erasure import again, places, purged
from refold.engine.erasure.purged_files import rebase
from refold.engine.erasure.rows import add_new_ids, rename, silence
from refold.engine.erasure.run import IN_THE_MIDDLE, Progress, counts, go_on, owned_store
from refold.errors import BuildError
from refold.model.erasure import Person
from refold.postgres.rows import one_row
from refold.store import erasures
from refold.store.builds.compiled import Compiler
from refold.store.erasures import Erasure
from refold.store.log.guards import require_owner
from refold.store.schema.settings import read_settings

Said = Mapping[bytes, str]
"""User ids and values of fields, by their HMACs."""


def recorded(conn: psycopg.Connection) -> list[Mapping[str, Any]]:
    """Return the records of erasures that the archive's store has; none without an archive.

    Args:
        conn: acts as refold_worker.

    Raises:
        StoreFailed: the store does not answer.
    """
    location = read_settings(conn).archive
    return [] if location is None else [again.parsed(one) for one in records.records(open_store(location))]


def unknown(conn: psycopg.Connection) -> list[Mapping[str, Any]]:
    """Return the erasures of the archive's store that this database has not done; none without an archive.

    Args:
        conn: acts as refold_worker.

    Raises:
        StoreFailed: the store does not answer.
    """
    done = {str(one.name) for one in erasures.find(conn, "finished_at IS NOT NULL")}
    return [
        record
        for content in recorded(conn)
        if again.has_key(conn, content)
        for record in again.insist_on_export(conn, content)
        if record["name"] not in done
    ]


def said(conn: psycopg.Connection, records: Sequence[Mapping[str, Any]]) -> Said:
    """Return the people of erasures as the restored metrics, repairs and incidents say them, by their HMACs.

    A recovery that heals these takes the people out of them, and files of purged segments say nothing any more.

    Args:
        conn: acts as refold_worker.
        records: the erasures.
    """
    wanted = [bytes.fromhex(mac) for one in records for mac in (one["subject"], *one["macs"])]
    columns = conn.execute(
        """
        SELECT c.oid::regclass::text, quote_ident(a.attname), format_type(a.atttypid, NULL)
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
          AND (c.relnamespace = 'refold_builds'::regnamespace
               OR c.oid IN ('refold.repairs'::regclass, 'refold.incidents'::regclass))
          AND format_type(a.atttypid, NULL) IN ('text', 'character varying', 'jsonb', 'text[]')
        """
    ).fetchall()
    found: dict[bytes, str] = {}
    for table, column, kind in columns:
        values = _VALUES.get(kind, "{}").format(column)
        rows = conn.execute(
            f"SELECT v, refold.erasure_mac(v) FROM (SELECT DISTINCT {values} AS v FROM {table}) AS known"
            " WHERE v IS NOT NULL AND refold.erasure_mac(v) = ANY (%s)".encode(),
            (wanted,),
        ).fetchall()
        found |= {bytes(mac): value for value, mac in rows}
    return found


_VALUES = {
    "jsonb": "jsonb_path_query({}, '$.** ? (@.type() == \"string\")') #>> '{{}}'",
    "text[]": "unnest({})",
}


def apply(
    conn: psycopg.Connection,
    compiler: Compiler,
    content: Mapping[str, Any],
    *,
    said: Said = MappingProxyType({}),
    progress: Progress = lambda step: None,
) -> list[Erasure]:
    """Do erasures that this database does not know, because it was restored from a backup from before.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        compiler: makes the SQL of the builds, with the code of transforms.
        content: an export, or a record of the archive's store.
        said: people whom no event may tell any more.
        progress: called with the name of every step.

    Raises:
        DatabaseError: the login may not act as the owner.
        InputError: it is no export, or was made with another key.
        NotOwner: files of purged segments hold the person, and belong to another database.
        StoreFailed: the archive does not have purged events as it was proved to.
    """
    require_owner(conn)
    done = []
    for record in again.insist_on_export(conn, content):
        known = erasures.find(conn, "name = %s", record["name"])
        if known and (known[0].finished_at is not None or known[0].step != "log"):
            begun, person = known[0], None
        else:
            cold = purged.recognised(conn, record)
            begun = known[0] if known else _begun_again(conn, record, cold, said)
            person = _person(conn, begun, record, cold, said)
            if person is None:
                begun = _without_a_name(conn, compiler, begun)
        if begun.finished_at is None:
            done.append(go_on(conn, compiler, begun, person=person, progress=progress))
    return done


def _person(
    conn: psycopg.Connection,
    erasure: Erasure,
    record: Mapping[str, Any],
    cold: Sequence[purged.Recognised],
    said: Said,
) -> Person | None:
    """Return the person as the log, the files of purged segments or something else says it; None if nothing does."""
    known = erasures.known_person(conn, erasure)
    users = {known.user_id} if known else set()
    also = dict.fromkeys(known.also if known else ())
    for one in cold:
        user, *values = one.values
        users |= {user} if user else set()
        also |= {(name, value): None for name, value in zip(record["fields"], values, strict=True) if value}
    users |= {said[erasure.subject]} if erasure.subject in said else set()
    also |= {(name, said[mac]): None for name, mac in zip(erasure.fields, erasure.macs, strict=True) if mac in said}
    return Person(users.pop(), tuple(also)) if users else None


def _begun_again(
    conn: psycopg.Connection, record: Mapping[str, Any], cold: Sequence[purged.Recognised], said: Said
) -> Erasure:
    """Begin an erasure of another database; an event of the person says who that is, if there is one."""
    left = [one for one in cold if not one.changed]
    if left:
        owned_store(conn)
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        told = [(one.position, one.mac, one.changed) for one in cold]
        begun = erasures.begin_again(conn, record, purged=told)
        # Their files were written again by the database that the record is of.
        gone = [one for one in cold if one.changed]
        if gone:
            silence(conn, [one.position for one in gone], [one.event_id for one in gone])
        former = _renamed(conn, begun, record, gone)
        conn.execute("SET LOCAL ROLE refold_worker")
        places.clean_ids(conn, former)
        person = _person(conn, begun, record, cold, said)
        if person is not None:
            evidence: dict[str, Any] = {"before": counts(conn, person) | ({purged.PLACE: len(left)} if left else {})}
            token = next((one.token for one in cold if one.token), None)
            if token is not None:
                evidence["token"] = token
            return erasures.move(conn, begun, "log", evidence)
        _insist_on_none_left(conn, begun)
        return begun


def _renamed(
    conn: psycopg.Connection, erasure: Erasure, record: Mapping[str, Any], gone: Sequence[purged.Recognised]
) -> list[str]:
    """Put the new ids in the place of those that held the person, and that neither log nor file has; return these."""
    held = {bytes.fromhex(mac) for mac, _, renamed in record["events"] if renamed}
    former = erasures.former_ids(conn, erasure, list(held))
    conn.execute("SET LOCAL refold.restoring = on")
    rename(conn, former)
    conn.execute("UPDATE refold.event_ids SET digest = 0 WHERE event_id = ANY (%s)", (list(former.values()),))
    add_new_ids(conn, {one.event_id: one.position for one in gone if one.mac in held})
    conn.execute("SET LOCAL refold.restoring = off")
    silence(conn, [], list(former))
    return list(former)


def _insist_on_none_left(conn: psycopg.Connection, erasure: Erasure) -> None:
    if conn.execute(
        "SELECT FROM refold.erased_events WHERE erasure_id = %s AND NOT done LIMIT 1", (erasure.erasure_id,)
    ).rowcount:
        raise BuildError(
            "this database has an event of an erased person under another user id",
            remedy="It is not the log that the erasure was made in. Erase the person by name: `refold erase USER`.",
        )


def _without_a_name(conn: psycopg.Connection, compiler: Compiler, erasure: Erasure) -> Erasure:
    """Do what an erasure can do to the log and metrics, when no event says any more who the person is."""
    _insist_on_none_left(conn, erasure)
    evidence = erasure.evidence
    slices = rebase(conn, compiler, erasure, told=False) if purged.PLACE in evidence.get("before", {}) else []
    told = {
        **{name: one for name, one in evidence.items() if name not in IN_THE_MIDDLE},
        "slices": slices,
        "resealed": slices,
        "erased_at": one_row(conn, "SELECT clock_timestamp()::text")[0],
        "not_provable": [again.NOT_SEARCHED],
    }
    return erasures.move(conn, erasure, "archive", told)
