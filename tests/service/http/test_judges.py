"""Clients that nobody here wrote: the SDKs of Segment and RudderStack, CloudEvents, schemathesis, curl."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from tests.service.http.test_events import event, stored
from tests.support.door import Reply, Served

Connection = psycopg.Connection[Any]


def rows(conn: Connection) -> list[tuple[str | None, str, Any]]:
    found = conn.execute("SELECT user_id, action, metadata FROM refold.events ORDER BY action").fetchall()
    return [(user, action, metadata) for user, action, metadata in found]


def messages(client: Any) -> None:
    """All kinds of messages, as an application sends them."""
    when = datetime(2026, 3, 1, 9, tzinfo=UTC)
    client.track("u1", "Bought", {"amount": 5}, timestamp=when)
    client.identify("u1", {"plan": "pro"}, timestamp=when)
    client.page("u2", "home", "front", {"a": 1}, timestamp=when)
    client.screen("u2", "tab", "front", {"a": 1}, timestamp=when)
    client.group("u1", "g1", {"size": 3}, timestamp=when)
    client.alias("anon", "u1", timestamp=when)
    client.flush()


@pytest.mark.parametrize("gzip", [False, True])
def test_the_sdk_of_segment(door: Served, admin: Connection, gzip: bool) -> None:
    client_of = pytest.importorskip("segment.analytics.client").Client
    errors: list[Exception] = []
    client = client_of(
        door.token,
        host=f"http://127.0.0.1:{door.port}",
        gzip=gzip,
        on_error=lambda error, items: errors.append(error),
        max_retries=0,
    )
    messages(client)
    client.join()
    assert errors == []
    assert [(user, action) for user, action, _ in rows(admin)] == [
        ("u1", "Bought"), ("u1", "alias"), ("u1", "group"), ("u1", "identify"), ("u2", "page"), ("u2", "screen"),
    ]  # fmt: skip
    assert rows(admin)[0][2]["properties"] == {"amount": 5}


def test_the_sdk_of_rudderstack(door: Served, admin: Connection) -> None:
    client_of = pytest.importorskip("rudderstack.analytics.client").Client
    errors: list[Exception] = []
    client = client_of(
        door.token,
        host=f"http://127.0.0.1:{door.port}",
        on_error=lambda error, items: errors.append(error),
        max_retries=0,
        gzip=True,
    )
    messages(client)
    client.join()
    assert errors == []
    assert {action for _, action, _ in rows(admin)} == {"Bought", "alias", "group", "identify", "page", "screen"}


def test_a_retry_of_the_sdk_is_a_duplicate(door: Served, admin: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt has a `sentAt` of its own, and none may become a conflict."""
    module = pytest.importorskip("segment.analytics.request")
    client_of = importlib.import_module("segment.analytics.client").Client
    sent: list[str] = []
    real = module._session.post

    def post(url: str, *args: Any, **more: Any) -> Any:
        answer = real(url, *args, **more)
        sent.append(json.loads(more["data"])["sentAt"])
        if len(sent) == 1:
            # The answer is lost on its way.
            raise module.requests.ConnectionError("lost")
        return answer

    monkeypatch.setattr(module._session, "post", post)
    client = client_of(door.token, host=f"http://127.0.0.1:{door.port}", max_retries=3)
    client.track("u1", "Bought", {"amount": 5})
    client.flush()
    client.join()
    assert len(set(sent)) == 2
    assert [action for _, action, _ in rows(admin)] == ["Bought"]
    assert admin.execute("SELECT count(*) FROM refold.rejected").fetchone() == (0,)
    assert admin.execute("SELECT sum(events) FROM refold.duplicates").fetchone() == (1,)


def test_cloudevents_in_every_mode(door: Served, admin: Connection) -> None:
    """The SDK writes the same message in three ways: the log takes it once."""
    v1 = pytest.importorskip("cloudevents.core.v1.event")
    http = importlib.import_module("cloudevents.core.bindings.http")
    attributes = {
        "id": "A é 1",
        "source": "/shop/ä",
        "type": "com.example.bought",
        "time": datetime(2026, 3, 1, 9, tzinfo=UTC),
        "specversion": "1.0",
        "datacontenttype": "application/json",
        "subject": 'a b%"c',
        "partner": "ü",
    }
    message = v1.CloudEvent(attributes, {"userId": "u1", "amount": 5, "nested": {"a": [1, None]}})
    statuses = []
    for make in (http.to_binary_event, http.to_structured_event):
        made = make(message)
        statuses.append(_as_made(door, made).status)
    batch = b"[" + http.to_structured_event(message).body + b"]"
    answer = door.post(batch, as_="application/cloudevents-batch+json")
    assert (statuses, answer.body["duplicate"]) == ([201, 200], 1), answer.body
    assert len(stored(admin)) == 1


def _as_made(door: Served, made: Any) -> Reply:
    body = made.body if isinstance(made.body, bytes) else str(made.body).encode()
    return door.request("POST", "/v1/events", body, dict(made.headers))


def test_curl(door: Served, admin: Connection) -> None:
    """HTTP/1.0, chunks, Expect: 100-continue."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    url = f"http://127.0.0.1:{door.port}/v1/events"
    ways = {
        "plain": [],
        "http/1.0": ["--http1.0"],
        "chunked": ["-H", "Transfer-Encoding: chunked"],
        "expect": ["-H", "Expect: 100-continue", "--expect100-timeout", "10"],
    }
    for name, options in ways.items():
        done = subprocess.run(
            ["curl", "-s", "-w", "%{http_code}", "-u", f"{door.token}:", "-H", "Content-Type: application/json",
             "--data-binary", "@-", *options, url],
            input=json.dumps(event(name, metadata={"long": "x" * 50_000})).encode(),
            capture_output=True,
            check=True,
        )  # fmt: skip
        assert done.stdout.endswith(b"201"), (name, done.stdout)
    assert sorted(stored(admin)) == sorted(ways)


@pytest.mark.slow
def test_schemathesis_finds_nothing(door: Served, tmp_path: Any) -> None:
    """No 5xx, documented statuses and media types, and valid documents, for what it makes of /openapi.json.

    Not asked: that each input of the schema's shape is accepted (a schema cannot say what a time is), and that no other
    input is (Segment's routes keep what is no event, and answer 200).
    """
    program = shutil.which("schemathesis")
    if program is None:
        pytest.skip("schemathesis is not installed")
    done = subprocess.run(
        [program, "run", f"http://127.0.0.1:{door.port}/openapi.json", "-H", f"Authorization: Bearer {door.token}",
         "--max-examples", "5", "--seed", "7", "--request-timeout", "60", "--checks",
         "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[:3000] + done.stdout[-3000:]
