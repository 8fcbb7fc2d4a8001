"""Fault 12: a backend killed, the whole server killed, again and again, under load."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.embedded import EmbeddedServer
from refold.store.schema.migrate import migrate
from tests.support.clusters import SETTINGS, cluster, make_database
from tests.support.live import make_live
from tests.support.load import load, nothing_lost_or_doubled
from tests.support.waiting import wait_until

Kill = Callable[[EmbeddedServer], None]


@pytest.fixture(scope="module")
def victim() -> Iterator[EmbeddedServer]:
    """A server that nobody else needs."""
    with cluster() as server:
        yield server


_numbers = count()


@pytest.fixture
def url(victim: EmbeddedServer) -> str:
    url = make_database(victim, f"killed_{next(_numbers)}")
    migrate(url)
    make_live(url)
    return url


def kill_a_backend(server: EmbeddedServer) -> None:
    """The postmaster ends all sessions then, and recovers."""
    pid = backend(server)
    os.kill(pid, signal.SIGKILL)


def backend(server: EmbeddedServer) -> int:
    """The process of a producer's or worker's session, in the middle of something if there is one."""

    def look() -> Any:
        try:
            with psycopg.connect(server.url) as conn:
                return conn.execute(
                    "SELECT pid FROM pg_stat_activity WHERE application_name IN ('refold log', 'refold worker')"
                    " ORDER BY state = 'active' DESC LIMIT 1"
                ).fetchone()
        except psycopg.OperationalError:
            return None

    return int(wait_until(look, deadline_s=30)[0])


def kill_the_server(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.running)
    restart(server.directory)


def stop_the_server_at_once(server: EmbeddedServer) -> None:
    server.stop(immediate=True)
    restart(server.directory)


def restart(directory: Path) -> None:
    """As a service manager does."""
    EmbeddedServer.start(directory, SETTINGS)


@pytest.mark.parametrize("kill", [kill_a_backend, kill_the_server, stop_the_server_at_once])
def test_producers_and_workers_survive_the_server(victim: EmbeddedServer, url: str, kill: Kill) -> None:
    with load(url) as producers:
        for producer in producers:
            producer.goes_on()
        kill(victim)
        for producer in producers:
            producer.goes_on()
    nothing_lost_or_doubled(url, producers)


def test_a_restart_loop(victim: EmbeddedServer, url: str) -> None:
    """No sooner is it back than it goes again."""
    with load(url, producers=3) as producers:
        for kill in (kill_a_backend, kill_the_server, kill_a_backend, stop_the_server_at_once, kill_the_server):
            producers[0].goes_on()
            kill(victim)
    nothing_lost_or_doubled(url, producers)
