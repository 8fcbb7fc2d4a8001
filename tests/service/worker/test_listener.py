"""The listener: a sleeping worker hears of an event at once, and producers pay only while somebody sleeps."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.embedded import EmbeddedServer
from refold.service.worker.listener import SETTLE, Listener
from refold.store.schema.migrate import migrate
from tests.conftest import SERVER_SETTINGS, ServerUnderTest
from tests.support.law import PROJECT, deploy_project, random_events, wrong_metrics
from tests.support.processes import worker
from tests.support.sessions import SLEEPERS, terminate
from tests.support.waiting import wait_until

Connect = Callable[..., psycopg.Connection[Any]]

AT_ONCE_S = 5.0
NEVER_S = 30.0
"""Poll so seldom that only the bell can have woken a worker."""


@pytest.fixture
def watch(connect: Connect) -> psycopg.Connection[Any]:
    return connect(autocommit=True)


@pytest.fixture
def producer(connect: Connect) -> psycopg.Connection[Any]:
    return connect()


@pytest.fixture
def listener(connect: Connect, watch: psycopg.Connection[Any]) -> Listener:
    """One that hears, and polls so seldom that this cannot be what woke it."""
    bell = Listener(connect(autocommit=True), poll=NEVER_S)
    assert bell.self_test(watch)
    return bell


def asleep(watch: psycopg.Connection[Any], sleepers: int = 1) -> Callable[[], bool]:
    return lambda: watch.execute(SLEEPERS).fetchone() == (sleepers,)


def add(conn: psycopg.Connection[Any], prefix: str = "e", number: int = 1) -> None:
    append(conn, random_events(number, prefix=prefix))


@contextmanager
def sleeping(bell: Listener, work: Callable[[], bool]) -> Iterator[threading.Thread]:
    """Somebody asleep by this bell; must have woken up by the end."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: bell.sleep(work, stop.is_set), daemon=True)
    thread.start()
    yield thread
    thread.join(AT_ONCE_S + SETTLE)
    assert not thread.is_alive(), "still asleep"


# ---------------------------------------------------------------- what a worker hears


@pytest.mark.live("law")
@pytest.mark.slow
def test_events_are_visible_at_once_through_the_whole_graph(
    database_url: str, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    deploy_project(database_url)
    with (
        worker(database_url, PROJECT, drain=False, poll=NEVER_S),
        worker(database_url, PROJECT, drain=False, poll=NEVER_S),
    ):
        for number in range(1, 4):
            wait_until(asleep(watch, 2), deadline_s=30)
            add(producer, prefix=f"{number}-", number=20)
            producer.commit()
            wait_until(
                lambda: watch.execute("SELECT events FROM metrics.everything").fetchone() == (20 * number,),  # noqa: B023
                deadline_s=AT_ONCE_S,
            )
            wait_until(lambda: wrong_metrics(database_url) == {}, deadline_s=AT_ONCE_S)


def test_an_event_from_before_the_flag_that_commits_after_it(
    listener: Listener, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    """The race that loses wake-ups: the producer looked for sleepers before there was one."""
    add(producer)
    with sleeping(listener, lambda: watch.execute("SELECT FROM refold.events").rowcount > 0):
        wait_until(asleep(watch))
        producer.commit()


def test_also_when_another_transaction_has_ended_since(
    listener: Listener, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    add(producer)
    watch.execute("SELECT pg_current_xact_id()")
    with sleeping(listener, lambda: watch.execute("SELECT FROM refold.events").rowcount > 0):
        wait_until(asleep(watch))
        producer.commit()


def test_an_event_that_comes_while_the_sleeper_looks(
    listener: Listener, connect: Connect, producer: psycopg.Connection[Any]
) -> None:
    """It notifies while nobody listens yet; the notification must be kept."""
    looks = 0

    def work() -> bool:
        nonlocal looks
        looks += 1
        add(producer, prefix=f"{looks}-")
        producer.commit()
        return False

    with sleeping(listener, work):
        pass
    # On a server that is shared, a transaction of another database can make it look again.
    assert looks == 1 or (looks > 1 and "REFOLD_TEST_DATABASE_URL" in os.environ)


def test_the_flag_stays_up_between_two_sleeps(
    listener: Listener, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    for number in range(2):
        with sleeping(listener, lambda: False):
            wait_until(asleep(watch))
            add(producer, prefix=f"{number}-")
            producer.commit()
        assert asleep(watch)()
    listener.mark_awake()
    assert asleep(watch, 0)()


def test_a_bell_that_does_not_ring_is_noticed(
    server: ServerUnderTest, connect: Connect, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    """As behind a proxy that pools transactions: here, by NOTIFY in another database."""
    bell = Listener(connect(autocommit=True), poll=0.05)
    with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as elsewhere:
        assert not bell.self_test(elsewhere, seconds=0.1)
    with sleeping(bell, lambda: False):
        assert asleep(watch, 0)()


# ---------------------------------------------------------------- wake-ups that are lost


@pytest.mark.live("law")
def test_a_ring_that_never_came_is_made_up_for_by_polling(
    database_url: str, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    deploy_project(database_url)
    producer.execute("SET refold.notify = off")
    with worker(database_url, PROJECT, drain=False, poll=0.3):
        wait_until(asleep(watch), deadline_s=30)
        add(producer)
        producer.commit()
        wait_until(lambda: watch.execute("SELECT FROM metrics.everything").rowcount == 1, deadline_s=0.3 + AT_ONCE_S)


@pytest.mark.live("law")
def test_a_listener_that_is_terminated_comes_back(
    database_url: str, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    deploy_project(database_url)
    with worker(database_url, PROJECT, drain=False, poll=NEVER_S) as process:
        wait_until(asleep(watch), deadline_s=30)
        assert terminate(watch, "refold worker") == 1
        add(producer)
        producer.commit()
        wait_until(lambda: watch.execute("SELECT FROM metrics.everything").rowcount == 1, deadline_s=5)
        assert process.poll() is None


# ---------------------------------------------------------------- what producers pay


@pytest.mark.live("law")
def test_a_frozen_worker_is_not_asleep_for_ever(
    database_url: str, connect: Connect, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    """Its session would stay, and count as asleep: each append would notify a worker that cannot hear."""
    deploy_project(database_url)
    listener = connect(autocommit=True)
    listener.execute("LISTEN refold")
    with worker(database_url, PROJECT, drain=False, poll=0.5, frozen_after=1.0) as process:
        wait_until(asleep(watch), deadline_s=30)
        process.send_signal(signal.SIGSTOP)
        wait_until(asleep(watch, 0), deadline_s=30)
        rings(listener)
        add(producer, number=20)
        producer.commit()
        assert rings(listener) == []
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: watch.execute("SELECT events FROM metrics.everything").fetchone() == (20,), deadline_s=30)
        wait_until(asleep(watch), deadline_s=30)
        assert process.poll() is None


def rings(listener: psycopg.Connection[Any]) -> list[str]:
    """What has been rung since the last look: notifications arrive in the order of commits."""
    listener.execute("SELECT pg_notify('refold', 'mark')")
    heard: list[str] = []
    for notification in listener.notifies(timeout=10):
        if notification.payload == "mark":
            return heard
        heard.append(notification.payload)
    raise AssertionError("a listener does not hear itself")


def test_nobody_is_notified_while_nobody_sleeps(
    listener: Listener, connect: Connect, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    listening = connect(autocommit=True)
    listening.execute("LISTEN refold")
    add(producer, prefix="awake-", number=100)
    producer.commit()
    assert rings(listening) == []
    with sleeping(listener, lambda: False):
        wait_until(asleep(watch))
        add(producer, prefix="asleep-", number=100)
        producer.commit()
    assert rings(listening) == [""]
    listener.mark_awake()
    add(producer, prefix="awake-again-")
    producer.commit()
    assert rings(listening) == []


def test_a_full_queue_of_notifications_does_not_fail_an_append(watch: psycopg.Connection[Any]) -> None:
    """FAULTS 22: the queue is the whole cluster's, and any stuck listener fills it."""
    if watch.info.server_version < 170000:
        pytest.skip("the size of the queue can be set from PostgreSQL 17 on")
    directory = Path(tempfile.mkdtemp(prefix="refold-test-"))
    small = SERVER_SETTINGS | {"max_notify_queue_pages": "64"}
    with EmbeddedServer.start(directory, small, delete=True) as server, ExitStack() as stack:
        migrate(server.url)
        stuck, noisy, sleeper = (stack.enter_context(psycopg.connect(server.url)) for _ in range(3))
        stuck.execute("LISTEN elsewhere")
        stuck.commit()
        stuck.execute("SELECT 'and never looks'")
        noisy.autocommit = sleeper.autocommit = True
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            for number in range(1000):
                noisy.execute("SELECT pg_notify('elsewhere', repeat('x', 7000) || %s::text)", (number,))
        sleeper.execute("SELECT pg_advisory_lock_shared(refold.sleepers_lock())")
        with Log(server.url) as log:
            assert [receipt.answer for receipt in log.append(random_events(1))] == ["accepted"]


@pytest.mark.slow
@pytest.mark.parametrize("somebody_sleeps", [False, True])
def test_cancelled_appends_leak_no_lock(
    somebody_sleeps: bool, connect: Connect, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    if somebody_sleeps:
        watch.execute("SELECT pg_advisory_lock_shared(refold.sleepers_lock())")
    random = Random(0)
    cancelled = 0
    for number in range(150):
        producer.execute("SELECT set_config('statement_timeout', %s, true)", (str(random.randint(1, 4)),))
        try:
            add(producer, prefix=f"{number}-", number=400)
        except psycopg.errors.QueryCanceled:
            cancelled += 1
        producer.rollback()
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"
    assert watch.execute(held, (producer.info.backend_pid,)).fetchone() == (0,)
    assert cancelled > 10


def test_two_phase_commit_needs_notify_off(
    listener: Listener, watch: psycopg.Connection[Any], producer: psycopg.Connection[Any]
) -> None:
    if watch.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
        pytest.skip("this server has no prepared transactions")
    with sleeping(listener, lambda: False):
        wait_until(asleep(watch))
        add(producer, prefix="rings-")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
            producer.execute("PREPARE TRANSACTION 'rings'")
        producer.rollback()
        producer.execute("SET refold.notify = off")
        add(producer, prefix="silent-")
        producer.execute("PREPARE TRANSACTION 'silent'")
        producer.commit()
        watch.execute("COMMIT PREPARED 'silent'")
        watch.execute("SELECT pg_notify('refold', '')")
    stored = watch.execute("SELECT event_id FROM refold.events").fetchall()
    assert stored == [("silent-0",)]
