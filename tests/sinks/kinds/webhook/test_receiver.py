"""A webhook delivers what it is given, signed, and says what each answer means."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from pydantic import ValidationError

from refold.sinks.kinds.webhook.receiver import WebhookOptions, WebhookReceiver
from refold.sinks.receiver import (
    Change,
    Column,
    DeliveryError,
    Gone,
    Misconfigured,
    Owner,
    Refused,
    Shape,
    TooLarge,
    Unavailable,
    Version,
)
from tests.support.receiving import Hook, hang, hang_up, hook, trickle

OLD, NEW = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
SHAPE = Shape("crm", "event_counts", (Column("day", "date"), Column("n", "numeric")), ("day",))
VERSION = Version(5, 7)
CHANGES = [
    Change(
        '{"day": "2026-03-02"}', 1, ("2026-03-02", "1.50"), '{"day": "2026-03-02", "n": 12345678901234567890.000001}'
    ),
    Change('{"day": "2026-03-ü"}', 1, None),
]


_made: list[WebhookReceiver] = []


@pytest.fixture
def server() -> Iterator[Hook]:
    with hook() as made:
        yield made


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OLD", OLD)
    monkeypatch.setenv("NEW", NEW)
    yield
    while _made:
        _made.pop().close()


def receiver(url: str, secrets: tuple[str, ...] = ("env:OLD",), **options: Any) -> WebhookReceiver:
    given = {"url": url, "secrets": list(secrets), "allow_private": True, "timeout_s": 1.0, **options}
    made = WebhookReceiver(WebhookOptions(**given))
    _made.append(made)
    made.open(SHAPE, Owner("t", frozenset()))
    return made


def test_rows_arrive_with_all_their_digits(server: Hook) -> None:
    receiver(server.url).deliver(VERSION, CHANGES)
    [request] = server.received
    body = json.loads(request.body, parse_float=Decimal)
    assert body["type"] == "event_counts.changed"
    assert body["data"] == {
        "sink": "crm",
        "projection": "event_counts",
        "version": "5.7",
        "changes": [
            {"key": {"day": "2026-03-02"}, "row": {"day": "2026-03-02", "n": Decimal("12345678901234567890.000001")}},
            {"key": {"day": "2026-03-ü"}, "row": None},
        ],
    }


def test_cloudevents(server: Hook) -> None:
    from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
    from cloudevents.core.formats.json import JSONFormat

    made = receiver(server.url, body="cloudevents")
    made.deliver(VERSION, CHANGES)
    made.deliver(VERSION, CHANGES)
    first, second = server.received
    assert first.headers["content-type"] == "application/cloudevents-batch+json"
    events = [
        from_structured_event(
            HTTPMessage({"content-type": "application/cloudevents+json"}, json.dumps(one).encode()), JSONFormat()
        )
        for one in json.loads(first.body)
    ]
    assert [event.get_type() for event in events] == ["event_counts.changed", "event_counts.removed"]
    assert [event["id"] for event in json.loads(first.body)] == [event["id"] for event in json.loads(second.body)]


@pytest.mark.parametrize("verifier", [standardwebhooks.Webhook, svix.webhooks.Webhook])
def test_signatures_are_verified_by_others(server: Hook, verifier: Callable[[str], Any]) -> None:
    receiver(server.url, ("env:NEW", "env:OLD")).deliver(VERSION, CHANGES)
    [request] = server.received
    for secret in (OLD, NEW):
        verifier(secret).verify(request.body, request.headers)
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()
    for wrong_secret, body in ((other, request.body), (OLD, request.body + b" ")):
        with pytest.raises(Exception, match=r"(?i)signature"):
            verifier(wrong_secret).verify(body, request.headers)


def test_the_same_content_has_the_same_id(server: Hook) -> None:
    for version, changes in ((VERSION, CHANGES), (VERSION, CHANGES), (Version(5, 8), CHANGES), (VERSION, CHANGES[:1])):
        receiver(server.url).deliver(version, changes)
    first, again, later, fewer = server.ids
    assert first == again
    assert len({first, later, fewer}) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, None), (201, None), (204, None), (301, Misconfigured), (302, Misconfigured), (307, Misconfigured),
        (400, Refused), (401, Misconfigured), (403, Misconfigured), (404, Misconfigured), (405, Misconfigured),
        (408, Unavailable), (409, Refused), (410, Gone), (413, TooLarge), (418, Refused), (422, Refused),
        (425, Unavailable), (429, Unavailable), (500, Unavailable), (502, Unavailable), (503, Unavailable),
        (599, Unavailable),
    ],
)  # fmt: skip
def test_what_an_answer_means(server: Hook, status: int, kind: type[DeliveryError] | None) -> None:
    server.status(status, location="http://169.254.169.254/latest?token=1")
    if kind is None:
        receiver(server.url).deliver(VERSION, CHANGES)
        return
    with pytest.raises(kind) as caught:
        receiver(server.url).deliver(VERSION, CHANGES)
    assert type(caught.value) is kind
    assert caught.value.status == str(status)
    assert "token=1" not in str(caught.value)
    # It is not followed.
    assert len(server.received) == 0


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("99999999999", 3600.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("soon", None),
        ("-5", None),
    ],
)
def test_how_long_a_receiver_asks_to_wait(server: Hook, header: str, wanted: float | None) -> None:
    server.status(429, retry_after=header)
    with pytest.raises(Unavailable) as caught:
        receiver(server.url).deliver(VERSION, CHANGES)
    assert caught.value.retry_after == wanted


@pytest.mark.parametrize("answer", [hang, trickle])
def test_a_receiver_that_does_not_answer_in_time(server: Hook, answer: Any) -> None:
    server.answer = answer
    started = time.monotonic()
    with pytest.raises(Unavailable, match="in time"):
        receiver(server.url).deliver(VERSION, CHANGES)
    assert time.monotonic() - started < 2.5


def test_a_receiver_that_hangs_up(server: Hook) -> None:
    server.answer = hang_up
    with pytest.raises(Unavailable):
        receiver(server.url).deliver(VERSION, CHANGES)


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(Unavailable, match="cannot be reached"):
        receiver(f"http://127.0.0.1:{port}/").deliver(VERSION, CHANGES)


def test_a_connection_is_used_again_and_replaced_when_the_receiver_closed_it(server: Hook) -> None:
    made = receiver(server.url)
    for _ in range(3):
        made.deliver(VERSION, CHANGES)
    assert server.connections == 1
    assert made._http is not None and made._http.sock is not None
    made._http.sock.shutdown(socket.SHUT_RDWR)
    made.deliver(VERSION, CHANGES)
    assert (server.connections, len(server.received)) == (2, 4)
    made.close()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
     "224.0.0.1", "255.255.255.255", "[::1]", "[fe80::1]", "[fc00::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]",
     "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2002:a00:1::]", "[ff02::1]", "[::]", "2130706433", "0x7f.1", "127.1"],
)  # fmt: skip
def test_addresses_inside_are_refused(host: str) -> None:
    with pytest.raises(Misconfigured, match=r"not public|no host"):
        receiver(f"http://{host}/hook", allow_private=False).deliver(VERSION, CHANGES)


def test_all_addresses_of_a_name_are_looked_at_and_only_once(server: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose second look-up gives another address (DNS rebinding) is not looked up a second time."""
    calls = []
    port = int(server.url.rsplit(":", 1)[1].split("/")[0])

    def look_up(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        calls.append(host)
        first = "93.184.215.14" if len(calls) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (first, port)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]  # fmt: skip

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(Misconfigured, match=r"10\.0\.0\.1"):
        receiver(f"http://shop.example:{port}/", allow_private=False).deliver(VERSION, CHANGES)
    assert calls == ["shop.example"]
    assert server.connections == 0


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(DeliveryError):
        receiver("https://nowhere.invalid/", allow_private=False).deliver(VERSION, CHANGES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "ftp://shop.example/"}, "https://"),
        ({"url": "https://user:pass@shop.example/"}, "user or password"),
        ({"url": "https:///path"}, "host"),
        ({"url": "https://shop.example:99999/"}, "port"),
        ({"url": "https://shop.example/\nx"}, "control"),
        ({"secrets": ["whsec_abc"]}, "must not be in the file"),
        ({"secrets": []}, "at least 1"),
        ({"headers": {"Webhook-Id": "1"}}, "set by refold"),
        ({"headers": {"a b": "1"}}, "name of a header"),
        ({"headers": {"a": "1\r\nx: 2"}}, "one line"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"bodi": "standard"}, "not permitted"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    given = {"url": "https://shop.example/", "secrets": ["env:OLD"], **options}
    with pytest.raises(ValidationError, match=said):
        WebhookOptions(**given)


@pytest.mark.parametrize("value", ["", "hidden", "whsec_!!!", "whsec_" + base64.b64encode(b"short").decode()])
def test_secrets_that_are_none_are_not_repeated(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OLD", value)
    with pytest.raises(Misconfigured) as caught:
        receiver("https://shop.example/")
    assert "env:OLD" in str(caught.value)
    assert not value or value not in str(caught.value).replace("whsec_ ", "")


def test_secrets_are_in_no_message(server: Hook) -> None:
    os.environ["HEADER"] = "Bearer hidden"
    made = receiver(server.url, headers={"authorization": "env:HEADER"})
    server.status(403)
    with pytest.raises(Misconfigured) as caught:
        made.deliver(VERSION, CHANGES)
    told = repr(caught.value) + repr(made) + repr(made._options) + str(caught.value.remedy)
    assert "hidden" not in told and OLD not in told
    server.status(200)
    made.deliver(VERSION, CHANGES)
    assert server.received[0].headers["authorization"] == "Bearer hidden"
    del os.environ["HEADER"]


def test_ping_is_signed(server: Hook) -> None:
    assert "200 in" in receiver(server.url).ping()
    [request] = server.received
    standardwebhooks.Webhook(OLD).verify(request.body, request.headers)
    assert json.loads(request.body)["type"] == "refold.ping"
