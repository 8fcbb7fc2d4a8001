"""Transactions that hold events or refold back are named while they do (faults 4 and 5)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
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
from tests.support.sessions import somebody_waits
from tests.support.waiting import wait_until

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


def test_a_lock_that_keeps_refold_out_is_named(
    connect: Callable[..., Connection],
    worker: Connection,
    limit: Callable[..., None],
    incidents: Callable[[str], list[Incident]],
) -> None:
    limit(held_back_after=0)
    ann = connect(application_name="psql of ann")
    ann.execute("LOCK TABLE refold.deployments")
    run(worker, NOBODYS)
    [incident] = incidents("held_back")
    assert incident.subject == f"session {ann.info.backend_pid}"
    assert incident.evidence["locks"] == ["refold.deployments"]
    assert incident.evidence["query"] == "LOCK TABLE refold.deployments"
    ann.rollback()
    run(worker, NOBODYS)
    assert incidents("held_back")[0].resolved_at is not None
    # Whoever only reads or writes keeps nobody out.
    ann.execute("SELECT FROM refold.deployments")
    ann.execute("UPDATE refold.settings SET lag_limit = 61")
    run(worker, NOBODYS)
    assert len(incidents("held_back")) == 1


def test_a_lock_on_a_row_counts_until_its_transaction_ends(
    connect: Callable[..., Connection],
    admin: Connection,
    worker: Connection,
    limit: Callable[..., None],
    incidents: Callable[[str], list[Incident]],
) -> None:
    limit(held_back_after=0)
    ann, refold = connect(application_name="psql of ann"), connect(application_name="refold", autocommit=True)
    ann.execute("UPDATE refold.settings SET lag_limit = 61")

    def waits() -> None:
        with suppress(psycopg.errors.QueryCanceled):
            refold.execute("UPDATE refold.settings SET lag_limit = 62")

    thread = threading.Thread(target=waits)
    thread.start()
    wait_until(lambda: somebody_waits(admin))
    run(worker, NOBODYS)
    refold.cancel_safe()
    thread.join(30)
    # Nobody waits for it at this moment.
    run(worker, NOBODYS)
    [incident] = incidents("held_back")
    assert (incident.subject, incident.resolved_at) == (f"session {ann.info.backend_pid}", None)
    ann.rollback()
    ann.execute("SELECT 1")
    run(worker, NOBODYS)
    assert incidents("held_back")[0].resolved_at is not None
