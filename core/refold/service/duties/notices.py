"""The duties that tell routes of incidents, send open ones to Alertmanager again, and call heartbeats.

They run on a thread of their own (`refold.service.duties.registry.NOTICES`), over no open transaction: a receiver that
hangs delays notices, and nothing else. What was sent and not recorded is sent again, under the same key.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import psycopg

from refold.postgres.rows import one_row
from refold.sinks.notices import Sender
from refold.sinks.receiver import DeliveryError, Refused, TooLarge, Unavailable
from refold.store import notices as store
from refold.store.builds.compiled import Compiler
from refold.store.notices import Notice, Route

log = logging.getLogger("refold.worker")

NAME = "notices"
AGAIN = "open alerts"
HEARTBEAT = "heartbeat"
TOGETHER = 100
"""Notices that one run sends over a route."""
DOUBLINGS = 10
"""Most doublings of a pause: after days of failures a number would not fit."""
PAUSE_S = 5.0, 300.0
"""Longest pause after the first failure, and after any, seconds."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Send what is due over each route, oldest first."""
    for route in _routes(conn, "webhook", "alertmanager"):
        found = store.due(conn, route.name, TOGETHER)
        groups = [found] if route.kind == "alertmanager" and found else [[one] for one in found]
        _over(conn, route, [(group, Sender.send) for group in groups])


def send_again(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Send open incidents again to Alertmanager, which takes them for resolved otherwise."""
    for route in _routes(conn, "alertmanager"):
        if found := store.still_open(conn, route.name):
            _over(conn, route, [([], partial(_again, found))])


def beat(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Call the address of each heartbeat: where the call is missed, nobody works on this database."""
    for route in _routes(conn, "heartbeat"):
        _over(conn, route, [([], lambda sender, notices, now: sender.beat())])


Send = Callable[[Sender, Sequence[Notice], datetime], None]


def _again(told: Sequence[Notice], given: Sender, notices: Sequence[Notice], now: datetime) -> None:
    given.send(told, now)


def _routes(conn: psycopg.Connection, *kinds: str) -> list[Route]:
    """Return the routes of some kinds that do not rest after a failure, those that work before those that fail."""
    (now,) = one_row(conn, "SELECT clock_timestamp()")
    # A pause that is longer than any was written by a clock that was ahead.
    awake = [
        one
        for one in store.routes(conn)
        if one.kind in kinds
        and (one.retry_at is None or one.retry_at <= now or (one.retry_at - now).total_seconds() > 2 * 3600)
    ]
    return sorted(awake, key=lambda one: one.failures)


def sender(conn: psycopg.Connection, route: Route) -> Sender:
    """Return what sends over a route of this database."""
    system, database = one_row(conn, "SELECT system_identifier, current_database() FROM refold.settings")
    return Sender(route, f"{system} {database}", database)


def _over(conn: psycopg.Connection, route: Route, todo: Sequence[tuple[Sequence[Notice], Send]]) -> None:
    """Send over one route, until it fails."""
    if not todo:
        return
    given = sender(conn, route)
    try:
        for due, send in todo:
            notices = store.take(conn, due)
            if due and not notices:
                continue
            (now,) = one_row(conn, "SELECT clock_timestamp()")
            try:
                send(given, notices, now)
            except (Refused, TooLarge) as error:
                log.warning("route %s refuses a notice: %s", route.name, error)
                store.refused(conn, notices, str(error))
            except DeliveryError as error:
                pause = min(PAUSE_S[0] * 2.0 ** min(route.failures, DOUBLINGS), PAUSE_S[1]) * random.uniform(0.5, 1.0)
                if isinstance(error, Unavailable) and error.retry_after is not None:
                    pause = max(pause, error.retry_after)
                if not route.failures:
                    log.warning("route %s fails: %s", route.name, error)
                store.failed(conn, route.name, notices, str(error), pause)
                return
            else:
                store.sent(conn, notices)
        store.worked(conn, route.name)
    finally:
        given.close()
