"""Retries of whole transactions, where `refold.postgres.sqlstate` says that they may succeed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg
from tenacity import (
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random,
    wait_random_exponential,
)

from refold.errors import OnStandby
from refold.postgres.sqlstate import transient

T = TypeVar("T")


def away(error: BaseException) -> bool:
    """Whether the primary is away: `transient`, or a standby answers. For those who have met a primary before.

    Whoever begins on a standby was sent to the wrong server; later on it is a failover, which comes to an end.
    """
    return transient(error) or isinstance(error, OnStandby)


def retrying(seconds: float = 60.0, *, retried: Callable[[BaseException], bool] = transient) -> Retrying:
    """Attempts with jittered exponential back-off from 20 ms to 2 s, for `seconds` at most."""
    return Retrying(
        retry=retry_if_exception(retried),
        wait=wait_random_exponential(multiplier=0.02, max=2.0),
        stop=stop_after_delay(seconds),
        reraise=True,
    )


def after_deadlocks() -> Retrying:
    """Five attempts at a transaction that Postgres may end to resolve a deadlock: whoever was in the way goes on."""
    return Retrying(
        retry=retry_if_exception_type(psycopg.errors.DeadlockDetected),
        wait=wait_random(0.05, 0.3),
        stop=stop_after_attempt(5),
        reraise=True,
    )


def in_short_attempts(conn: psycopg.Connection, seconds: float, work: Callable[[], T]) -> T:
    """Runs a transaction that needs locks for which others may have to leave first.

    It waits 200 ms for each, and then begins again: behind a lock that waits in the queue, everybody would wait.

    Args:
        conn: in autocommit mode.
        seconds: for how long to try.
        work: what to do in the transaction; it may run several times.

    Raises:
        psycopg.errors.LockNotAvailable: somebody held a lock all the time.
    """
    attempts = Retrying(
        retry=retry_if_exception_type((psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)),
        wait=wait_random(0.05, 0.3),
        stop=stop_after_delay(seconds),
        reraise=True,
    )
    for attempt in attempts:
        with attempt, conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '200ms'")
            return work()
    raise AssertionError("unreachable: the retries end with a return or an exception")
