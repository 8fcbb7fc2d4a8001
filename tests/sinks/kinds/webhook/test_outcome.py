"""What each answer means, and what messages show of it."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime

import pytest

from refold.sinks.kinds.webhook.outcome import Answer, of_answer, of_error, retry_after
from refold.sinks.receiver import DeliveryError, Gone, Misconfigured, Refused, TooLarge, Unavailable

NOW = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)
MEANINGS: dict[type[DeliveryError] | None, tuple[int, ...]] = {
    None: (200, 201, 202, 204, 226, 299),
    Unavailable: (408, 425, 429, 500, 501, 502, 503, 504, 507, 520, 529, 599, 999),
    TooLarge: (413,),
    Gone: (410,),
    Misconfigured: (101, 300, 301, 302, 303, 304, 307, 308, 401, 403, 404, 405),
    Refused: (400, 402, 406, 409, 411, 412, 414, 415, 418, 421, 422, 423, 424, 426, 428, 431, 451, 499),
}


def meant(status: int, body: bytes = b"", hidden: tuple[str, ...] = (), **headers: str) -> DeliveryError | None:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return of_answer(Answer(status, given, body), "crm.example", NOW, hidden)


def said(status: int, body: bytes = b"", hidden: tuple[str, ...] = (), **headers: str) -> str:
    return str(meant(status, body, hidden, **headers))


@pytest.mark.parametrize(
    ("status", "kind"), [(status, kind) for kind, statuses in MEANINGS.items() for status in statuses]
)
def test_each_status(status: int, kind: type[DeliveryError] | None) -> None:
    found = meant(status)
    assert type(found) is (type(None) if kind is None else kind)
    assert found is None or found.status == str(status)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("+3", 3.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("999999999999999999", 3600.0),
        ("9" * 5000, None),
        ("Sun, 29 Nov 2026 12:01:30 GMT", 90.0),
        ("Sunday, 29-Nov-26 12:01:30 GMT", 90.0),
        ("Sun Nov 29 12:01:30 2026", 90.0),
        ("Sun, 29 Nov 2026 13:01:30 +0100", 90.0),
        ("Sun, 29 Nov 2026 11:00:00 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 3600.0),
        ("Wed, 99 Oct 2099 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999999999 07:28:00 GMT", None),
        ("1.5", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("²", None),
        ("٣", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds
    found = meant(503, retry_after=value)
    assert isinstance(found, Unavailable)
    assert found.retry_after == seconds


def test_a_redirect_shows_the_host_only() -> None:
    told = said(301, location="https://user:hunter2@else.example:8443/hook?token=hunter2")
    assert told == "crm.example answers 301, a redirect to else.example; webhooks follow none"
    assert said(302, location="/elsewhere?token=hunter2") == "crm.example answers 302, a redirect; webhooks follow none"
    assert "hunter2" not in said(302, location="https://[hunter2")


def test_the_message_is_one_printable_line() -> None:
    assert (
        said(422, b" no\r\n\tsuch\x1b[31m  \x00field \xe2\x80\xae\xff ")
        == "crm.example answers 422: no such [31m field \ufffd"
    )
    assert said(422, "größer – 大".encode()) == "crm.example answers 422: größer – 大"
    assert said(500) == "crm.example answers 500"
    assert said(400, b"x" * 1000) == "crm.example answers 400: " + "x" * 200
    assert said(400, b"\x1f\x8b\x08abc", content_encoding="gzip") == "crm.example answers 400"


def test_what_is_hidden_is_hidden_before_the_message_is_cut() -> None:
    secret = "hunter2hunter2hunter2"
    assert said(400, f"bad {secret}!".encode(), (secret,)) == "crm.example answers 400: bad ***!"
    told = said(400, b"x" * 190 + secret.encode(), (secret,))
    assert "hunter2" not in told
    told = said(400, b"Bearer abcdefgh12 and abcdefgh12", ("Bearer abcdefgh12", "abcdefgh12"))
    assert told == "crm.example answers 400: *** and ***"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), Unavailable, "cannot be reached: Connection refused"),
        (ConnectionResetError(104, "Connection reset by peer"), Unavailable, "Connection reset by peer"),
        (OSError(101, "Network is unreachable"), Unavailable, "Network is unreachable"),
        (TimeoutError("timed out"), Unavailable, "does not answer in time"),
        (ConnectionError("the answer is not HTTP"), Unavailable, "the answer is not HTTP"),
        (socket.gaierror(socket.EAI_NONAME, "x"), Misconfigured, "the name of crm.example does not exist"),
        (socket.gaierror(socket.EAI_NODATA, "x"), Misconfigured, "the name of crm.example does not exist"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), Unavailable, "cannot be resolved now"),
        (socket.gaierror(socket.EAI_FAIL, "x"), Unavailable, "cannot be resolved now"),
        (ssl.SSLCertVerificationError(1, "x"), Misconfigured, "has no valid certificate"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), Unavailable, "does not agree on TLS"),
        (ValueError("what"), Unavailable, "cannot be reached: what"),
    ],
)
def test_each_error(error: Exception, kind: type[DeliveryError], text: str) -> None:
    found = of_error(error, "crm.example")
    assert type(found) is kind
    assert text in str(found)
    assert found.status in ("connection", "DNS", "TLS", "timeout")


def test_an_error_hides_what_is_hidden() -> None:
    assert "hunter2" not in str(of_error(OSError(1, "no hunter2"), "x", ("hunter2",)))
    assert "hunter2" not in str(of_error(ConnectionError("illegal: hunter2"), "x", ("hunter2",)))
