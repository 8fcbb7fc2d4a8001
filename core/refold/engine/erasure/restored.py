"""Erasures that a database does again which was restored from a backup from before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from refold.engine.archive.object_store import open_store
from refold.engine.erasure import again, purged
from refold.engine.erasure.archive import records
from refold.engine.erasure.run import Progress, counts, go_on
from refold.errors import BuildError
from refold.postgres.rows import one_row
from refold.prose import counted
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
    return [] if location is None else [again.parsed(one) for one in records(open_store(location))]


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
    """
    require_owner(conn)
    done = []
    for record in again.insist_on_export(conn, content):
        known = erasures.find(conn, "name = %s", record["name"])
        if not known:
            _insist_on_log(purged.recognised(conn, [bytes.fromhex(mac) for mac, _ in record["events"]]))
        erasure = known[0] if known else _begun_again(conn, record)
        if erasure.finished_at is None:
            done.append(go_on(conn, compiler, erasure, progress=progress))
    return done


def _insist_on_log(cold: Sequence[purged.Held]) -> None:
    """Raise an error if purged segments hold events of a record: nothing there would be changed without a name."""
    if cold:
        raise BuildError(
            f"{counted(len(cold), 'event')} that would be erased left the log by a purge, and the archive alone has"
            " them: a record of an erasure does not reach there",
            remedy="Nothing was changed. Erase the person by name once more: `refold erase USER`.",
        )


def _begun_again(conn: psycopg.Connection, record: Mapping[str, Any]) -> Erasure:
    """Begin an erasure of another database; the log says who the person is, if it has an event of the person."""
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        begun = erasures.begin_again(conn, record)
        conn.execute("SET LOCAL ROLE refold_worker")
        person = erasures.known_person(conn, begun)
        if person is not None:
            before = {"before": counts(conn, person)}
            return erasures.move(conn, begun, "log", before)
        if erasures.waiting(conn, begun, 1)[0]:
            raise BuildError(
                "the log has an event of an erased person under another user id",
                remedy="It is not the log that the erasure was made in. Erase the person by name: `refold erase USER`.",
            )
        told = {"erased_at": one_row(conn, "SELECT clock_timestamp()::text")[0], "not_provable": [again.NOT_SEARCHED]}
        return erasures.move(conn, begun, "archive", told)
