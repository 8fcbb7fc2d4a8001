"""Producers as threads: many transactions at once, ending in every way."""

from __future__ import annotations

import threading
from random import Random

import psycopg

from refold import SourceEvent, append
from refold.postgres.connect import connect
from tests.support.law import random_events


class Producer(threading.Thread):
    """Appends in many small transactions, with pauses, savepoints and rollbacks.

    Args:
        url: the database.
        number: seeds what it does, and names its events.
        transactions: how many.
        two_phases: with PREPARE TRANSACTION, and so without the listener.
    """

    def __init__(self, url: str, number: int, transactions: int, *, two_phases: bool = False) -> None:
        super().__init__(name=f"producer {number}", daemon=True)
        self.url = url
        self.number = number
        self.transactions = transactions
        self.two_phases = two_phases
        self.acknowledged: set[str] = set()
        self.error: BaseException | None = None

    def result(self) -> set[str]:
        """The ids of all that was acknowledged; waits for the end."""
        self.join(120)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.acknowledged

    def run(self) -> None:
        try:
            self.produce()
        except BaseException as error:
            self.error = error

    def produce(self) -> None:
        random = Random(self.number)
        events = iter(random_events(self.transactions * 8, self.number, prefix=f"p{self.number}-"))
        with connect(self.url, "refold_producer") as conn:
            conn.execute(f"SET refold.notify = {'off' if self.two_phases else 'on'}")
            conn.commit()
            for transaction in range(self.transactions):
                if self.two_phases:
                    conn.tpc_begin(conn.xid(1, f"{self.number}-{transaction}", "refold"))
                kept = self.append(conn, [next(events) for _ in range(random.randint(1, 4))])
                conn.execute("SELECT pg_sleep(%s)", (random.choice([0, 0.001, 0.01]),))
                conn.execute("SELECT 1")
                undone = random.random() < 0.3
                with conn.transaction(force_rollback=undone):
                    more = self.append(conn, [next(events) for _ in range(random.randint(1, 4))])
                if not undone:
                    kept |= more
                if self.two_phases:
                    conn.tpc_prepare()
                if random.random() < 0.2:
                    conn.tpc_rollback() if self.two_phases else conn.rollback()
                else:
                    conn.tpc_commit() if self.two_phases else conn.commit()
                    self.acknowledged |= kept

    @staticmethod
    def append(conn: psycopg.Connection, events: list[SourceEvent]) -> set[str]:
        return {str(receipt.event_id) for receipt in append(conn, events)}
