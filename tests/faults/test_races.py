"""Fault 14: sessions that bring the same ids at the same time. The first wins, and nobody sees a deadlock."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.store.log.append import BULK
from tests.support.at_once import at_once
from tests.support.making import events
from tests.support.sessions import somebody_waits
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
SIZES = pytest.mark.parametrize("size", [2, BULK + 1], ids=str)


@SIZES
@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize("content", ["the same", "another"])
def test_the_second_waits_for_the_first_and_is_answered_by_its_end(
    producers: Callable[..., Connection], admin: Connection, size: int, ending: str, content: str
) -> None:
    first, second = producers(), producers()
    append(first, events(1))
    receipts: list[Any] = []
    action = {} if content == "the same" else {"action": "other"}

    def bring() -> None:
        receipts.extend(append(second, events(size, **action), source="second"))
        second.commit()

    def end() -> None:
        wait_until(lambda: somebody_waits(admin))
        getattr(first, ending)()

    at_once(bring, end)
    expected = "accepted" if ending == "rollback" else "duplicate" if content == "the same" else "conflict"
    assert [str(receipt.answer) for receipt in receipts] == [expected] + ["accepted"] * (size - 1)
    rejected = admin.execute("SELECT source, line, answer FROM refold.rejected").fetchall()
    assert rejected == ([("second", 1, "conflict")] if expected == "conflict" else [])


@SIZES
def test_batches_in_opposite_order(database_url: str, admin: Connection, size: int) -> None:
    """Single batches cannot wait for each other in a circle: each takes its ids in the same order."""
    admin.execute(f"ALTER DATABASE \"{admin.info.dbname}\" SET deadlock_timeout = '10ms'".encode())
    start = threading.Barrier(4)
    answers: dict[int, Counter[str]] = {}

    def bring(who: int) -> None:
        answers[who] = Counter()
        with Log(database_url, source=f"source{who}") as log:
            for number in range(8):
                batch = [{**event, "metadata": {"by": who}} for event in events(size, f"{number}-")]
                start.wait(30)
                receipts = log.append(batch if who % 2 else batch[::-1])
                answers[who].update(str(receipt.answer) for receipt in receipts)

    at_once(*(lambda who=who: bring(who) for who in range(4)))
    total = sum(answers.values(), Counter())
    assert total == {"accepted": 8 * size, "conflict": 3 * 8 * size}
    # The stored content is that of whoever was told "accepted", and every loser's content is kept.
    rows = admin.execute("SELECT (metadata->>'by')::integer, count(*) FROM refold.events GROUP BY 1").fetchall()
    assert dict(rows) == {who: count["accepted"] for who, count in answers.items() if count["accepted"]}
    assert admin.execute("SELECT count(*) FROM refold.rejected WHERE answer = 'conflict'").fetchone() == (3 * 8 * size,)
    assert admin.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone() == (0,)


@SIZES
def test_a_deadlock_of_several_batches_ends_in_a_retry(database_url: str, admin: Connection, size: int) -> None:
    """Two batches in one transaction can meet two others crosswise. Then the whole transaction runs again."""
    admin.execute(f"ALTER DATABASE \"{admin.info.dbname}\" SET deadlock_timeout = '10ms'".encode())
    met = threading.Barrier(2)
    tries: Counter[str] = Counter()

    def bring(first: str, second: str) -> None:
        def work(conn: Connection) -> None:
            tries[first] += 1
            append(conn, events(size, first))
            if tries[first] == 1:
                met.wait(30)
            append(conn, events(size, second))

        with Log(database_url) as log:
            log.run(work)

    at_once(lambda: bring("a", "b"), lambda: bring("b", "a"))
    assert sorted(tries.values()) == [1, 2]
    assert admin.execute("SELECT count(*) FROM refold.events").fetchone() == (2 * size,)
    assert admin.execute("SELECT count(*) FROM refold.rejected").fetchone() == (0,)
