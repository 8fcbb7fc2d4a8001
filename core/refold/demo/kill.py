"""Killing a worker with -9 in the middle of a page: rows are written, but not committed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from refold.demo.figures import behind
from refold.demo.stage import Hand
from refold.demo.wait import TooLong, wait_for
from refold.postgres.rows import one_row

TRIES = 32
"""Most batches of new events until the worker is found in the middle of a page."""
STEADY_S = 0.02
"""Seconds between two observations that must agree: a last statement of the worker may still be on its way."""


@dataclass(frozen=True, slots=True)
class Killed:
    """A worker that was killed.

    Args:
        hand: the worker.
        metrics: the metrics that it was writing.
        batches: number of batches of events until it was found at work.
        at: time of the kill on the monotonic clock, in seconds.
    """

    hand: Hand
    metrics: tuple[str, ...]
    batches: int
    at: float


def kill_at_work(conn: psycopg.Connection, hand: Hand, feed: Callable[[int], None]) -> Killed:
    """Kill a worker in the middle of a page. It is frozen for each observation, so that its state stays until it dies.

    Args:
        conn: a superuser's connection, in autocommit mode.
        hand: the worker.
        feed: appends new events; called with the number of the batch, from 1.

    Raises:
        TooLong: the worker was never found at work.
    """
    for number in range(1, TRIES + 1):
        feed(number)
        while behind(conn):
            hand.process.send_signal(signal.SIGSTOP)
            metrics = _at_work(conn, hand)
            if metrics:
                hand.process.kill()
                at = time.monotonic()
                hand.process.wait()
                return Killed(hand, metrics, number, at)
            hand.process.send_signal(signal.SIGCONT)
            time.sleep(0.001)
    raise TooLong(f"worker {hand.pid} was not found in the middle of a page")


def _at_work(conn: psycopg.Connection, hand: Hand) -> tuple[str, ...]:
    """Return the metrics that a frozen worker has begun to write in an open transaction."""
    seen: list[tuple[str, ...]] = []

    def steady() -> bool:
        waits, metrics = _look(conn, hand)
        # Until its server process waits for the client, a statement may still be running.
        if not waits:
            seen.clear()
            return False
        seen.append(metrics)
        return len(seen) > 1

    wait_for(steady, "the session of the frozen worker is idle", every_s=STEADY_S)
    return seen[-1] if seen[-1] == seen[-2] else ()


def _look(conn: psycopg.Connection, hand: Hand) -> tuple[bool, tuple[str, ...]]:
    row = one_row(
        conn,
        """
        SELECT bool_and(a.wait_event IN ('ClientRead', 'ClientWrite')),
               array_agg(DISTINCT b.projection) FILTER (WHERE b.projection IS NOT NULL)
        FROM pg_stat_activity AS a
        LEFT JOIN pg_locks AS l ON l.pid = a.pid AND l.mode = 'RowExclusiveLock' AND l.granted
        LEFT JOIN refold.builds AS b ON l.relation = to_regclass('refold_builds.' || quote_ident(b.table_name))
        WHERE a.usename = %s AND a.application_name = 'refold worker'
        """,
        (hand.login,),
    )
    waits, metrics = row
    return waits is not False, tuple(metrics or ())
