"""Transactions that hold events back are named while they do (faults 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from refold import append
from refold.service.duties.blocking_transactions import held_back, run
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident
from refold.store.log.blocking_transactions import BlockingTransaction
from refold.store.schema.settings import Settings
from tests.support.making import events

Connection = psycopg.Connection[Any]
NOBODYS = Compiler(None)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_older_than_the_limit() -> None:
    allowed = Settings()
    sessions = [
        BlockingTransaction("1", 60.0, "shop", NOON, "app"),
        BlockingTransaction("2", 60.1, "shop", NOON, "app"),
        BlockingTransaction("3", None, "shop", None, "app"),
    ]
    prepared = [
        BlockingTransaction("young", 1.0, "app", NOON, "app"),
        BlockingTransaction("old", 61.0, "app", NOON, "app"),
    ]
    found = held_back(sessions, prepared, allowed)
    assert [one.subject for one in found] == ["session 2", "prepared transaction old"]


def test_an_open_writer_is_named(
    producers: Callable[..., Connection],
    connect: Callable[..., Connection],
    worker: Connection,
    limit: Callable[..., None],
    incidents: Callable[[str], list[Incident]],
) -> None:
    slow = producers(application_name="slow shop")
    began = slow.execute("SELECT now()").fetchone()
    append(slow, events(2))
    reader = connect()
    reader.execute("SELECT count(*) FROM refold.events")
    run(worker, NOBODYS)
    assert incidents("held_back") == []

    limit(held_back_after=0)
    run(worker, NOBODYS)
    [incident] = incidents("held_back")
    assert incident.subject == f"session {slow.info.backend_pid}"
    assert (incident.started_at,) == began
    evidence = incident.evidence
    assert (evidence["pid"], evidence["application"]) == (slow.info.backend_pid, "slow shop")
    assert evidence["role"] == slow.info.user

    slow.commit()
    run(worker, NOBODYS)
    [incident] = incidents("held_back")
    assert (incident.resolved_by, incident.outcome) == ("blocking transactions", {"because": "not found again"})
    # The worker is what it was.
    assert worker.execute("SELECT current_user").fetchone() == ("refold_worker",)


@pytest.mark.parametrize("ending", ["COMMIT PREPARED", "ROLLBACK PREPARED"])
def test_a_forgotten_prepared_transaction_is_named(
    producers: Callable[..., Connection],
    admin: Connection,
    worker: Connection,
    limit: Callable[..., None],
    incidents: Callable[[str], list[Incident]],
    ending: str,
) -> None:
    caller = producers()
    append(caller, events(2))
    caller.execute("PREPARE TRANSACTION 'orphan'")
    limit(held_back_after=0)
    run(worker, NOBODYS)
    [incident] = incidents("held_back")
    assert (incident.subject, incident.evidence["gid"]) == ("prepared transaction orphan", "orphan")
    prepared = admin.execute("SELECT prepared FROM pg_prepared_xacts WHERE gid = 'orphan'").fetchone()
    assert (incident.started_at,) == prepared
    admin.execute(f"{ending} 'orphan'".encode())
    run(worker, NOBODYS)
    [incident] = incidents("held_back")
    assert incident.resolved_at is not None
