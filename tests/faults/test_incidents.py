"""Faults 4, 5 and 22 as an operator meets them: workers at work notice by themselves, and by themselves it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from refold import append
from refold.service.duties.registry import DUTIES
from refold.service.duties.schedule import Duty
from refold.service.worker.loop import Worker
from refold.store.incidents import Incident, find
from tests.support.live import SHOP, make_live, wrong
from tests.support.making import events
from tests.support.sessions import SLEEPERS
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

OFTEN = tuple(Duty(duty.name, 0.05, duty.run, duty.statement_timeout_s) for duty in DUTIES)


@contextmanager
def at_work(url: str) -> Iterator[None]:
    """A worker with all its duties; at the end it must have gone well."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            Worker(url, SHOP, duties=OFTEN, poll=0.1, stopped=stop.is_set).run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert failed == []


def opened(admin: Connection, kind: str) -> list[Incident]:
    return find(admin, "i.kind = %s AND i.resolved_at IS NULL", kind)


@pytest.fixture
def strict(admin: Connection) -> None:
    """Limits of no time at all."""
    admin.execute("UPDATE refold.settings SET held_back_after = 0")


@pytest.mark.live("shop")
@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("prepared", [False, True])
def test_who_holds_events_back_is_named_until_it_ends(
    database_url: str, producers: Callable[..., Connection], admin: Connection, prepared: bool
) -> None:
    make_live(database_url)
    slow, quick = producers(application_name="slow shop"), producers()
    if prepared:
        slow.execute("SET refold.notify = off")
    append(slow, events(5, "slow"))
    if prepared:
        slow.execute("PREPARE TRANSACTION 'orphan'")
    name = "prepared transaction orphan" if prepared else f"session {slow.info.backend_pid}"
    with at_work(database_url):
        append(quick, events(5, "quick"))
        quick.commit()
        wait_until(lambda: [one.subject for one in opened(admin, "held_back")] == [name])
        wait_until(lambda: admin.execute("SELECT sum(events) FROM metrics.daily").fetchone() == (5,))
        if prepared:
            admin.execute("COMMIT PREPARED 'orphan'")
        else:
            slow.commit()
        wait_until(lambda: not opened(admin, "held_back"))
        wait_until(lambda: admin.execute("SELECT sum(events) FROM metrics.daily").fetchone() == (10,))
    assert [one.resolved_by for one in find(admin, "i.subject = %s", name)] == ["blocking transactions"]
    assert wrong(database_url) == {}


@pytest.mark.live("shop")
def test_a_wake_up_that_is_lost(database_url: str, producers: Callable[..., Connection], admin: Connection) -> None:
    """Its flag counts once the worker has slept a while; until then it looks for itself."""
    make_live(database_url)
    producer = producers()
    offered = 0

    def offer() -> None:
        nonlocal offered
        offered += 1
        wait_until(lambda: admin.execute(SLEEPERS).fetchone() == (1,))
        append(producer, events(1, f"{offered}-"))
        producer.commit()

    def is_open() -> bool:
        offer()
        return bool(opened(admin, "missed_notification"))

    def is_over() -> bool:
        offer()
        return not opened(admin, "missed_notification")

    with at_work(database_url):
        producer.execute("SET refold.notify = off")
        wait_until(is_open, every_s=0.3, deadline_s=30)
        producer.execute("SET refold.notify = on")
        wait_until(is_over, every_s=0.3, deadline_s=30)
    [incident] = find(admin, "i.kind = 'missed_notification'")
    assert incident.outcome is not None and incident.outcome["because"] == "a notification arrived"
    assert admin.execute("SELECT name, error FROM refold.duties WHERE error IS NOT NULL").fetchall() == []
