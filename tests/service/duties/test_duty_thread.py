"""Duties run beside the pages: neither holds the other up, and none outlives the worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from refold import append
from refold.model.projection.transform import Transform
from refold.service.duties.schedule import Duty
from refold.service.duties.thread import NAME
from refold.service.worker.loop import Worker
from refold.store.builds.build import find, lock
from refold.store.builds.compiled import Compiler
from tests.support.live import SHOP, make_live
from tests.support.making import events
from tests.support.sessions import pids, terminate
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

GATE = 4711
"""An advisory lock by which a test holds a duty in the middle of a statement."""


class Counted:
    """A duty that counts how often it ran, and can be made to do something."""

    def __init__(self, name: str = "count", every: float = 0.01) -> None:
        self.runs = 0
        self.what: Callable[[Connection], object] = lambda conn: None
        self.duty = Duty(name, every, self._run)

    def _run(self, conn: Connection, compiler: Compiler) -> None:
        self.runs += 1
        self.what(conn)


def at_the_gate(conn: Connection) -> None:
    with conn.transaction():
        conn.execute("SET LOCAL lock_timeout = 0")
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (GATE,))


@pytest.fixture
def admin(conn: Connection) -> Connection:
    """A superuser's connection in autocommit mode."""
    conn.autocommit = True
    return conn


@pytest.fixture
def opened(connect: Callable[..., Connection]) -> Callable[[], object]:
    """Opens the gate, which is shut until then."""
    # Not by a transaction: a deploy waits for those.
    holder = connect(autocommit=True)
    holder.execute("SELECT pg_advisory_lock(%s)", (GATE,))
    return lambda: holder.execute("SELECT pg_advisory_unlock(%s)", (GATE,))


class Working:
    """A worker in a thread of this process."""

    def __init__(self, url: str, *duties: Duty, **options: Any) -> None:
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self.worker = Worker(url, SHOP, duties=duties, poll=0.05, stopped=self._stop.is_set, **options)
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.failure = error

    def stop(self, seconds: float = 30.0) -> None:
        self._stop.set()
        self.thread.join(seconds)
        assert not self.thread.is_alive()


@contextmanager
def working(url: str, *duties: Duty, **options: Any) -> Iterator[Working]:
    """A worker that ends, and has not failed."""
    worker = Working(url, *duties, **options)
    try:
        yield worker
    finally:
        worker.stop()
    assert worker.failure is None


def duty_threads() -> int:
    """How many threads of this process do duties."""
    return sum(thread.name == NAME for thread in threading.enumerate())


def waits(admin: Connection) -> bool:
    """Whether a duty waits for a lock."""
    return bool(pids(admin, NAME, waiting=True))


def counted_events(admin: Connection) -> int:
    row = admin.execute("SELECT coalesce(sum(events), 0)::integer FROM metrics.daily").fetchone()
    assert row is not None
    return int(row[0])


def add(admin: Connection, prefix: str) -> None:
    append(admin, events(5, prefix))


@pytest.mark.live("shop")
def test_pages_are_applied_while_a_duty_is_at_it(
    database_url: str, admin: Connection, opened: Callable[[], object]
) -> None:
    make_live(database_url)
    counted = Counted()
    counted.what = at_the_gate
    with working(database_url, counted.duty):
        wait_until(lambda: waits(admin))
        for number in range(1, 4):
            add(admin, f"{number}-")
            wait_until(lambda: counted_events(admin) == 5 * number)  # noqa: B023
        assert waits(admin) and counted.runs == 1
        opened()
        wait_until(lambda: counted.runs >= 3)


@pytest.mark.live("shop")
def test_duties_are_done_while_a_page_is_in_hand(
    database_url: str, admin: Connection, connect: Callable[..., Connection]
) -> None:
    tables = make_live(database_url)
    counted = Counted()
    holder = connect()
    holder.execute(f"LOCK TABLE {tables['daily']} IN ACCESS EXCLUSIVE MODE".encode())
    with working(database_url, counted.duty):
        add(admin, "e")
        wait_until(lambda: pids(admin, "refold worker", waiting=True))
        before = counted.runs
        wait_until(lambda: counted.runs >= before + 3)
        assert pids(admin, "refold worker", waiting=True)
        holder.rollback()


@pytest.mark.live("shop")
def test_one_that_fails_holds_up_neither_pages_nor_others(database_url: str, admin: Connection) -> None:
    make_live(database_url)
    failing, leaving, counted = Counted("failing"), Counted("leaving"), Counted("counted")
    failing.what = lambda conn: conn.execute("SELECT 1 / 0")

    def leave(conn: Connection) -> None:
        raise SystemExit("as a transform may")

    leaving.what = leave
    with working(database_url, failing.duty, leaving.duty, counted.duty):
        wait_until(lambda: min(failing.runs, leaving.runs, counted.runs) >= 3, deadline_s=30)
        add(admin, "e")
        wait_until(lambda: counted_events(admin) == 5)
    query = "SELECT name, split_part(error, ':', 1) FROM refold.duties WHERE error IS NOT NULL ORDER BY 1"
    assert admin.execute(query).fetchall() == [("failing", "DivisionByZero"), ("leaving", "SystemExit")]


def test_told_to_stop_it_cancels_what_it_is_doing(
    database_url: str, admin: Connection, opened: Callable[[], object]
) -> None:
    """And that is no failure: the next worker takes it up."""
    counted = Counted(every=0.0)
    counted.what = at_the_gate
    with working(database_url, counted.duty) as worker:
        wait_until(lambda: waits(admin))
        worker.stop(seconds=5)
        assert duty_threads() == 0
        wait_until(lambda: pids(admin, NAME) == [])
    assert admin.execute("SELECT ended_at > started_at, failures, error FROM refold.duties").fetchall() == [
        (True, 0, None)
    ]
    opened()
    with working(database_url, counted.duty):
        wait_until(lambda: counted.runs >= 3)


@pytest.mark.live("shop")
def test_a_function_that_does_not_return_is_left_behind(
    database_url: str, admin: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its connection, so that what it had begun is taken back."""
    make_live(database_url)
    monkeypatch.setattr("refold.service.duties.thread.END_S", 0.1)
    back, inside = threading.Event(), threading.Event()
    counted = Counted()

    def stuck(conn: Connection) -> None:
        with conn.transaction():
            assert lock(conn, find(admin)[0].build_id) is not None
            inside.set()
            back.wait()

    counted.what = stuck
    with working(database_url, counted.duty) as worker:
        assert inside.wait(30)
        worker.stop(seconds=5)
        assert "its function does not return" in caplog.text
        wait_until(lambda: pids(admin, NAME) == [])
        assert duty_threads() == 1
        back.set()
        wait_until(lambda: duty_threads() == 0)
    assert counted.runs == 1


def test_one_whose_session_is_ended_is_taken_up_again(
    database_url: str, admin: Connection, opened: Callable[[], object]
) -> None:
    counted = Counted(every=0.05)
    counted.what = at_the_gate
    with working(database_url, counted.duty):
        wait_until(lambda: waits(admin))
        (before,) = pids(admin, NAME)
        assert terminate(admin, NAME) == 1
        wait_until(lambda: waits(admin))
        assert counted.runs == 2 and before not in pids(admin, NAME)
        opened()
        wait_until(lambda: counted.runs >= 4)


@pytest.mark.live("shop")
def test_pages_and_duties_connect_again_each_by_itself(database_url: str, admin: Connection) -> None:
    make_live(database_url)
    counted = Counted()
    with working(database_url, counted.duty):
        for number, order in enumerate((("refold worker", NAME), (NAME, "refold worker")), 1):
            wait_until(lambda: pids(admin, "refold worker") and pids(admin, NAME))
            for name in order:
                assert terminate(admin, name) == 1
            before = counted.runs
            add(admin, f"{number}-")
            wait_until(lambda: counted_events(admin) == 5 * number)  # noqa: B023
            wait_until(lambda: counted.runs > before)  # noqa: B023


@pytest.mark.live("shop")
def test_when_the_pages_end_by_an_error_so_do_the_duties(
    database_url: str, admin: Connection, opened: Callable[[], object]
) -> None:
    make_live(database_url)
    counted = Counted()
    counted.what = at_the_gate

    def boom(build: object, count: int) -> None:
        raise RuntimeError("boom")

    worker = Working(database_url, counted.duty, on_page=boom)
    wait_until(lambda: waits(admin))
    add(admin, "e")
    worker.thread.join(30)
    assert isinstance(worker.failure, RuntimeError)
    assert duty_threads() == 0
    wait_until(lambda: pids(admin, NAME) == [])


@pytest.mark.live("shop")
def test_a_process_that_stops_in_a_transaction_of_a_duty_holds_nothing_for_long(
    database_url: str, admin: Connection
) -> None:
    """As when it is frozen: the server ends the session, others get the build, and the duty is done again."""
    make_live(database_url)
    (build, *_) = find(admin)
    back, inside = threading.Event(), threading.Event()
    counted = Counted(every=0.05)

    def stopped(conn: Connection) -> None:
        with conn.transaction():
            assert lock(conn, build.build_id) is not None
            inside.set()
            back.wait()

    counted.what = stopped
    with working(database_url, counted.duty, frozen_after=0.3):
        assert inside.wait(30)
        wait_until(lambda: lock(admin, build.build_id) is not None)
        counted.what = lambda conn: None
        back.set()
        wait_until(lambda: counted.runs >= 3)


@pytest.mark.live("shop")
def test_who_drains_does_no_duties(database_url: str, admin: Connection) -> None:
    make_live(database_url)
    add(admin, "e")
    counted = Counted()
    seen: list[int] = []
    Worker(database_url, SHOP, duties=[counted.duty], on_page=lambda build, count: seen.append(duty_threads())).run(
        drain=True
    )
    assert seen and not any(seen) and counted.runs == 0


def test_without_duties_there_is_neither_thread_nor_connection(database_url: str, admin: Connection) -> None:
    with working(database_url):
        wait_until(lambda: pids(admin, "refold worker"))
        assert duty_threads() == 0 and pids(admin, NAME) == []


@pytest.mark.live("shop")
def test_its_transforms_are_its_own_and_give_way(database_url: str, admin: Connection) -> None:
    """A module that keeps something must not be met by two threads."""
    make_live(database_url)
    seen: list[Transform | None] = []
    counted = Duty("look", 0.01, lambda conn, compiler: seen.append(compiler.of(conn, graded).transform))
    (graded,) = find(admin, "b.projection = 'graded'")
    with working(database_url, counted) as one:
        wait_until(lambda: seen)
        pages = one.worker._compiler.of(admin, graded).transform
    assert pages is not None and seen[0] is not None
    assert seen[0].gives is not pages.gives
    assert hasattr(seen[0].function, "__wrapped__") and not hasattr(pages.function, "__wrapped__")


def test_the_settings_are_those_of_audits(database_url: str, admin: Connection) -> None:
    """Those of pages would have an audit read an index in the order of a table."""
    seen: list[tuple[Any, ...]] = []
    counted = Counted()
    counted.what = lambda conn: seen.extend(
        conn.execute(
            "SELECT current_user, current_setting('plan_cache_mode'), current_setting('enable_seqscan'),"
            " current_setting('lock_timeout'), current_setting('statement_timeout'),"
            " current_setting('idle_in_transaction_session_timeout')"
        ).fetchall()
    )
    with working(database_url, counted.duty, frozen_after=45.0):
        wait_until(lambda: seen)
    assert seen[0] == ("refold_worker", "force_custom_plan", "on", "5s", "30s", "45s")
