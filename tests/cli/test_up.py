"""`refold up`: everything in one command, and nothing left of it after Ctrl-C."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from refold.postgres.connect import connection
from refold.store.tokens import create

from .conftest import Refold

UP_S = 60.0


class Running:
    """A process of `refold up`.

    Args:
        process: it.
        log: file with what it prints.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.ports: dict[str, int] = {}

    @property
    def text(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        """Wait until it has printed something."""
        until = time.monotonic() + UP_S
        while text not in self.text:
            assert time.monotonic() < until and self.process.poll() is None, self.text
            time.sleep(0.01)

    def wait(self) -> None:
        """Wait until both servers answer."""
        until = time.monotonic() + UP_S
        while time.monotonic() < until:
            assert self.process.poll() is None, self.text
            self.ports = {
                name: int(port) for name, port in re.findall(r"(dashboard|events) +http://[^:]+:(\d+)", self.text)
            }
            try:
                if len(self.ports) == 2 and all(self.get(name, "/livez") == 200 for name in self.ports):
                    return
            except OSError:
                pass
            time.sleep(0.1)
        pytest.fail(self.text)

    def get(self, name: str, path: str) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=10)) as client:
            client.request("GET", path)
            return client.getresponse().status

    def text_of(self, name: str, path: str, token: str) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=30)) as client:
            client.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            return client.getresponse().read().decode()

    def post(self, token: str, event: dict[str, object]) -> int:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", self.ports["events"], timeout=10)) as client:
            client.request("POST", "/v1/events", json.dumps(event), headers)
            return client.getresponse().status

    def children(self) -> list[int]:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(one) for one in listed.stdout.split()]


@contextmanager
def up(folder: Path, *options: str, inherits: tuple[int, ...] = ()) -> Iterator[Running]:
    log = folder / "up.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "refold", "up", "--port", "0", "--http-port", "0", *options],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name != "REFOLD_DATABASE_URL"},
            # Ctrl-C reaches the whole group, as in a terminal.
            start_new_session=True,
            pass_fds=inherits,
        )
    try:
        yield Running(process, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def gone(children: list[int]) -> None:
    """Wait until processes have ended."""
    until = time.monotonic() + 30
    while left := [pid for pid in children if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def shown(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT coalesce(sum(events), 0)::int FROM metrics.counts").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.slow
def test_an_event_over_http_is_in_the_metric_and_ctrl_c_leaves_nothing(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "projections").mkdir()
    (tmp_path / "projections/counts.sql").write_text("SELECT action, count(*) AS events FROM events GROUP BY action")
    with connection(database_url, "refold_owner", autocommit=True) as conn:
        token, _ = create(conn, "test")
    with up(tmp_path, "--database-url", database_url) as running:
        running.wait()
        assert running.post(token, {"id": "1", "action": "view", "ts": 0}) == 201
        until = time.monotonic() + 20
        while shown(database_url) != 1:
            assert time.monotonic() < until, running.text
            time.sleep(0.05)
        assert running.get("dashboard", "/") == 200
        children = running.children()
        assert len(children) >= 3
        os.killpg(running.process.pid, signal.SIGINT)
        assert running.process.wait(30) == 0, running.text
        assert "Stopped." in running.text
        assert "Traceback" not in running.text
        gone(children)


@pytest.mark.slow
def test_its_parts_end_when_it_is_killed(database_url: str, tmp_path: Path) -> None:
    with up(tmp_path, "--database-url", database_url, "--processes", "2") as running:
        running.wait()
        children = running.children()
        os.kill(running.process.pid, signal.SIGKILL)
        gone(children)


@pytest.mark.slow
def test_without_a_database_it_runs_its_own_and_ends_it(at_home: Refold, tmp_path: Path) -> None:
    with up(tmp_path) as running:
        running.wait()
        assert at_home("server", "status", "--json").json["running"] is True
        assert running.get("dashboard", "/") == 200
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0, running.text
    assert at_home("server", "status", "--json").json["running"] is False


@pytest.mark.slow
def test_the_first_of_two_leaves_the_server_to_the_second(at_home: Refold, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with up(tmp_path) as first:
        first.wait()
        with up(other) as second:
            second.wait()
            first.process.send_signal(signal.SIGINT)
            assert first.process.wait(60) == 0, first.text
            assert "another `refold up` uses PostgreSQL" in first.text
            assert second.get("dashboard", "/?after") == 200
            second.process.send_signal(signal.SIGINT)
            assert second.process.wait(60) == 0, second.text
    assert at_home("server", "status", "--json").json["running"] is True
    at_home("server", "stop")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_it_is_up_leaves_no_server(at_home: Refold, tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path) as running:
        running.wait_for("PostgreSQL runs in")
        os.killpg(running.process.pid, number)
        assert running.process.wait(60) == 130, running.text
        assert "Traceback" not in running.text
    assert at_home("server", "status", "--json").json["running"] is False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_its_parts_start(database_url: str, tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path, "--database-url", database_url, "--processes", "4") as running:
        running.wait_for("Ctrl-C stops everything")
        time.sleep(0.5)
        os.killpg(running.process.pid, number)
        assert running.process.wait(60) == 0, running.text
        assert "Traceback" not in running.text and "restarting" not in running.text


@pytest.mark.slow
def test_the_token_may_come_from_a_pipe(database_url: str, tmp_path: Path) -> None:
    """`--token-file <(pass refold)`: what is read once has nothing for a second reader."""
    token = "a-token-for-actions-0123456789"
    ours, given = os.pipe()
    os.write(given, token.encode())
    os.close(given)
    try:
        options = ("--database-url", database_url, "--token-file", f"/dev/fd/{ours}")
        with up(tmp_path, *options, inherits=(ours,)) as running:
            running.wait()
            assert "Sign out" in running.text_of("dashboard", "/", token)
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(60) == 0, running.text
    finally:
        os.close(ours)


@pytest.mark.slow
def test_two_that_start_at_once_share_the_server_and_no_port(at_home: Refold, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with up(tmp_path) as first, up(other) as second:
        first.wait()
        second.wait()
        assert len({*first.ports.values(), *second.ports.values()}) == 4
        for one in (first, second):
            one.process.send_signal(signal.SIGINT)
            assert one.process.wait(60) == 0, one.text
    at_home("server", "stop")


@pytest.mark.parametrize(("taken", "other"), [("--port", "--http-port"), ("--http-port", "--port")])
def test_a_port_that_is_taken(database_url: str, bare: Refold, taken: str, other: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as occupied:
        port = str(occupied.getsockname()[1])
        refused = bare("up", taken, port, other, "0", "--database-url", database_url)
    assert refused.status == 2
    assert f"cannot listen on 127.0.0.1:{port}" in refused.err and f"another {taken};" in refused.err
