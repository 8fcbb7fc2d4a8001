"""`refold metrics`: the real command and the real server, while all is well and while it is not."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.openmetrics import parser

from refold import append
from refold.embedded import EmbeddedServer
from refold.exporter.exporter import KEPT_S, PATIENCE_S, Exporter
from refold.store.schema.migrate import migrate
from tests.conftest import SERVER_SETTINGS, ServerUnderTest
from tests.support.live import SHOP, make_live
from tests.support.logins import login
from tests.support.making import events
from tests.support.proxy import Proxy, silent_after

Connection = psycopg.Connection[Any]


@dataclass
class Scraped:
    """What the server has answered."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def up(self) -> bool:
        """What `refold_up` says; fails if the page is not whole."""
        assert self.status == 200
        text = self.content.decode()
        [value] = re.findall(r"^refold_up (\d)$", text, re.MULTILINE)
        names = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
        assert (names == {"refold_up"}) == (value == "0"), "half a page"
        return bool(value == "1")


@contextmanager
def listening(url: str, log: Path, *options: str, listen: str = "127.0.0.1:0") -> Iterator[int]:
    """A process of `refold metrics --listen`; gives its port."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "refold", "metrics", "--listen", listen, *options],
            env={**os.environ, "REFOLD_DATABASE_URL": url}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while not (found := re.findall(rb"listening on http://\S+:(\d+)/metrics", log.read_bytes())):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield int(found[0])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def get(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> Scraped:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = client.getresponse()
        return Scraped(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        client.close()


@pytest.mark.live("shop")
def test_a_scraper_gets_what_it_asks_for(database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(database_url) as conn:
        append(conn, events(7))
    with listening(database_url, tmp_path / "log") as port:
        found = get(port, accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert found.up and found.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        parse: Any = parser.text_string_to_metric_families
        families = {one.name: one for one in parse(found.content.decode())}
        assert families["refold_events"].samples[0].value == 7
        plain = get(port)
        assert plain.up and plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        zipped = get(port, accept_encoding="gzip")
        assert zipped.headers["content-encoding"] == "gzip" and len(zipped.content) < len(plain.content) / 4
        single = get(port, "/metrics?projection=daily")
        assert single.up and set(re.findall(rb'projection="(\w+)"', single.content)) == {b"daily"}
        assert get(port, "/metrics?" + "&".join(f"projection=n{n}" for n in range(50))).status == 400
        assert get(port, method="POST").status == 405
        assert get(port, "/").status == 404
        assert get(port, "/livez").status == get(port, "/readyz").status == 200
        assert get(port, method="HEAD").status == 200


@pytest.mark.live("shop")
def test_a_page_of_another_name_reads_nothing(database_url: str, tmp_path: Path) -> None:
    """DNS rebinding: a page on evil.example lets that name lead to 127.0.0.1."""
    with listening(database_url, tmp_path / "log", "--allow-host", "scraped.example") as port:
        for host in ("evil.example", f"evil.example:{port}", "", "127.0.0.1.evil.example", "192.0.2.1", "a@127.0.0.1"):
            for path in ("/metrics", "/livez", "/readyz"):
                refused = get(port, path, host=host)
                assert refused.status in (400, 421) and b"refold_" not in refused.content, host
        for host in ("localhost", "127.0.0.1", f"127.0.0.1:{port}", "[::1]:9", "Scraped.Example:80"):
            assert get(port, host=host).up, host


@pytest.mark.slow
def test_beyond_loopback_only_if_it_is_meant(database_url: str, tmp_path: Path) -> None:
    for host in ("0.0.0.0", "[::]", "192.0.2.1", "example.com"):
        refused = subprocess.run(
            [sys.executable, "-m", "refold", "metrics", "--listen", f"{host}:0"],
            env={**os.environ, "REFOLD_DATABASE_URL": database_url},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert refused.returncode == 2
        assert "can be reached from other machines" in refused.stderr and "--beyond-loopback" in refused.stderr
    with listening(database_url, tmp_path / "log", "--beyond-loopback", listen="0.0.0.0:0") as port:
        assert get(port, host="192.0.2.1").status == 200
        assert get(port, host="evil.example").status == 421


@pytest.mark.slow
def test_the_database_goes_away_and_comes_back(tmp_path: Path) -> None:
    """The page is whole or says that nothing is known, and recovers by itself."""
    # Not below pytest's own directory, which pytest closes to the user that runs the server.
    directory = Path(tempfile.mkdtemp(prefix="refold-test-"))
    try:
        with EmbeddedServer.start(directory, SERVER_SETTINGS, keep=False) as embedded:
            url = embedded.url
            migrate(url)
            make_live(url, SHOP)
        log = tmp_path / "log"
        # It starts while the database is away, too.
        with listening(url, log) as port:
            assert not get(port).up
            assert get(port, "/readyz").status == 503 and get(port, "/livez").status == 200
            for _ in range(2):
                with EmbeddedServer.start(directory, SERVER_SETTINGS, keep=False) as embedded:
                    assert embedded.url == url
                    wait_for(port, up=True)
                    assert get(port, "/readyz").status == 200
                wait_for(port, up=False)
                assert get(port, "/readyz").status == 503
        said = log.read_text()
        assert said.count("metrics cannot be read") == 3 and said.count("answers again") == 2, said
        assert "Traceback" not in said
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def wait_for(port: int, *, up: bool) -> None:
    end = time.monotonic() + 3 * KEPT_S
    while get(port).up != up:
        assert time.monotonic() < end
        time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.live("shop")
def test_a_database_that_hangs_is_not_waited_for(server: ServerUnderTest, database_url: str, conn: Connection) -> None:
    with Proxy(server, silent_after(1)) as proxy:
        exporter = Exporter(proxy.url_of(conn.info.dbname))
        began = time.monotonic()
        assert exporter.readings() is None
        assert time.monotonic() - began < PATIENCE_S + 3
        # The proxy leaves later connections alone.
        end = time.monotonic() + 20
        while exporter.readings() is None:
            assert time.monotonic() < end
            time.sleep(0.2)
        exporter.close()


@pytest.mark.live("shop")
def test_a_table_that_is_locked_gives_no_half_page(database_url: str, admin: Connection) -> None:
    exporter = Exporter(database_url)
    with admin.transaction():
        admin.execute("LOCK TABLE refold.duties")
        began = time.monotonic()
        assert exporter.readings() is None
        assert time.monotonic() - began < 4
    exporter.close()


@pytest.mark.live("shop")
def test_a_metric_that_is_locked_holds_up_no_scrape(database_url: str, admin: Connection) -> None:
    exporter = Exporter(database_url)
    with admin.transaction():
        row = admin.execute("SELECT table_name FROM refold.builds WHERE state = 'live' LIMIT 1").fetchone()
        assert row is not None
        admin.execute(f"LOCK TABLE refold_builds.{row[0]} IN ACCESS EXCLUSIVE MODE".encode())
        assert exporter.ready
    exporter.close()


@pytest.mark.live("shop")
def test_many_scrapers_cost_one_reading(database_url: str, admin: Connection) -> None:
    at = [0.0]
    reads = 0

    def counted(conn: psycopg.Connection) -> dict[Any, Any]:
        nonlocal reads
        reads += 1
        return {}

    exporter = Exporter(database_url, exemplars=counted, clock=lambda: at[0])
    threads = [threading.Thread(target=exporter.scrape) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == 1
    at[0] = KEPT_S - 0.1
    exporter.scrape("application/openmetrics-text")
    assert reads == 1
    at[0] = KEPT_S
    exporter.scrape()
    assert reads == 2
    exporter.close()


@pytest.mark.live("shop")
def test_it_acts_as_an_observer(database_url: str, server: ServerUnderTest, conn: Connection, tmp_path: Path) -> None:
    conn.autocommit = True
    with login(server, conn, "refold_observer") as url, listening(url, tmp_path / "log") as port:
        assert get(port).up
        roles = conn.execute(
            "SELECT usename = current_user FROM pg_stat_activity WHERE application_name = 'refold exporter'"
        ).fetchall()
        assert roles == [(False,)]
    with login(server, conn, "refold_analyst") as url:
        refused = subprocess.run(
            [sys.executable, "-m", "refold", "metrics", "--listen", "127.0.0.1:0"],
            env={**os.environ, "REFOLD_DATABASE_URL": url},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert refused.returncode == 2 and "may not act as refold_observer" in refused.stderr


def test_what_another_cluster_has_left_is_not_shown(database_url: str, admin: Connection) -> None:
    admin.execute("UPDATE refold.settings SET system_identifier = 1")
    exporter = Exporter(database_url)
    assert exporter.readings() is None
    exporter.close()
