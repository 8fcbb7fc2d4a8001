"""What goes wrong around the door, and what must hold: nothing that was acknowledged is lost, nothing is twice."""

import json
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from refold.embedded import EmbeddedServer
from refold.postgres.connect import connection
from refold.store import tokens
from refold.store.schema.migrate import migrate
from tests.service.http.test_events import event, stored
from tests.support.door import Served
from tests.support.proxy import Proxy

Connection = psycopg.Connection[Any]


@pytest.mark.parametrize("at", [1, 2])
def test_killed_between_the_commit_and_the_answer(
    database_url: str, tmp_path: Path, admin: Connection, at: int
) -> None:
    """Fault 9: the client sends again, and is told the truth."""
    served = Served(database_url, tmp_path / "log", environment={"REFOLD_CRASH_AT": f"group_committed:{at}"})
    with served as door:
        answered = []
        with pytest.raises(OSError):
            for n in range(2):
                answered.append(door.post(event(f"e{n}")).status)
        assert door.process.wait(10) == -signal.SIGKILL
        assert answered == [201] * (at - 1)
        assert len(stored(admin)) == at
        door.environment.clear()
        door.start()
        assert [door.post(event(f"e{n}")).status for n in range(2)] == ([200, 201] if at == 1 else [200, 200])
    assert stored(admin) == ["e0", "e1"]


def test_the_reply_to_the_commit_is_lost(database_url: str, server: Any, tmp_path: Path, admin: Connection) -> None:
    """Fault 6: the lane sends the group again, which the ledger knows by then."""
    with Served(database_url, tmp_path / "made.log") as made:
        token = made.token
    cut: list[bytes] = []

    def at_the_first_answer(direction: str, data: bytes) -> tuple[bytes, bool]:
        # What a statement answers leaves the server after its commit.
        if direction == "to client" and b"accepted" in data and not cut:
            cut.append(data)
            return b"", True
        return data, False

    with Proxy(server, rule=at_the_first_answer) as proxy:
        url = proxy.url_of(admin.info.dbname)
        with Served(url, tmp_path / "serve.log", token=token) as door:
            statuses = [door.post(event(f"e{n}")).status for n in range(4)]
    assert cut
    # The truth: it is in the log, and was so before this answer.
    assert statuses == [200, 201, 201, 201]
    assert stored(admin) == [f"e{n}" for n in range(4)]


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    directory = Path(tempfile.mkdtemp(prefix="refold-door-"))
    with EmbeddedServer.start(directory, {"fsync": "off"}, delete=True) as server:
        migrate(server.url)
        yield server


def load(door: Served, clients: int, seconds: float, statuses: list[tuple[str, int]], slowest: list[float]) -> None:
    """Sends single events from several clients for some time."""
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        n = 0
        while time.monotonic() < end:
            started = time.monotonic()
            try:
                statuses.append((f"{number}-{n}", door.post(event(f"{number}-{n}")).status))
            except OSError:
                statuses.append((f"{number}-{n}", 0))
            slowest.append(time.monotonic() - started)
            n += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_a_restart_of_postgres_is_latency(own_server: EmbeddedServer, tmp_path: Path) -> None:
    """Fault 12: nobody is refused, and nothing is lost or twice."""
    statuses: list[tuple[str, int]] = []
    slowest: list[float] = []
    with Served(own_server.url, tmp_path / "serve.log") as door:
        thread = threading.Thread(target=load, args=(door, 16, 6.0, statuses, slowest))
        thread.start()
        time.sleep(2)
        own_server.stop(immediate=True)
        own_server = EmbeddedServer.start(own_server.directory, {"fsync": "off"})
        thread.join()
        refused = [one for one in statuses if one[1] not in (200, 201)]
        assert refused == []
        with psycopg.connect(own_server.url) as conn:
            assert sorted(stored(conn)) == sorted(id_ for id_, _ in statuses)


@pytest.mark.slow
def test_a_silent_database_is_503_and_comes_back(own_server: EmbeddedServer, tmp_path: Path) -> None:
    """Fault 8: a server that answers nothing, for longer than a request waits."""
    with Served(own_server.url, tmp_path / "serve.log") as door, psycopg.connect(own_server.url) as conn:
        assert door.post(event("before")).status == 201
        pid = own_server.pid
        frozen = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for one in frozen:
            one.suspend()
        try:
            started = time.monotonic()
            reply = door.post(event("during"))
            assert (reply.status, 9 < time.monotonic() - started < 14) == (503, True)
            assert int(reply.headers["retry-after"]) >= 1
            assert door.get("/readyz").status == 503
        finally:
            for one in frozen:
                one.resume()
        end = time.monotonic() + 20
        while door.post(event("during")).status not in (200, 201):
            assert time.monotonic() < end
            time.sleep(0.2)
        assert sorted(stored(conn)) == ["before", "during"]


@pytest.mark.slow
def test_sigterm_under_load_loses_nothing(door: Served, admin: Connection) -> None:
    """What was answered is there, and what was not answered is not half there."""
    statuses: list[tuple[str, int]] = []
    thread = threading.Thread(target=load, args=(door, 12, 3.0, statuses, []))
    thread.start()
    time.sleep(1.2)
    assert door.stop() == 0
    thread.join()
    answered = {id_ for id_, status in statuses if status == 201}
    assert {status for _, status in statuses} <= {201, 0}
    assert len(answered) > 20
    assert answered <= set(stored(admin))


@pytest.mark.slow
def test_a_token_revoked_under_load(door: Served, admin: Connection, database_url: str) -> None:
    """Within five seconds all of it is refused, and what was answered before is there, once."""
    statuses: list[tuple[str, int]] = []
    thread = threading.Thread(target=load, args=(door, 12, 8.0, statuses, []))
    thread.start()
    time.sleep(1)
    with connection(database_url, "refold_owner", autocommit=True) as conn:
        [name] = {one.name for one in tokens.every(conn)}
        tokens.revoke(conn, name)
    time.sleep(5)
    after = len(statuses)
    thread.join()
    assert {status for _, status in statuses} == {201, 401}
    assert {status for _, status in statuses[after + 12 :]} == {401}
    assert sorted(stored(admin)) == sorted(id_ for id_, status in statuses if status == 201)


def test_a_cut_body_leaves_whole_groups(door: Served, admin: Connection) -> None:
    """Fault 7, at several places of a body of lines."""
    lines = b"".join(json.dumps(event(f"e{n}")).encode() + b"\n" for n in range(3000))
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.token}\r\n"
        f"Content-Type: application/x-ndjson\r\nContent-Length: {len(lines)}\r\n\r\n"
    ).encode()
    for part in (0, 1, 500, len(lines) // 3, len(lines) // 2, len(lines) - 1):
        with socket.create_connection(("127.0.0.1", door.port)) as client:
            client.sendall(head + lines[:part])
            time.sleep(0.3)
    end = time.monotonic() + 10
    while len(stored(admin)) < 2000 and time.monotonic() < end:
        time.sleep(0.1)
    assert len(stored(admin)) % 1000 == 0
    reply = door.post(lines, as_="application/x-ndjson")
    assert reply.body["accepted"] + reply.body["duplicate"] == 3000
    assert len(stored(admin)) == 3000


@pytest.mark.slow
def test_heads_that_never_end_are_closed(door: Served) -> None:
    """500 sockets that send a byte now and then keep nobody else out."""
    sockets = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(500)]
    for client in sockets:
        client.sendall(b"POST /v1/events HTTP/1.1\r\nX: ")
    assert door.post(event()).status == 201
    end = time.monotonic() + 15
    open_ = set(range(500))
    while open_ and time.monotonic() < end:
        time.sleep(1)
        for n in list(open_):
            try:
                sockets[n].sendall(b"a")
                sockets[n].setblocking(False)
                if sockets[n].recv(1) == b"":
                    open_.discard(n)
            except BlockingIOError:
                sockets[n].setblocking(True)
            except OSError:
                open_.discard(n)
    assert not open_
    for client in sockets:
        client.close()


@pytest.mark.slow
def test_a_slow_body_is_refused(door: Served, admin: Connection) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as client:
        client.sendall(
            f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 408")


def test_several_processes_share_a_port(database_url: str, tmp_path: Path, admin: Connection) -> None:
    with Served(database_url, tmp_path / "serve.log", ("--processes", "2")) as door:
        assert {door.post(event(f"e{n}")).status for n in range(30)} == {201}
        children = [
            one for one in psutil.Process(door.process.pid).children() if "spawn_main" in " ".join(one.cmdline())
        ]
        assert len(children) == 2
        children[0].kill()
        end = time.monotonic() + 10
        fine = 0
        while fine < 20 and time.monotonic() < end:
            try:
                fine = fine + 1 if door.post(event(f"f{fine}")).status in (200, 201) else 0
            except OSError:
                fine = 0
        assert fine == 20
        assert door.stop() == 0
    assert len(stored(admin)) >= 50
