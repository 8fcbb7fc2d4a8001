"""A load that goes on while the server fails: producers that count what was acknowledged, and a worker process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from refold import Log
from tests.support.live import SHOP, drain, wrong
from tests.support.making import events
from tests.support.processes import worker
from tests.support.waiting import wait_until


class Load(threading.Thread):
    """A producer with retries, as applications are written: one batch after the other, until it is told to stop.

    Args:
        url: the database.
        name: names its events.
        size: events in a batch.
    """

    def __init__(self, url: str, name: str, size: int = 3) -> None:
        super().__init__(name=f"load {name}", daemon=True)
        self.url = url
        self.size = size
        self.acknowledged: list[str] = []
        self._stopped = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with Log(self.url) as log:
                batch = 0
                while not self._stopped.is_set():
                    offered = events(self.size, f"{self.name} {batch}-")
                    # What was stored before its reply was lost comes back as a duplicate.
                    receipts = log.append(offered)
                    assert {str(receipt.answer) for receipt in receipts} <= {"accepted", "duplicate"}
                    self.acknowledged += [str(receipt.event_id) for receipt in receipts]
                    batch += 1
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        """Stops after the batch in hand; raises what it failed with."""
        self._stopped.set()
        self.join(90)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error

    def goes_on(self) -> None:
        """Waits until more has been acknowledged than now."""
        before = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) > before or self.error, deadline_s=60)
        if self.error is not None:
            raise self.error


@contextmanager
def load(url: str, producers: int = 2, folder: Path = SHOP) -> Iterator[list[Load]]:
    """Producers and a worker on a database in which the shop is live; stopped at the end."""
    running = [Load(url, str(number)) for number in range(producers)]
    with ExitStack() as stack:
        process = stack.enter_context(worker(url, folder, drain=False, poll=0.1))
        for producer in running:
            producer.start()
        yield running
        for producer in running:
            producer.stop()
        # By itself: the worker that was there all the time.
        stored = sum(len(producer.acknowledged) for producer in running)
        wait_until(lambda: counted(url) == stored or process.poll() is not None, deadline_s=60)
        assert process.poll() is None, process.communicate()[1]


def counted(url: str) -> int:
    """Events in a metric."""
    try:
        with psycopg.connect(url) as conn:
            row = conn.execute("SELECT coalesce(sum(events), 0)::integer FROM metrics.daily").fetchone()
            assert row is not None
            return int(row[0])
    except psycopg.OperationalError:
        return -1


def nothing_lost_or_doubled(url: str, producers: list[Load]) -> None:
    """The log is exactly what was acknowledged, and the metrics are their queries over it."""
    acknowledged = sorted(event_id for producer in producers for event_id in producer.acknowledged)
    drain(url)
    with psycopg.connect(url) as conn:
        stored = conn.execute('SELECT event_id FROM refold.events ORDER BY event_id COLLATE "C"').fetchall()
    assert [event_id for (event_id,) in stored] == acknowledged
    assert wrong(url) == {}
