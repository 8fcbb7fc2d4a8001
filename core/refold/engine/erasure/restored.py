"""Erasures that a database does again which was restored from a backup from before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from refold.engine.archive import records
from refold.engine.archive.object_store import open_store
from refold.engine.erasure import again, purged
from refold.engine.erasure.purged_files import rebase
from refold.engine.erasure.rows import silence
from refold.engine.erasure.run import IN_THE_MIDDLE, Progress, counts, go_on, owned_store
from refold.errors import BuildError
from refold.model.erasure import Person
from refold.postgres.rows import one_row
from refold.store import erasures
from refold.store.builds.compiled import Compiler
from refold.store.erasures import Erasure
from refold.store.log.guards import require_owner
from refold.store.schema.settings import read_settings


def recorded(conn: psycopg.Connection) -> list[Mapping[str, Any]]:
    """Return the records of erasures that the archive's store has; none without an archive.

    Args:
        conn: acts as refold_worker.

    Raises:
        StoreFailed: the store does not answer.
    """
    location = read_settings(conn).archive
    return [] if location is None else [again.parsed(one) for one in records.records(open_store(location))]


def apply(
    conn: psycopg.Connection,
    compiler: Compiler,
    content: Mapping[str, Any],
    *,
    progress: Progress = lambda step: None,
) -> list[Erasure]:
    """Do erasures that this database does not know, because it was restored from a backup from before.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        compiler: makes the SQL of the builds, with the code of transforms.
        content: an export, or a record of the archive's store.
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
            begun = known[0] if known else _begun_again(conn, record, cold)
            person = _person(conn, begun, record, cold)
            if person is None:
                begun = _without_a_name(conn, compiler, begun)
        if begun.finished_at is None:
            done.append(go_on(conn, compiler, begun, person=person, progress=progress))
    return done


def _person(
    conn: psycopg.Connection, erasure: Erasure, record: Mapping[str, Any], cold: Sequence[purged.Recognised]
) -> Person | None:
    """Return the person as the log and the files of purged segments say it; None if neither does."""
    known = erasures.known_person(conn, erasure)
    users = {known.user_id} if known else set()
    also = dict.fromkeys(known.also if known else ())
    for one in cold:
        user, *values = one.values
        users |= {user} if user else set()
        also |= {(name, value): None for name, value in zip(record["fields"], values, strict=True) if value}
    return Person(users.pop(), tuple(also)) if users else None


def _begun_again(conn: psycopg.Connection, record: Mapping[str, Any], cold: Sequence[purged.Recognised]) -> Erasure:
    """Begin an erasure of another database; an event of the person says who that is, if there is one."""
    left = [one for one in cold if not one.changed]
    if left:
        owned_store(conn)
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        told = [
            (one.position, one.event_id, any(value in one.event_id for value in one.values if value), one.changed)
            for one in cold
        ]
        begun = erasures.begin_again(conn, record, purged=told)
        # Their files were written again by the database that the record is of.
        gone = [one for one in cold if one.changed]
        if gone:
            silence(conn, [one.position for one in gone], [one.event_id for one in gone])
        conn.execute("SET LOCAL ROLE refold_worker")
        person = _person(conn, begun, record, cold)
        if person is not None:
            evidence: dict[str, Any] = {"before": counts(conn, person) | ({purged.PLACE: len(left)} if left else {})}
            token = next((one.token for one in cold if one.token), None)
            if token is not None:
                evidence["token"] = token
            return erasures.move(conn, begun, "log", evidence)
        _insist_on_none_left(conn, begun)
        return begun


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
    slices = rebase(conn, compiler, erasure) if purged.PLACE in evidence.get("before", {}) else []
    told = {
        **{name: one for name, one in evidence.items() if name not in IN_THE_MIDDLE},
        "slices": slices,
        "resealed": slices,
        "erased_at": one_row(conn, "SELECT clock_timestamp()::text")[0],
        "not_provable": [again.NOT_SEARCHED],
    }
    return erasures.move(conn, erasure, "archive", told)
