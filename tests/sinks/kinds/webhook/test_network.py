"""Receivers that hang, cut, trickle and lie, connections that are kept, and addresses that may not be called."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refold.sinks.receiver import Misconfigured, Refused, TooLarge, Unavailable, Version
from tests.sinks.kinds.webhook.conftest import Opener, row
from tests.support.certificates import certificate
from tests.support.http_receiver import (
    Behaviour,
    Exchange,
    Receiver,
    answers,
    closes,
    floods,
    hangs,
    head,
    resets,
    sends,
    trickles,
)
from tests.support.waiting import wait_until

V = Version(1, 17)
LIMIT_S = 0.6
SLACK_S = 10.0


def seconds(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


@pytest.mark.parametrize(
    "behaviour",
    [
        hangs,
        trickles(b"", b"H", 0.1),
        trickles(b"HTTP/1.1 200 OK\r\n", b"X-A: 1\r\n", 0.1),
        trickles(b"", head(100), 0.05),
    ],
    ids=["silent", "first line", "headers", "continue"],
)
def test_the_time_is_limited_in_total(webhook: Opener, behaviour: Behaviour) -> None:
    with Receiver(behaviour) as receiver:
        hook = webhook(receiver.url, timeout_s=LIMIT_S)

        def deliver() -> None:
            with pytest.raises(Unavailable, match="does not answer in time"):
                hook.deliver(V, [row("a")])

        assert LIMIT_S - 0.1 < seconds(deliver) < LIMIT_S + SLACK_S
        assert len(receiver.requests) == 1, "a request that may be under way is not repeated"
        receiver.behaviour = answers(200)
        hook.deliver(V, [row("a")])


def test_interim_answers_without_end(webhook: Opener) -> None:
    with Receiver(floods(b"", head(100) * 100)) as receiver:
        hook = webhook(receiver.url, timeout_s=LIMIT_S)

        def deliver() -> None:
            with pytest.raises(Unavailable):
                hook.deliver(V, [row("a")])

        assert seconds(deliver) < LIMIT_S + SLACK_S


@pytest.mark.parametrize(
    "behaviour",
    [
        trickles(head(200, content_length="100000"), b"x", 0.1),
        trickles(head(200, transfer_encoding="chunked"), b"1\r\nx\r\n", 0.1),
        floods(head(200, transfer_encoding="chunked"), b"8\r\nxxxxxxxx\r\n" * 1000),
        floods(head(200), b"x" * 10_000),
        sends(head(200, content_length="1000"), b"cut"),
        sends(head(200, transfer_encoding="chunked"), b"zz\r\nno chunk\r\n"),
        sends(head(200)),
    ],
    ids=["trickle", "chunks", "endless chunks", "endless", "cut", "no chunk", "closed"],
)
def test_a_status_of_success_counts_whatever_becomes_of_the_body(webhook: Opener, behaviour: Behaviour) -> None:
    with Receiver(behaviour) as receiver:
        hook = webhook(receiver.url, timeout_s=LIMIT_S)
        assert seconds(lambda: hook.deliver(V, [row("a")])) < LIMIT_S + SLACK_S
        hook.deliver(V, [row("b")])
        assert [request.connection for request in receiver.requests] == [1, 2]


def test_the_body_of_an_answer_has_a_shorter_time(webhook: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.sinks.kinds.webhook.network.BODY_S", 0.3)
    with Receiver(trickles(head(400, content_length="100000"), b"no", 0.05)) as receiver:
        hook = webhook(receiver.url, timeout_s=30)

        def deliver() -> None:
            with pytest.raises(Refused, match="answers 400: nono"):
                hook.deliver(V, [row("a")])

        assert seconds(deliver) < 0.3 + SLACK_S


def test_an_answer_is_not_read_to_its_end(webhook: Opener) -> None:
    with Receiver(floods(head(500), b"x" * 10_000)) as receiver:

        def deliver() -> None:
            with pytest.raises(Unavailable, match=r"answers 500: x{200}$"):
                webhook(receiver.url, timeout_s=30).deliver(V, [row("a")])

        assert seconds(deliver) < 1.5


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        (closes, "it closes the connection without an answer"),
        (resets, "Connection reset by peer"),
        (sends(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "its answer is not HTTP: illegal"),
        (sends(b"HTTP/1.1 200\r\nno header\r\n\r\n"), "illegal"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), "conflicting"),
        (sends(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), "too"),
    ],
    ids=["closed", "reset", "other protocol", "no header", "two lengths", "long header"],
)
def test_no_answer_of_http(webhook: Opener, behaviour: Behaviour, text: str) -> None:
    with Receiver(behaviour) as receiver:
        with pytest.raises(Unavailable, match=text) as told:
            webhook(receiver.url).deliver(V, [row("a")])
        assert len(str(told.value)) < 300
        assert len(receiver.requests) == 1


def test_nobody_listens(webhook: Opener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable, match="cannot be reached: Connection refused"):
        webhook(f"http://127.0.0.1:{port}/").deliver(V, [row("a")])


def test_a_receiver_that_never_reads(webhook: Opener) -> None:
    def before(client: socket.socket, closed: threading.Event) -> None:
        closed.wait()

    with Receiver(before=before) as receiver:
        hook = webhook(receiver.url, timeout_s=LIMIT_S)

        def deliver() -> None:
            with pytest.raises(Unavailable, match="does not answer in time"):
                hook.deliver(V, [row("a", "9" * 20_000_000)])

        assert seconds(deliver) < LIMIT_S + SLACK_S


def test_a_receiver_that_reads_a_little_now_and_then(webhook: Opener) -> None:
    def before(client: socket.socket, closed: threading.Event) -> None:
        while not closed.wait(0.05) and client.recv(20_000):
            pass

    with Receiver(before=before) as receiver:
        hook = webhook(receiver.url, timeout_s=LIMIT_S)

        def deliver() -> None:
            with pytest.raises(Unavailable, match="does not answer in time"):
                hook.deliver(V, [row("a", "9" * 20_000_000)])

        assert seconds(deliver) < LIMIT_S + SLACK_S


@pytest.mark.parametrize("reads_on", [True, False])
def test_a_body_that_is_refused_before_it_is_read(webhook: Opener, reads_on: bool) -> None:
    """The receiver answers the headers; what it said is read, although the rest of the body can no longer be sent."""

    def before(client: socket.socket, closed: threading.Event) -> None:
        client.recv(1)
        client.sendall(head(413, content_length="3") + b"big")
        # Otherwise close() finds unread bytes, and resets the connection.
        while reads_on and client.recv(1_000_000):
            pass

    with Receiver(before=before) as receiver, pytest.raises(TooLarge, match="answers 413: big"):
        webhook(receiver.url).deliver(V, [row("a", "9" * 20_000_000)])


def test_the_connection_is_kept(receiver: Receiver, webhook: Opener) -> None:
    hook = webhook(receiver.url)
    for status in (200, 204, 200, 500, 200):
        receiver.behaviour = answers(status, b"" if status == 204 else b"body")
        try:
            hook.deliver(V, [row("a")])
        except Unavailable:
            assert status == 500
    assert (receiver.connections, len(receiver.requests)) == (1, 5)


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(receiver: Receiver, webhook: Opener) -> None:
    hook = webhook(receiver.url)
    hook.deliver(V, [row("a")])
    receiver.close_connections()
    hook.deliver(V, [row("a")])
    assert [one.connection for one in receiver.requests] == [1, 2]


@pytest.mark.parametrize("end", [closes, resets])
def test_a_kept_connection_that_ends_under_the_request_is_replaced_once(
    receiver: Receiver, webhook: Opener, end: Behaviour
) -> None:
    """The server closes an idle connection while the next request is under way: the race that no check prevents."""

    def second_request_ends(exchange: Exchange) -> None:
        if exchange.request.connection == 1 and len(receiver.requests) > 1:
            end(exchange)
        exchange.reply(200)

    receiver.behaviour = second_request_ends
    hook = webhook(receiver.url)
    hook.deliver(V, [row("a")])
    hook.deliver(V, [row("b")])
    assert [one.connection for one in receiver.requests] == [1, 1, 2]
    assert receiver.requests[1].headers["webhook-id"] == receiver.requests[2].headers["webhook-id"]
    assert receiver.requests[1].body == receiver.requests[2].body


def test_it_is_replaced_once_only(receiver: Receiver, webhook: Opener) -> None:
    hook = webhook(receiver.url)
    hook.deliver(V, [row("a")])
    receiver.behaviour = closes
    with pytest.raises(Unavailable, match="without an answer"):
        hook.deliver(V, [row("b")])
    assert [one.connection for one in receiver.requests] == [1, 1, 2]


def test_it_is_not_replaced_after_a_byte_of_an_answer(receiver: Receiver, webhook: Opener) -> None:
    hook = webhook(receiver.url)
    hook.deliver(V, [row("a")])
    receiver.behaviour = sends(b"HTTP/1.1 2")
    with pytest.raises(Unavailable):
        hook.deliver(V, [row("b")])
    assert [one.connection for one in receiver.requests] == [1, 1]


@pytest.mark.parametrize("body", [b"", b"ok"])
def test_an_answer_too_many_confirms_nothing(receiver: Receiver, webhook: Opener, body: bytes) -> None:
    """A receiver that answers one request twice: the second answer must not count for the next request."""
    answer = head(200, content_length=str(len(body))) + body

    def answers_twice(exchange: Exchange) -> None:
        if len(receiver.requests) == 1:
            exchange.send(answer + answer)
        else:
            exchange.reply(500)

    receiver.behaviour = answers_twice
    hook = webhook(receiver.url)
    hook.deliver(V, [row("a")])
    with pytest.raises(Unavailable, match="answers 500"):
        hook.deliver(V, [row("b")])
    assert [one.connection for one in receiver.requests] == [1, 1, 2]


def test_the_repetition_has_what_is_left_of_the_time(receiver: Receiver, webhook: Opener) -> None:
    def closes_late(exchange: Exchange) -> None:
        exchange.closed.wait(LIMIT_S * 0.7)
        closes(exchange)

    hook = webhook(receiver.url, timeout_s=LIMIT_S)
    hook.deliver(V, [row("a")])
    receiver.behaviour = closes_late

    def deliver() -> None:
        with pytest.raises(Unavailable, match="does not answer in time"):
            hook.deliver(V, [row("b")])

    assert seconds(deliver) < LIMIT_S + SLACK_S / 2
    assert len(receiver.requests) == 3


def test_no_proxy_is_taken_from_the_environment(
    receiver: Receiver, webhook: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver(answers(502)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        webhook(receiver.url).deliver(V, [row("a")])
        assert (proxy.connections, receiver.connections) == (0, 1)


# TLS


def test_tls(webhook: Opener, tmp_path: Path) -> None:
    own = certificate(tmp_path, "127.0.0.1", "localhost")
    with Receiver(tls=own.context) as receiver:
        hook = webhook(receiver.url, ca=str(own.path))
        hook.deliver(V, [row("a")])
        receiver.close_connections()
        hook.deliver(V, [row("a")])
        webhook(f"https://localhost:{receiver.port}/", ca=str(own.path)).deliver(V, [row("a")])
        assert [one.connection for one in receiver.requests] == [1, 2, 3]
        assert receiver.requests[2].headers["host"] == f"localhost:{receiver.port}"


def test_the_server_is_told_the_name(webhook: Opener, tmp_path: Path) -> None:
    own = certificate(tmp_path, "localhost")
    told: list[str | None] = []
    own.context.sni_callback = lambda connection, name, context: told.append(name)
    with Receiver(tls=own.context) as receiver:
        webhook(f"https://localhost:{receiver.port}/", ca=str(own.path)).deliver(V, [row("a")])
    assert told == ["localhost"]


def test_certificates_that_are_not_valid(webhook: Opener, tmp_path: Path) -> None:
    for folder in ("good", "late", "other"):
        (tmp_path / folder).mkdir()
    good = certificate(tmp_path / "good", "127.0.0.1")
    late = certificate(tmp_path / "late", "127.0.0.1", expired=True)
    other = certificate(tmp_path / "other", "else.example")
    for made, ca, text in [
        (good, None, "self-signed certificate"),
        (good, other.path, "self-signed certificate"),
        (late, late.path, "certificate has expired"),
        (other, other.path, "IP address mismatch"),
    ]:
        with Receiver(tls=made.context) as receiver:
            hook = webhook(receiver.url, ca=None if ca is None else str(ca))
            with pytest.raises(Misconfigured, match=f"has no valid certificate: .*{text}"):
                hook.deliver(V, [row("a")])
            assert receiver.requests == []


def test_no_certificates_in_the_file(webhook: Opener, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "absent.pem"):
        with pytest.raises(Misconfigured, match=f"ca: cannot read certificates from .*{name}"):
            webhook("https://127.0.0.1/", ca=str(tmp_path / name))


def test_a_port_without_tls(receiver: Receiver, webhook: Opener) -> None:
    with pytest.raises(Unavailable, match="does not agree on TLS") as told:
        webhook(f"https://127.0.0.1:{receiver.port}/").deliver(V, [row("a")])
    assert told.value.remedy == "Check that this port speaks TLS: the url begins with https."


@pytest.mark.parametrize("part", [b"", b"\x16\x03\x03\x00\x40\x02"], ids=["silent", "trickle"])
def test_a_handshake_that_never_ends(webhook: Opener, part: bytes) -> None:
    def before(client: socket.socket, closed: threading.Event) -> None:
        client.recv(1000)
        for one in part:
            if closed.wait(0.2):
                return
            client.sendall(bytes([one]))
        closed.wait()

    with Receiver(before=before) as receiver:
        hook = webhook(f"https://127.0.0.1:{receiver.port}/", timeout_s=LIMIT_S)

        def deliver() -> None:
            with pytest.raises(Unavailable, match="does not answer in time"):
                hook.deliver(V, [row("a")])

        assert seconds(deliver) < LIMIT_S + SLACK_S


def test_a_handshake_that_breaks(webhook: Opener) -> None:
    def before(client: socket.socket, closed: threading.Event) -> None:
        client.recv(1000)

    with Receiver(before=before) as receiver, pytest.raises(Unavailable):
        webhook(f"https://127.0.0.1:{receiver.port}/").deliver(V, [row("a")])


def test_old_tls_is_refused(webhook: Opener, tmp_path: Path) -> None:
    own = certificate(tmp_path, "127.0.0.1")
    own.context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning):
        own.context.maximum_version = ssl.TLSVersion.TLSv1_1
    own.context.set_ciphers("ALL:@SECLEVEL=0")
    with Receiver(tls=own.context) as receiver, pytest.raises(Unavailable, match="does not agree on TLS"):
        webhook(receiver.url, ca=str(own.path)).deliver(V, [row("a")])


# Addresses


class Names:
    """A name service that answers as a test wants, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str] | BaseException) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        monkeypatch.setattr(socket, "getaddrinfo", self._ask)

    def _ask(self, host: str, port: int, family: int = 0, type: int = 0, *rest: int) -> list[Any]:
        self.asked.append(host)
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return [
            (socket.AF_INET6, type, 6, "", (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, type, 6, "", (one, port))
            for one in answer
        ]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "[::1]", "[::]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"],
)  # fmt: skip
def test_this_host_may_not_be_called(receiver: Receiver, webhook: Opener, host: str) -> None:
    """Real names and all ways to write an address, as the C library understands them."""
    hook = webhook(f"http://{host}:{receiver.port}/", allow_private=False)
    with pytest.raises(Misconfigured, match=r"which is not public: (loopback|unspecified)") as told:
        hook.deliver(V, [row("a")])
    assert told.value.remedy == "If the receiver is in your own network, write allow_private = true."
    assert receiver.connections == 0


def test_one_address_that_is_not_public_is_enough(
    receiver: Receiver, webhook: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = webhook(f"http://crm.example:{receiver.port}/", allow_private=False)
    for addresses in (["1.1.1.1", "127.0.0.1"], ["127.0.0.1", "1.1.1.1"], ["2606:4700::1111", "64:ff9b::7f00:1"]):
        names = Names(monkeypatch, addresses)
        begin = time.monotonic()
        with pytest.raises(Misconfigured, match="which is not public: loopback"):
            hook.deliver(V, [row("a")])
        assert time.monotonic() - begin < 1, "it is refused before any address is called"
        assert names.asked == ["crm.example"]
    assert receiver.connections == 0


def test_the_address_that_was_checked_is_called(webhook: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second question gets another address. There is no second question before a connection."""
    with Receiver() as checked, Receiver(address="127.0.0.2", port=checked.port) as other:
        names = Names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        hook = webhook(f"http://rebinding.example:{checked.port}/")
        hook.deliver(V, [row("a")])
        hook.deliver(V, [row("b")])
        assert names.asked == ["rebinding.example"]
        assert (len(checked.requests), other.connections) == (2, 0)
        assert checked.requests[0].headers["host"] == f"rebinding.example:{checked.port}"


def test_each_new_connection_is_checked(webhook: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was public when it was checked first leads to this host later."""
    with Receiver() as receiver:
        # 127.0.0.1 stands for a public address as long as the test says so.
        public = {"127.0.0.1"}
        from refold.sinks.kinds.webhook import addresses

        real = addresses.flaw
        monkeypatch.setattr(
            "refold.sinks.kinds.webhook.network.flaw", lambda one: None if str(one) in public else real(one)
        )
        names = Names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"], ["169.254.169.254"])
        hook = webhook(f"http://rebinding.example:{receiver.port}/", allow_private=False)
        hook.deliver(V, [row("a")])
        receiver.close_connections()
        with pytest.raises(Misconfigured, match=r"127\.0\.0\.2, which is not public"):
            hook.deliver(V, [row("b")])
        with pytest.raises(Misconfigured, match="a cloud's metadata service"):
            hook.deliver(V, [row("b")])
        assert len(receiver.requests) == 1
        assert len(names.asked) == 3


def test_the_next_address_is_tried(receiver: Receiver, webhook: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ["127.0.0.3", "127.0.0.1"])
    webhook(f"http://crm.example:{receiver.port}/").deliver(V, [row("a")])
    assert len(receiver.requests) == 1


def test_a_name_that_does_not_exist(webhook: Opener) -> None:
    with pytest.raises(Misconfigured, match=r"the name of nothing\.invalid does not exist"):
        webhook("https://nothing.invalid/").deliver(V, [row("a")])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), Misconfigured),
        (socket.gaierror(socket.EAI_AGAIN, "x"), Unavailable),
        (UnicodeError("label too long"), Unavailable),
    ],
)
def test_the_name_service_fails(
    webhook: Opener, monkeypatch: pytest.MonkeyPatch, error: BaseException, kind: type[Exception]
) -> None:
    hook = webhook("http://crm.example/")
    Names(monkeypatch, error)
    with pytest.raises(kind):
        hook.deliver(V, [row("a")])


def test_a_name_service_that_hangs(webhook: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        end.wait()
        return []

    hook = webhook("http://crm.example/", timeout_s=LIMIT_S)
    monkeypatch.setattr(socket, "getaddrinfo", hang)

    def deliver() -> None:
        with pytest.raises(Unavailable, match="does not answer in time"):
            hook.deliver(V, [row("a")])

    assert seconds(deliver) < LIMIT_S + SLACK_S
    end.set()
    wait_until(lambda: not any(one.name == "refold webhook name" for one in threading.enumerate()))
