"""Fault 24: no connection is left, no room for data, none for the WAL. With room again, all goes on by itself."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.embedded import EmbeddedServer
from refold.postgres.connect import connect
from refold.store import captures as store
from refold.store.schema.migrate import migrate
from tests.support.capturing import ORDERS, TABLE, Captured
from tests.support.clusters import SETTINGS, cluster, make_database
from tests.support.disks import filled, on_a_small_disk, small_disk
from tests.support.door import Served
from tests.support.live import make_live
from tests.support.load import Load, load, nothing_lost_or_doubled
from tests.support.making import events
from tests.support.waiting import wait_until

MB = 1024 * 1024
pytestmark = pytest.mark.slow


def shop(server: EmbeddedServer) -> str:
    url = make_database(server, "shop")
    migrate(url)
    make_live(url)
    return url


def test_no_connection_is_left() -> None:
    with cluster({"max_connections": "6", "superuser_reserved_connections": "0"}) as server:
        url = shop(server)
        with ExitStack() as taken:
            while True:
                try:
                    taken.enter_context(psycopg.connect(url))
                except psycopg.OperationalError as error:
                    assert "too many clients" in str(error) or "connection slots" in str(error)
                    break
            # Neither can begin, and both go on trying.
            producers = [Load(url, "0"), Load(url, "1")]
            for producer in producers:
                producer.start()
            wait_until(lambda: _refused(server) > 4, deadline_s=30)
            assert [producer.acknowledged for producer in producers] == [[], []]
            assert [producer.error for producer in producers] == [None, None]
        for producer in producers:
            producer.goes_on()
            producer.stop()
        nothing_lost_or_doubled(url, producers)


def test_the_connections_run_out_under_load() -> None:
    """Sessions that others ended come back when there is room; a worker too."""
    with cluster({"max_connections": "6", "superuser_reserved_connections": "1"}) as server:
        url = shop(server)
        with load(url) as producers:
            producers[0].goes_on()
            with ExitStack() as taken:
                with psycopg.connect(url, autocommit=True) as admin:
                    admin.execute(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                        " WHERE application_name IN ('refold log', 'refold worker')"
                    )
                for _ in range(6):
                    try:
                        taken.enter_context(psycopg.connect(url))
                    except psycopg.OperationalError:
                        break
                before = _refused(server)
                wait_until(lambda: _refused(server) > before, deadline_s=30)
            for producer in producers:
                producer.goes_on()
        nothing_lost_or_doubled(url, producers)


def _refused(server: EmbeddedServer) -> int:
    """How many connections the server has refused."""
    text = server.log_file.read_text(errors="replace")
    return text.count("too many clients") + text.count("remaining connection slots")


def test_the_disk_is_full_for_data() -> None:
    """Of a tablespace: the server goes on, the statements fail (53100)."""
    with small_disk(48) as place, cluster() as server:
        url = on_a_small_disk(server, place)
        make_live(url)
        with load(url) as producers:
            producers[0].goes_on()
            with filled(place, leave=256 * 1024) as remove:
                _fill(url)
                # Everybody is stuck by now, or nearly; nobody gives up.
                stuck = [len(producer.acknowledged) for producer in producers]
                assert all(producer.error is None for producer in producers)
                remove()
                wait_until(lambda: all(len(p.acknowledged) > n for p, n in zip(producers, stuck, strict=True)), 60)
        nothing_lost_or_doubled(url, producers)
        with psycopg.connect(url) as conn:
            assert conn.execute("SELECT count(*) FROM refold.events WHERE event_id LIKE 'big%'").fetchone() == (0,)


def test_the_disk_is_full_below_the_http_door(tmp_path: Path) -> None:
    """503 with the time to wait, no 500, and it resumes by itself: what was answered 201 is there, once."""
    with small_disk(48) as place, cluster() as server:
        url = on_a_small_disk(server, place)
        statuses: dict[str, int] = {}
        stopped = threading.Event()

        def client() -> None:
            n = 0
            while not stopped.is_set():
                event = {"id": f"e{n}", "action": "view", "ts": 1_770_000_000_000, "metadata": {"a": "x" * 1000}}
                reply = door.post(event)
                statuses[f"e{n}"] = reply.status
                assert reply.status != 503 or int(reply.headers["retry-after"]) >= 1
                # The same bytes again after every 5xx.
                n += reply.status in (200, 201)

        with Served(url, tmp_path / "serve.log") as door:
            sender = threading.Thread(target=client)
            sender.start()
            try:
                wait_until(lambda: len(statuses) > 3, 30)
                with filled(place, leave=256 * 1024) as remove:
                    _fill(url)
                    wait_until(lambda: 503 in statuses.values(), 60)
                    stuck = len(statuses)
                    remove()
                    wait_until(lambda: len(statuses) > stuck + 3, 60)
            finally:
                stopped.set()
                sender.join(40)
        assert set(statuses.values()) <= {200, 201, 503}
        acknowledged = sorted(id_ for id_, status in statuses.items() if status != 503)
        with psycopg.connect(url) as conn:
            stored = conn.execute("SELECT event_id FROM refold.events WHERE event_id LIKE 'e%'").fetchall()
        assert sorted(id_ for (id_,) in stored if id_ in acknowledged) == acknowledged


@pytest.mark.parametrize("on_error", ["fail", "pause"])
def test_the_disk_is_full_below_a_captured_table(tmp_path: Path, on_error: str) -> None:
    """The log's disk, and not the table's: each write fails, or goes on without its event and is recorded."""
    with small_disk(48) as place, cluster() as server:
        url = on_a_small_disk(server, place)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SET default_tablespace = pg_default")
            conn.execute(TABLE.encode())
            captured = Captured(tmp_path, url, conn)
            captured.deploy(orders=ORDERS.replace("columns", f'on_error = "{on_error}"\ncolumns', 1))
            insert = "INSERT INTO shop.orders (id) SELECT generate_series(%s::integer, %s)"
            conn.execute(insert, (1, 30))
            written = 30
            with filled(place, leave=256 * 1024) as remove:
                _fill(url)
                if on_error == "fail":
                    with pytest.raises(psycopg.errors.DiskFull) as refused:
                        for _ in range(500):
                            conn.execute(insert, (written + 1, written + 30))
                            written += 30
                    assert "refold_captures.orders_insert" in (refused.value.diag.context or "")
                    assert store.gaps(conn) == {}
                else:
                    while not store.gaps(conn):
                        conn.execute(insert, (written + 1, written + 30))
                        written += 30
                    for _ in range(20):
                        conn.execute(insert, (written + 1, written + 1))
                        written += 1
                    gaps = store.gaps(conn)[captured.capture().capture_id]
                    assert (gaps.paused, gaps.statements, gaps.failed) == (True, 21, True)
                    assert "No space left" in (gaps.error or "")
                remove()
            if on_error == "pause":
                store.resume(conn, captured.capture())
                captured.backfill(step=1000)
                assert store.gaps(conn) == {}
            conn.execute(insert, (written + 1, written + 30))
            assert conn.execute("SELECT count(*) FROM shop.orders").fetchone() == (written + 30,)
            assert captured.inserts() == list(range(1, written + 31))
            assert captured.rejected() == []


def _fill(url: str) -> None:
    """Appends until the disk is full, and gives all of it up."""
    with connect(url, "refold_producer") as conn:
        with pytest.raises(psycopg.errors.DiskFull):
            for number in range(200):
                append(conn, events(100, f"big{number}-", metadata={"padding": os.urandom(500).hex()}))
        conn.rollback()


def test_the_disk_is_full_for_the_wal() -> None:
    """The server panics: what was acknowledged is there when it is started with room again."""
    with small_disk(160) as place:
        directory = place / "server"
        settings = {**SETTINGS, "min_wal_size": "32MB", "max_wal_size": "64MB", "checkpoint_timeout": "1h"}
        server = EmbeddedServer.start(directory, settings, delete=True)
        with server:
            migrate(server.url)
            url = shop(server)
            with load(url) as producers:
                producers[0].goes_on()
                with filled(place, leave=64 * 1024) as remove:
                    panicked = threading.Event()
                    while not panicked.is_set():
                        if _panics(url):
                            panicked.set()
                    remove()
                # As a service manager does, in case that it could not even recover.
                EmbeddedServer.start(directory, settings)
                for producer in producers:
                    producer.goes_on()
            nothing_lost_or_doubled(url, producers)
            assert "No space left on device" in _logs(server)


def _panics(url: str) -> bool:
    """Writes WAL that nobody needs, until the server is gone."""
    try:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1000000))")
    except psycopg.OperationalError:
        return True
    return False


def _logs(server: EmbeddedServer) -> Any:
    return "".join(path.read_text(errors="replace") for path in server.directory.glob("log*"))
