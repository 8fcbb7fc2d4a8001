"""The receiver of a webhook: signed posts over one connection to one address, each with a time limit for all of it.

http.client is enough, and lets the socket be ours: the address that was checked is the one that is connected to, and a
receiver that sends a byte now and then is cut off when the time is over.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import ClassVar
from urllib.parse import SplitResult

from pydantic import BaseModel, ConfigDict, Field, field_validator

from refold import __version__
from refold.sinks.kinds.webhook.address import checked_url, look_up, port_of
from refold.sinks.kinds.webhook.body import CONTENT_TYPES, Form, body_of, message_id, ping
from refold.sinks.kinds.webhook.outcome import outcome, printable
from refold.sinks.kinds.webhook.signature import key_of, signatures
from refold.sinks.receiver import Change, Misconfigured, Owner, Shape, Unavailable, Version
from refold.sinks.secrets import is_reference, resolve, resolve_optional

_OWN = ("content-type", "content-length", "host", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature")
_READ = 65_536
"""Most bytes of an answer that are read."""


class WebhookOptions(BaseModel):
    """Keys of `[webhook]` in the file of a sink."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(description="Where rows are posted: an https URL, `env:NAME` or `file:/path`.")
    secrets: list[str] = Field(
        min_length=1,
        description="References to the secrets that sign: `env:NAME` or `file:/path`; several while one is rotated.",
    )
    body: Form = Field(default="standard", description="`standard` (one object a message) or `cloudevents` (a batch).")
    headers: dict[str, str] = Field(default={}, description="Further headers; a value may be a reference.")
    timeout_s: float = Field(default=15, gt=0, le=300, description="Time limit of a request, seconds.")
    allow_private: bool = Field(default=False, description="Whether the receiver may be in a private network.")
    ca: str | None = Field(
        default=None, description="File with certificates of the authority that signs the receiver's."
    )

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        if not is_reference(url):
            checked_url(url)
        return url

    @field_validator("secrets")
    @classmethod
    def _are_references(cls, secrets: list[str]) -> list[str]:
        if not all(map(is_reference, secrets)):
            raise ValueError('must not be in the file: write "env:NAME" or "file:/path"')
        return secrets

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in _OWN:
                raise ValueError(f"{name} is set by refold")
            if not name.isascii() or not name.replace("-", "").isalnum():
                raise ValueError(f"{name!r} is not the name of a header")
            if any(char in value for char in "\r\n\0"):
                raise ValueError(f"the value of {name} must be on one line")
        return headers


class WebhookReceiver:
    """Delivers by HTTP.

    Args:
        options: the keys of its part of the sink's file.
    """

    Options: ClassVar[type[BaseModel]] = WebhookOptions
    needs_json: ClassVar[bool] = True
    remembers: ClassVar[bool] = False

    def __init__(self, options: WebhookOptions) -> None:
        self._options = options
        self._shape: Shape | None = None
        self._ready: tuple[SplitResult, list[bytes], dict[str, str]] | None = None
        self._http: http.client.HTTPConnection | None = None

    def open(self, shape: Shape, owner: Owner) -> Version | None:
        """Read the secrets; a webhook cannot tell what it was given."""
        self._shape = shape
        self._prepare()
        return None

    def ping(self) -> str:
        """Post a signed message that changes nothing."""
        started = time.monotonic()
        at = _now()
        sink = "" if self._shape is None else self._shape.sink
        self._post(f"msg_ping_{time.time_ns()}", ping(at.isoformat(), sink), "application/json")
        return f"200 in {(time.monotonic() - started) * 1000:.0f} ms"

    def deliver(self, version: Version, changes: Sequence[Change]) -> None:
        """Post rows as one message."""
        assert self._shape is not None, "the receiver is not open"
        form = self._options.body
        body = body_of(form, self._shape, version, changes, _now().isoformat(timespec="milliseconds"))
        self._post(message_id(self._shape.sink, version, changes), body, CONTENT_TYPES[form])

    def sweep(self, version: Version, slice_: int) -> None:
        """Not for this kind: the sink keeps the keys that it has delivered."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection."""
        if self._http is not None:
            with suppress(Exception):
                self._http.close()
        self._http = None

    def _prepare(self) -> tuple[SplitResult, list[bytes], dict[str, str]]:
        if self._ready is None:
            url = resolve_optional(self._options.url, "url")
            try:
                parts = checked_url(url)
            except ValueError as error:
                raise Misconfigured(f"url: {error}") from None
            keys = []
            for reference in self._options.secrets:
                try:
                    keys.append(key_of(resolve(reference, "secrets")))
                except ValueError as error:
                    raise Misconfigured(
                        f"the secret {reference} {error}",
                        remedy="Make one: python -c \"import base64, os; print('whsec_' +"
                        ' base64.b64encode(os.urandom(32)).decode())"',
                    ) from None
            headers = {name: resolve_optional(value, name) for name, value in self._options.headers.items()}
            self._ready = parts, keys, headers
        return self._ready

    def _post(self, identifier: str, body: bytes, content_type: str) -> None:
        parts, keys, headers = self._prepare()
        moment = int(time.time())
        headers = {
            **headers,
            "content-type": content_type,
            "user-agent": f"refold/{__version__}",
            "webhook-id": identifier,
            "webhook-timestamp": str(moment),
            "webhook-signature": signatures(keys, identifier, moment, body),
        }
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fresh = self._http is None
        try:
            self._request(parts, target, body, headers)
        except (ConnectionError, http.client.RemoteDisconnected, http.client.CannotSendRequest) as error:
            self.close()
            if fresh:
                raise Unavailable(f"the receiver cannot be reached: {_said(error)}", status="connection") from None
            # It has closed a connection that was idle; the same message again changes nothing.
            try:
                self._request(parts, target, body, headers)
            except (OSError, http.client.HTTPException) as again:
                self.close()
                raise _failure(again) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _failure(error) from None

    def _request(self, parts: SplitResult, target: str, body: bytes, headers: dict[str, str]) -> None:
        until = time.monotonic() + self._options.timeout_s
        if self._http is None:
            self._http = self._connect(parts, until)
        connection = self._http
        over = threading.Event()

        def cut() -> None:
            over.set()
            with suppress(OSError):
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, until - time.monotonic()), cut)
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", target, body, headers)
            answer = connection.getresponse()
            status = answer.status
            if over.is_set():
                # Headers that the time limit has cut off look complete.
                raise TimeoutError
            try:
                said = answer.read(_READ)
            except (OSError, http.client.HTTPException):
                # The status is the answer; a body that is cut off changes nothing.
                said = b""
                self.close()
            else:
                if not answer.isclosed():
                    self.close()
        except (OSError, http.client.HTTPException):
            if over.is_set():
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
        failure = outcome(status, answer.getheader("retry-after"), answer.getheader("location"), said, _now())
        if failure is not None:
            raise failure

    def _connect(self, parts: SplitResult, until: float) -> http.client.HTTPConnection:
        host, port = parts.hostname or "", port_of(parts)
        addresses = look_up(host, port, allow_private=self._options.allow_private)
        made = _Plain(host, parts.port, timeout=self._options.timeout_s)
        failure: OSError | None = None
        for address in addresses:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                sock = socket.create_connection((address, port), timeout=left)
                break
            except OSError as error:
                failure = error
        else:
            raise failure or OSError("no address")
        sock.settimeout(self._options.timeout_s)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self._options.ca)
            sock = context.wrap_socket(sock, server_hostname=host)
        made.sock = sock
        return made


class _Plain(http.client.HTTPConnection):
    """A connection whose socket is given; it never opens another."""

    auto_open = 0


def _failure(error: Exception) -> Unavailable | Misconfigured:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Misconfigured(
            f"the certificate of the receiver is not trusted: {error.verify_message}",
            status="TLS",
            remedy='If a private authority signs it, name its file: ca = "/path".',
        )
    if isinstance(error, TimeoutError):
        return Unavailable("the receiver did not answer in time", status="timeout")
    return Unavailable(f"the receiver cannot be reached: {_said(error)}", status="connection")


def _said(error: Exception) -> str:
    return printable(str(error).encode()) or type(error).__name__


def _now() -> datetime:
    return datetime.now(UTC)
