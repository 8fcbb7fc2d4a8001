"""Workers count how long events took, at almost no cost, and `refold report` adds it up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.page import Applied
from refold.model.quantiles import ACCURACY, quantile
from refold.model.stream.cursor import LAST_ORDINAL, Key
from refold.service.worker.latency import LOOK_EVERY, WRITE_EVERY, Latencies
from refold.store.builds.build import Build, find
from tests.support.law import worker_connection
from tests.support.live import SHOP, drain, make_live
from tests.support.making import events
from tests.support.tampering import tamper

pytestmark = pytest.mark.live("shop")

Connection = psycopg.Connection[Any]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    with worker_connection(database_url) as conn:
        yield conn


@pytest.fixture
def build(database_url: str, worker: Connection) -> Build:
    make_live(database_url)
    return find(worker, "b.projection = 'daily'")[0]


@pytest.fixture
def last(build: Build, connect: Callable[..., Connection]) -> Key:
    """An event of an hour ago."""
    admin = connect(autocommit=True)
    append(admin, events(1))
    tamper(admin, "UPDATE refold.events SET recorded_at = clock_timestamp() - interval '1 hour'")
    row = admin.execute("SELECT txid::text::bigint, position FROM refold.events").fetchone()
    assert row is not None
    return Key(row[0], row[1], LAST_ORDINAL)


def counted(worker: Connection) -> dict[str, tuple[int, float | None]]:
    """Events and median by stage."""
    found: dict[str, dict[int, int]] = {}
    for stage, bucket, number in worker.execute("SELECT stage, bucket, events FROM refold.latencies").fetchall():
        found.setdefault(stage, {})[bucket] = number
    return {stage: (sum(counts.values()), quantile(counts, 0.5)) for stage, counts in found.items()}


def test_stages(worker: Connection, build: Build, last: Key) -> None:
    latencies = Latencies()
    latencies.note(worker, build, Applied(100, False, last, seconds=600.0))
    latencies.note(worker, build, Applied(0, False, None))
    latencies.write(worker, now=True)
    found = counted(worker)
    assert {stage: number for stage, (number, _) in found.items()} == {"waiting": 100, "applying": 100, "fresh": 100}
    # A run of this test takes less than a minute.
    for stage, seconds in (("waiting", 3000), ("applying", 600), ("fresh", 3600)):
        assert found[stage][1] == pytest.approx(seconds, rel=ACCURACY + 60 / seconds)


def test_a_look_stands_for_the_events_since_the_one_before(worker: Connection, build: Build, last: Key) -> None:
    clock = Clock()
    latencies = Latencies(clock)
    for now, number in ((0.0, 1), (LOOK_EVERY / 2, 10), (LOOK_EVERY, 100), (LOOK_EVERY * 1.5, 1000)):
        clock.now = now
        latencies.note(worker, build, Applied(number, True, last, seconds=1.0))
    latencies.write(worker, now=True)
    assert counted(worker)["fresh"][0] == 111


def test_it_writes_now_and_then_and_several_add_up(worker: Connection, build: Build, last: Key) -> None:
    clock = Clock()
    one, other = Latencies(clock), Latencies(clock)
    for each in (one, other):
        each.note(worker, build, Applied(5, False, last, seconds=1.0))
        each.write(worker)
    assert counted(worker) == {}
    clock.now = WRITE_EVERY
    for each in (one, other):
        each.write(worker)
        each.write(worker, now=True)
    assert counted(worker)["applying"][0] == 10


def test_workers_do_so(database_url: str, worker: Connection, build: Build, connect: Callable[..., Connection]) -> None:
    with connect() as producer:
        append(producer, events(7))
    drain(database_url, SHOP)
    rows = worker.execute(
        "SELECT DISTINCT b.projection FROM refold.latencies AS l JOIN refold.builds AS b USING (build_id)"
    ).fetchall()
    assert len(rows) == len(find(worker, "b.state = 'live'"))
    assert worker.execute(
        "SELECT sum(events) FROM refold.latencies WHERE build_id = %s AND stage = 'fresh'", (build.build_id,)
    ).fetchone() == (7,)
