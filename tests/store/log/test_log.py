"""`Log`: its batches survive whatever happens to the connection, and change nothing when they are sent twice."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from refold import Log
from refold.postgres.retry import retrying
from refold.store.log.append import BULK
from refold.store.log.log import PESSIMISTIC_BATCHES
from tests.conftest import ServerUnderTest
from tests.support.making import events, ids, rejected, stored
from tests.support.proxy import Proxy, cut_after, reply_lost
from tests.support.sessions import pids, terminate
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
SIZES = pytest.mark.parametrize("size", [3, BULK + 1], ids=str)


@SIZES
def test_a_lost_reply_to_commit(server: ServerUnderTest, admin: Connection, size: int) -> None:
    """The events are in, and the producer cannot know: it sends them again."""
    offered = events(size)
    with Proxy(server, reply_lost("COMMIT")) as proxy, Log(proxy.url_of(admin.info.dbname), source="app") as log:
        receipts = log.append([*offered, {"id": "bad"}])
        assert proxy.cuts == 1
    assert [str(r.answer) for r in receipts] == ["duplicate"] * size + ["invalid"]
    assert stored(admin) == ids(offered)
    reason = "action: is missing; ts: is missing"
    assert rejected(admin) == [("app", size + 1, "invalid", reason)]


@SIZES
def test_a_connection_cut_anywhere(server: ServerUnderTest, admin: Connection, size: int) -> None:
    """All or nothing of a batch, wherever the wire breaks; and all in the end."""
    with Proxy(server) as whole, Log(whole.url_of(admin.info.dbname)) as log:
        log.append(events(size, "whole"))
        log.close()
        length = whole.sent
    offered = events(size, "whole")
    for count in range(1, length, max(1, length // 12)):
        batch = events(size, f"cut{count}-")
        with Proxy(server, cut_after(count)) as proxy, Log(proxy.url_of(admin.info.dbname)) as log:
            answers = {str(receipt.answer) for receipt in log.append(batch)}
            assert proxy.cuts == 1
        assert answers in ({"accepted"}, {"duplicate"})
        offered += batch
    assert stored(admin) == ids(offered)


def test_a_terminated_backend(database_url: str, admin: Connection, connect: Any) -> None:
    """Ended by an operator while it waits for another's events."""
    blocker = connect()
    blocker.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('e1', 'x', now())")
    receipts: list[Any] = []
    with Log(database_url) as log:
        thread = threading.Thread(target=lambda: receipts.extend(log.append(events(3))))
        thread.start()
        (pid,) = wait_until(lambda: pids(admin, "refold log", waiting=True))
        admin.execute("SELECT pg_terminate_backend(%s)", (pid,))
        wait_until(lambda: [again for again in pids(admin, "refold log", waiting=True) if again != pid])
        blocker.rollback()
        thread.join(30)
    assert [str(receipt.answer) for receipt in receipts] == ["accepted"] * 3
    assert stored(admin) == ids(events(3))


def test_idle_sessions_that_were_ended_do_no_harm(database_url: str, admin: Connection) -> None:
    with Log(database_url) as log:
        log.append(events(1))
        assert terminate(admin, "refold log") == 1
        assert [str(r.answer) for r in log.append(events(2))] == ["duplicate", "accepted"]
    assert stored(admin) == ids(events(2))


def test_what_a_retry_cannot_mend_is_raised_at_once(database_url: str, admin: Connection) -> None:
    attempts = []

    def work(conn: Connection) -> None:
        attempts.append(1)
        conn.execute("SELECT 1 / 0")

    with Log(database_url) as log:
        with pytest.raises(psycopg.errors.DivisionByZero):
            log.run(work)
        admin.execute("REVOKE EXECUTE ON FUNCTION refold.admit(jsonb) FROM refold_producer")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            log.append(events(1))
    assert attempts == [1]


def test_errors_of_the_moment_run_the_whole_transaction_again(database_url: str, admin: Connection) -> None:
    states = ["40001", "40P01", "57P01", "53300", "55P03", "08006"]
    for state in states:
        attempts: list[int] = []

        def work(conn: Connection, state: str = state, attempts: list[int] = attempts) -> int:
            attempts.append(1)
            conn.execute("INSERT INTO refold.events (event_id, action, ts) VALUES (%s, 'x', now())", (state,))
            if len(attempts) < 3:
                conn.execute(f"DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '{state}'; END $$".encode())
            return 7

        with Log(database_url) as log:
            assert log.run(work) == 7
        assert len(attempts) == 3
    assert stored(admin) == sorted(states)


def test_retries_end() -> None:
    attempts = []
    with pytest.raises(psycopg.OperationalError, match="gone"):
        for attempt in retrying(seconds=0.05):
            with attempt:
                attempts.append(1)
                raise psycopg.OperationalError("gone")
    assert len(attempts) > 1


def test_after_a_refused_copy_a_source_is_classified_for_a_while(database_url: str) -> None:
    """A refused COPY is half wasted, and leaves dead rows behind."""
    with Log(database_url) as log:
        log.append(events(BULK + 1))
        assert log.optimistic
        log.append(events(BULK + 2))
        assert not log.optimistic
        for number in range(PESSIMISTIC_BATCHES):
            assert not log.optimistic
            log.append(events(1, f"fresh{number}-"))
        assert log.optimistic
        log.append([*events(BULK), {"id": "e1", "action": "other", "ts": 0}])
        assert not log.optimistic


def test_a_log_is_used_again_after_it_was_closed(database_url: str, admin: Connection) -> None:
    with Log(database_url) as log:
        log.append(events(1))
        log.close()
        log.append(events(2))
    assert stored(admin) == ids(events(2))
    wait_until(lambda: not pids(admin, "refold log"))
