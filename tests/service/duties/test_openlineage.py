"""The duty that gives what is live to a catalogue: to a file, to a receiver, to one that is dead, slow or lies."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from refold.errors import InputError
from refold.service.duties import openlineage
from refold.service.duties.openlineage import NotGiven, Target, give, target
from refold.store.builds.compiled import Compiler
from tests.inspect.lineage.test_why import DAILY
from tests.support.scratch import Scratch


class Receiver(BaseHTTPRequestHandler):
    """Keeps what comes, and answers as it is told."""

    status: ClassVar[int] = 201
    got: ClassVar[list[tuple[str, str | None, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).got.append((self.path, self.headers["Authorization"], body))
        self.send_response(type(self).status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.got.clear()
    Receiver.status = 201
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_receiver_gets_what_is_live(scratch: Scratch, receiver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch.deploy(daily=DAILY)
    monkeypatch.setenv("OPENLINEAGE_URL", receiver)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "secret")
    openlineage.run(scratch.worker, Compiler(scratch.folder))
    assert {(path, key) for path, key, _ in Receiver.got} == {("/api/v1/lineage", "Bearer secret")}
    names = {body["job"]["name"].partition(".")[2] for *_, body in Receiver.got}
    assert names == {"daily"} and len(Receiver.got) == 3
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    openlineage.run(scratch.worker, Compiler(scratch.folder))
    assert len(Receiver.got) == 3


def test_a_file_gets_a_line_for_each_event(scratch: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch.deploy(daily=DAILY)
    file = tmp_path / "a b.ndjson"
    monkeypatch.setenv("OPENLINEAGE_URL", file.as_uri())
    for _ in range(2):
        openlineage.run(scratch.worker, Compiler(scratch.folder))
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(events) == 6 and {event["job"]["name"].partition(".")[2] for event in events} == {"daily"}


def test_without_a_receiver_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    openlineage.run(None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [301, 401, 500])
def test_a_refusal_is_told_without_address_and_key(receiver: str, status: int) -> None:
    Receiver.status = status
    with pytest.raises(NotGiven) as error:
        give(Target(url=f"{receiver}/secret-path", key="secret"), [{"a": 1}, {"a": 2}])
    assert str(status) in str(error.value) and "secret" not in str(error.value) + repr(Target(url="", key="secret"))
    # It was asked once, and was not followed.
    assert [path for path, *_ in Receiver.got] == ["/secret-path"]


def test_a_receiver_that_is_away(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(NotGiven, match="cannot be reached"):
        give(Target(url=f"http://127.0.0.1:{port}/"), [{}])


def test_a_receiver_that_sends_a_byte_now_and_then_holds_nobody() -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            conn, _ = server.accept()
            with conn:
                while not ended.is_set():
                    try:
                        conn.sendall(b"H")
                    except OSError:
                        return
                    ended.wait(0.05)

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(NotGiven, match="took 0 of 1 in 1 s"):
            give(Target(url=f"http://127.0.0.1:{server.getsockname()[1]}/"), [{}], seconds=1)
        assert time.monotonic() - began < 3
        ended.set()
        thread.join(5)


@pytest.mark.parametrize("url", ["catalogue:5000", "ftp://a/b", "http://", "file://host/path"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InputError) as error:
        target({"OPENLINEAGE_URL": url})
    assert url not in str(error.value)


def test_variables() -> None:
    assert target({}) is None
    assert target({"OPENLINEAGE_URL": "http://a/b", "OPENLINEAGE_ENDPOINT": "/x"}) == Target(url="http://a/b/x")
