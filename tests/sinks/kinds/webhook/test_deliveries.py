"""Deliveries to a receiver on this host, judged by verifiers that nobody here wrote."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import svix

from refold.sinks.kinds.webhook import WebhookOptions, WebhookReceiver
from refold.sinks.kinds.webhook.signature import key_of
from refold.sinks.receiver import Change, Gone, Misconfigured, Refused, TooLarge, Unavailable, Version
from tests.sinks.kinds.webhook.conftest import OTHER, SECRET, SHAPE, Opener, gone, row
from tests.support.http_receiver import Receiver, Request, answers

V = Version(1, 17)
LONG = "12345678901234567890.000001"


def verified(secret: str, request: Request) -> bool:
    """Asks both judges, who must agree."""
    found = []
    for judge in (standardwebhooks.Webhook(secret), svix.Webhook(secret)):
        try:
            judge.verify(request.body, request.headers)
            found.append(True)
        except (standardwebhooks.WebhookVerificationError, svix.WebhookVerificationError):
            found.append(False)
    assert len(set(found)) == 1
    return found[0]


def test_a_delivery(receiver: Receiver, webhook: Opener) -> None:
    hook = webhook(receiver.url, headers={"X-Tenant": "7"})
    assert hook.open(SHAPE) is None  # type: ignore[func-returns-value]
    hook.deliver(V, [row("2026-11-28", LONG), gone("2026-11-27")])
    (request,) = receiver.requests
    assert request.path == "/hook?tenant=7"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-tenant"] == "7"
    assert re.fullmatch(r"refold/\d+\.\d+\.\d+", request.headers["user-agent"])
    assert re.fullmatch(r"msg_[0-9a-f]{64}", request.headers["webhook-id"])
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 30
    assert verified(SECRET, request)
    assert not verified(OTHER, request)
    found = json.loads(request.body, parse_float=Decimal)
    assert found["data"]["version"] == "1.17"
    assert found["data"]["changes"][0]["row"]["sum"] == Decimal(LONG)


@pytest.mark.parametrize("secrets", [(SECRET, OTHER), (OTHER, SECRET)])
@pytest.mark.parametrize("body", ["standard", "cloudevents"])
def test_rotation(
    receiver: Receiver, webhook: Opener, monkeypatch: pytest.MonkeyPatch, secrets: tuple[str, str], body: str
) -> None:
    for name, secret in zip(("NEW", "OLD"), secrets, strict=True):
        monkeypatch.setenv(name, secret)
    webhook(receiver.url, secrets=["env:NEW", "env:OLD"], body=body).deliver(V, [row("größe \u2028 \U0001f600")])
    (request,) = receiver.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    assert verified(SECRET, request) and verified(OTHER, request)
    assert not verified("whsec_" + "A" * 32, request)
    assert not verified(SECRET, request._replace(body=request.body + b" "))
    assert not verified(SECRET, request._replace(headers={**request.headers, "webhook-id": "msg_other"}))


def test_secrets_are_read_at_each_opening(receiver: Receiver, webhook: Opener, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    hook = webhook(receiver.url, secrets=[f"file:{path}"])
    hook.deliver(V, [row("a")])
    path.write_text(OTHER)
    hook.deliver(V, [row("a")])
    hook.open(SHAPE)
    hook.deliver(V, [row("a")])
    assert [verified(SECRET, one) for one in receiver.requests] == [True, True, False]
    assert [verified(OTHER, one) for one in receiver.requests] == [False, False, True]


def test_cloudevents(receiver: Receiver, webhook: Opener) -> None:
    webhook(receiver.url, body="cloudevents").deliver(V, [row("a", LONG), gone("b")])
    (request,) = receiver.requests
    assert request.headers["content-type"] == "application/cloudevents-batch+json"
    assert LONG in request.body.decode()
    assert [one["type"] for one in request.json] == ["daily.changed", "daily.removed"]


def test_the_same_rows_again_have_the_same_id(receiver: Receiver, webhook: Opener) -> None:
    hook = webhook(receiver.url)
    hook.deliver(V, [row("a"), row("b")])
    webhook(receiver.url).deliver(V, [row("b"), row("a")])
    hook.deliver(Version(1, 18), [row("a"), row("b")])
    hook.deliver(V, [row("a"), row("b", "2")])
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert ids[0] == ids[1] and len(set(ids)) == 3


def test_nothing_to_deliver(receiver: Receiver, webhook: Opener) -> None:
    webhook(receiver.url).deliver(V, [])
    assert receiver.requests == []


def test_more_rows_than_a_batch(receiver: Receiver, webhook: Opener) -> None:
    hook = webhook(receiver.url, batch=2)
    with pytest.raises(TooLarge, match="3 rows are more than batch = 2"):
        hook.deliver(V, [row("a"), row("b"), row("c")])
    assert receiver.requests == []
    hook.deliver(V, [row("a"), row("b")])
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Refused), (401, Misconfigured), (404, Misconfigured), (409, Refused), (410, Gone), (413, TooLarge),
     (422, Refused), (429, Unavailable), (500, Unavailable), (503, Unavailable)],
)  # fmt: skip
def test_each_class(receiver: Receiver, webhook: Opener, status: int, kind: type[Exception]) -> None:
    receiver.behaviour = answers(status, b"no\nsuch thing", retry_after="7")
    hook = webhook(receiver.url)
    with pytest.raises(kind) as told:
        hook.deliver(V, [row("a")])
    assert type(told.value) is kind
    assert str(told.value) == f"127.0.0.1:{receiver.port} answers {status}: no such thing"
    assert told.value.status == str(status)  # type: ignore[attr-defined]
    if isinstance(told.value, Unavailable):
        assert told.value.retry_after == 7.0
    receiver.behaviour = answers(200)
    hook.deliver(V, [row("a")])
    assert receiver.connections == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(webhook: Opener, status: int) -> None:
    with Receiver() as elsewhere:
        to = f"http://127.0.0.1:{elsewhere.port}/?token=hunter2"
        with Receiver(answers(status, location=to)) as first:
            with pytest.raises(Misconfigured, match=f"answers {status}, a redirect to 127.0.0.1;") as told:
                webhook(first.url).deliver(V, [row("a")])
            assert "hunter2" not in str(told.value)
        assert elsewhere.connections == 0


@pytest.mark.parametrize("body", ["standard", "cloudevents"])
@pytest.mark.parametrize("opened", [False, True])
def test_ping(receiver: Receiver, webhook: Opener, body: str, opened: bool) -> None:
    hook = webhook(receiver.url, body=body)
    if not opened:
        hook.close()
        hook = WebhookReceiver(hook._options)
    assert re.fullmatch(r"204 in \d+ ms", hook.ping())
    assert re.fullmatch(r"204 in \d+ ms", hook.ping())
    hook.close()
    first, second = receiver.requests
    assert verified(SECRET, first)
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    (found,) = first.json if body == "cloudevents" else [first.json]
    assert found["type"] == "refold.ping"
    assert found["data"] == ({"sink": "crm"} if opened else {})
    receiver.behaviour = answers(401)
    with pytest.raises(Misconfigured, match="answers 401"):
        hook.ping()
    hook.close()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "secrets: the environment variable CRM_SECRET is not set"),
        ("", "secrets: env:CRM_SECRET is empty"),
        ("hunter2", "secrets: env:CRM_SECRET does not begin with whsec_"),
        ("whsec_hunter2!", "secrets: env:CRM_SECRET is not base64 after whsec_"),
        ("whsec_aHVudGVyMg==", "secrets: env:CRM_SECRET has 7 bytes, not 24 to 64"),
        ("whsec_" + "A" * 88, "secrets: env:CRM_SECRET has 66 bytes"),
    ],
)
def test_no_valid_secret(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, value: str | None, text: str) -> None:
    if value is None:
        monkeypatch.delenv("CRM_SECRET", raising=False)
    else:
        monkeypatch.setenv("CRM_SECRET", value)
    hook = WebhookReceiver(WebhookOptions(url=receiver.url, secrets=("env:CRM_SECRET",)))
    with pytest.raises(Misconfigured) as told:
        hook.open(SHAPE)
    assert str(told.value).startswith(text)
    assert "hunter2" not in str(told.value)


def test_secrets_without_padding() -> None:
    assert key_of(OTHER.rstrip("=")) == key_of(OTHER)


@pytest.mark.parametrize("url", ["hunter2", "ftp://hunter2/", "https://u:hunter2@x/"])
def test_a_url_by_reference_is_checked_when_it_is_read(
    webhook: Opener, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CRM_URL", url)
    with pytest.raises(Misconfigured, match=r"^url: env:CRM_URL must ") as told:
        webhook("env:CRM_URL")
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("value", ["größe", "a\nX-B: hunter2", "a\x00"])
def test_a_header_by_reference_is_checked_when_it_is_read(
    receiver: Receiver, webhook: Opener, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    path = Path("/dev/shm") / f"refold-header-{time.monotonic_ns()}"
    path.write_text(value)
    try:
        with pytest.raises(Misconfigured, match=r"^headers\.X-A: file:\S+ must be printable ASCII") as told:
            webhook(receiver.url, headers={"X-A": f"file:{path}"})
    finally:
        path.unlink()
    assert "hunter2" not in str(told.value)


def echoes(exchange: Any) -> None:
    """Answers with all it knows."""
    request = exchange.request
    exchange.reply(400, f"{SECRET} {SECRET[6:]} {request.path} {request.headers}".encode())


def test_no_secret_is_in_a_message_a_log_or_a_repr(
    receiver: Receiver, webhook: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    receiver.behaviour = echoes
    monkeypatch.setenv("CRM_URL", f"http://localhost:{receiver.port}/services/T024BE7LD-hunter2?key=Xq5hunter2")
    monkeypatch.setenv("CRM_TOKEN", "Bearer 8f3hunter2")
    hook = webhook("env:CRM_URL", headers={"Authorization": "env:CRM_TOKEN"})
    with pytest.raises(Refused) as told:
        hook.deliver(V, [row("a")])
    assert receiver.requests[0].headers["authorization"] == "Bearer 8f3hunter2"
    assert receiver.requests[0].path == "/services/T024BE7LD-hunter2?key=Xq5hunter2"
    assert str(told.value).startswith("env:CRM_URL answers 400: *** *** ***")
    monkeypatch.setenv("CRM_URL", "http://hunter2.invalid/")
    hook.open(SHAPE)
    with pytest.raises(Misconfigured, match=r"^the name of env:CRM_URL does not exist$") as unknown:
        hook.deliver(V, [row("a")])
    shown = [str(told.value), str(unknown.value), repr(told.value), repr(hook), repr(hook._given), repr(hook._options)]
    for secret in ("hunter2", SECRET[6:]):
        assert not any(secret in one for one in shown)
    # The client's own log has names of hosts, for a person who asks for all details.
    for record in caplog.records:
        assert not any(secret in record.getMessage() for secret in ("8f3hunter2", "T024BE7LD", "Xq5", SECRET[6:]))


def test_it_does_not_pretend_to_remember(receiver: Receiver, webhook: Opener) -> None:
    assert WebhookReceiver.remembers is False and WebhookReceiver.needs_json is True
    with pytest.raises(NotImplementedError):
        webhook(receiver.url).sweep(V, 1)


def test_many_rows(receiver: Receiver, webhook: Opener) -> None:
    rows = [Change(f'{{"k": {i}}}', i, (str(i),), f'{{"k": {i}, "text": "{"x" * 1000}"}}') for i in range(5_000)]
    webhook(receiver.url).deliver(V, rows)
    assert len(receiver.requests[0].json["data"]["changes"]) == 5_000
