"""Requests over one connection that is kept, to an address that was checked, within a time.

httpcore2, the lower half of httpx2, takes a network of one's own; httpx2 itself does not. The address must be checked
where the name is resolved, and each read and write must know how much of the request's time is left.
"""

from __future__ import annotations

import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

import httpcore2

from refold.sinks.kinds.webhook.addresses import flaw
from refold.sinks.kinds.webhook.options import Target
from refold.sinks.kinds.webhook.outcome import Answer
from refold.sinks.receiver import Misconfigured

LARGEST_ANSWER = 65_536
"""Most bytes of an answer's body that are read."""
BODY_S = 2.0
"""Most seconds for the body of an answer: its status has said all that counts."""
IDLE_S = 60.0
"""Seconds after which a connection without a request is closed."""


class Client:
    """Sends requests to one receiver.

    Args:
        target: the receiver.
        who: words for the receiver, for messages.
        timeout_s: seconds for a request, with its repetition over a new connection.
        allow_private: whether addresses that are not public may be called.
        tls: how certificates are verified; not needed for http.
    """

    def __init__(
        self, target: Target, who: str, *, timeout_s: float, allow_private: bool, tls: ssl.SSLContext | None
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._network = _Network(who, allow_private)
        # No proxy: the pool takes none from the environment. One request at a time needs one connection.
        self._pool = httpcore2.ConnectionPool(
            tls, max_connections=1, keepalive_expiry=IDLE_S, network_backend=self._network
        )

    def post(self, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """Send a request, and return the answer.

        A kept connection that the receiver has closed meanwhile is replaced once: a repetition has the same id.

        Raises:
            Misconfigured: an address of the receiver is not public.
            OSError: no answer: the name, the connection, TLS, or the time (TimeoutError).
        """
        self._network.begin(time.monotonic() + self._timeout_s)
        try:
            return self._once(headers, body)
        except (ConnectionError, ssl.SSLError):
            if not self._network.stale:
                raise
        return self._once(headers, body)

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def _once(self, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        target = self._target
        url = httpcore2.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        try:
            with self._pool.stream("POST", url, headers=list(headers), content=body) as response:
                if not self._network.answered:
                    # httpcore2 had it before: a second answer to the request before this one confirms nothing.
                    raise ConnectionError("it answers before it is asked")
                self._network.shorten(time.monotonic() + BODY_S)
                given = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                return Answer(response.status, given, _beginning(response))
        except httpcore2.ProtocolError as error:
            if not self._network.answered:
                raise ConnectionError("it closes the connection without an answer") from None
            raise ConnectionError(f"its answer is not HTTP: {error}") from None


def _beginning(response: httpcore2.Response) -> bytes:
    """Read the body of an answer until it ends, breaks off, or is long enough."""
    content = b""
    try:
        for part in response.iter_stream():
            content += part
            if len(content) >= LARGEST_ANSWER:
                break
    except (OSError, httpcore2.ProtocolError):
        pass
    return content[:LARGEST_ANSWER]


class _Network(httpcore2.NetworkBackend):
    """Opens connections to addresses that it has checked, and gives all of them the time of the present request."""

    def __init__(self, who: str, allow_private: bool) -> None:
        self._who = who
        self._allow_private = allow_private
        self._deadline = 0.0
        self._connected = False
        self.answered = False
        """Whether a byte of the answer is there."""

    def begin(self, deadline: float) -> None:
        """Begin a request that must end by a time of the monotonic clock."""
        self._deadline = deadline
        self._connected = self.answered = False

    def shorten(self, deadline: float) -> None:
        """Set an earlier end."""
        self._deadline = min(self._deadline, deadline)

    @property
    def stale(self) -> bool:
        """Return whether the request went over a kept connection and got no byte of an answer."""
        return not self._connected and not self.answered

    def left(self) -> float:
        """Return the seconds that the request has left.

        Raises:
            TimeoutError: it has none.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time of the request is over")
        return left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        self._connected = True
        found = _resolve(host, port, self.left())
        if not self._allow_private:
            self._check(found)
        failure: OSError = OSError("its name has no address")
        for tried, (family, address) in enumerate(found):
            # The addresses that were checked: the name is not resolved again, which could give others.
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(self.left() / (len(found) - tried))
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return _Stream(connection, self)
            except OSError as error:
                connection.close()
                failure = error
        raise failure

    def _check(self, found: Iterable[tuple[int, Any]]) -> None:
        for _, (text, *_rest) in found:
            word = flaw(ip_address(text.partition("%")[0]))
            if word is not None:
                raise Misconfigured(
                    f"{self._who} has the address {text}, which is not public: {word}",
                    status="address",
                    remedy="If the receiver is in your own network, write allow_private = true.",
                )


def _resolve(host: str, port: int, seconds: float) -> list[tuple[int, Any]]:
    """Return the families and addresses of a host.

    Raises:
        OSError: the name has none, or (TimeoutError) the name service does not answer in time.
    """
    answer: queue.SimpleQueue[list[tuple[int, Any]] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put([(int(family), address) for family, _, _, _, address in found])
        except (OSError, UnicodeError) as error:
            answer.put(error if isinstance(error, OSError) else OSError("its name is not valid"))

    # The C library waits for the name service as long as it likes; such a thread is left behind, and ends by itself.
    threading.Thread(target=ask, name="refold webhook name", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("the name service does not answer in time") from None
    if isinstance(found, OSError):
        raise found
    return found


class _Stream(httpcore2.NetworkStream):
    """A connection whose reads and writes end with the time of the request."""

    def __init__(self, connection: socket.socket, network: _Network) -> None:
        self._connection = connection
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._connection.settimeout(self._network.left())
        data = self._connection.recv(max_bytes)
        if data:
            self._network.answered = True
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        while rest:
            self._connection.settimeout(self._network.left())
            try:
                rest = rest[self._connection.send(rest) :]
            except TimeoutError:
                raise
            except OSError as error:
                # httpcore2 then reads: a receiver may refuse a body, and close, before it has read all of it.
                raise httpcore2.WriteError(error.strerror or str(error)) from None

    def close(self) -> None:
        self._connection.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            self._connection.settimeout(self._network.left())
            return _Stream(ssl_context.wrap_socket(self._connection, server_hostname=server_hostname), self._network)
        except BaseException:
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return _is_readable(self._connection)
        return self._connection if info == "socket" else None


def _is_readable(connection: socket.socket) -> bool:
    """Return whether there is something to read; without a request that is the end of the connection."""
    if connection.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
