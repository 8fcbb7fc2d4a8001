"""Killing a worker with -9 while it holds a page: rows are written, and nothing of it is committed."""

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
"""Batches of new events at most, until the worker is met in the middle of one."""
STEADY_S = 0.02
"""Seconds between two looks that must agree: the worker's last words may still be on their way to the server."""


@dataclass(frozen=True, slots=True)
class Killed:
    """A worker's end.

    Args:
        hand: the worker that was.
        metrics: what it was writing.
        batches: how many batches of events it took to meet it at work.
        at: when, on the monotonic clock.
    """

    hand: Hand
    metrics: tuple[str, ...]
    batches: int
    at: float


def kill_at_work(conn: psycopg.Connection, hand: Hand, feed: Callable[[int], None]) -> Killed:
    """Kills a worker in mid-page. It is frozen for each look, so that what is seen stays so until it dies.

    Args:
        conn: a superuser's connection, in autocommit mode.
        hand: which worker.
        feed: appends new events; told which time it is, from 1.

    Raises:
        TooLong: it was never met at work.
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
    raise TooLong(f"worker {hand.pid} was not met in the middle of a page")


def _at_work(conn: psycopg.Connection, hand: Hand) -> tuple[str, ...]:
    """The metrics that a frozen worker has begun to write in a transaction that is still open."""
    seen: list[tuple[str, ...]] = []

    def steady() -> bool:
        waits, metrics = _look(conn, hand)
        # Until its server process waits for it, the worker may be past the point that we see.
        if not waits:
            seen.clear()
            return False
        seen.append(metrics)
        return len(seen) > 1

    wait_for(steady, "the frozen worker's session rests", every_s=STEADY_S)
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
