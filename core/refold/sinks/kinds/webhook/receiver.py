"""Webhooks: each delivery is one signed POST, which the receiver confirms with a status of 2xx.

At least once. A repetition of the same rows has the same `webhook-id`, and versions only grow: a receiver that skips
ids that it knows, and rows that are older than those it has, takes each row exactly once.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import TYPE_CHECKING, ClassVar, TypeVar

from refold import __version__, tracing
from refold.model.erasure import ErasureNotice
from refold.sinks.kinds.webhook.body import CONTENT_TYPES, body, erased_body, erased_id, message_id, ping_body
from refold.sinks.kinds.webhook.options import Target, WebhookOptions, checked_url, checked_value
from refold.sinks.kinds.webhook.outcome import Answer, of_answer, of_error
from refold.sinks.kinds.webhook.signature import PREFIX, key_of, signature
from refold.sinks.receiver import Change, Misconfigured, Shape, TooLarge, Version
from refold.sinks.secrets import is_reference, resolve, resolve_optional

if TYPE_CHECKING:
    from refold.sinks.kinds.webhook.network import Client

SHORTEST, SHORTEST_PART = 4, 8
"""Fewest characters of a secret, and of a part of it (a word of a header, a segment of a path), that messages hide."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A receiver that requests can be sent to: what the references of the options name now.

    Args:
        who: words for the receiver, for messages.
        client: sends to the url.
        keys: bytes of the secrets.
        headers: those that are the same for all requests.
        hidden: texts that no message may show.
    """

    who: str
    client: Client
    keys: tuple[bytes, ...] = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    hidden: frozenset[str] = field(repr=False)

    def post(self, headers: Sequence[tuple[str, str]], content: bytes) -> Answer:
        """Send a request, and return the answer that confirms it.

        Args:
            headers: those of this request alone.
            content: the body.

        Raises:
            DeliveryError: the receiver has not confirmed; `outcome` says which.
        """
        now = datetime.now(UTC)
        try:
            answer = self.client.post([*self.headers, *headers], content)
        except (OSError, Misconfigured) as error:
            raise of_error(error, self.who, self.hidden) from None
        failure = of_answer(answer, self.who, now, self.hidden)
        if failure is not None:
            raise failure
        return answer

    def post_signed(self, message: str, content: bytes, headers: Sequence[tuple[str, str]] = ()) -> Answer:
        """Send a request with a signature of Standard Webhooks, and return the answer that confirms it.

        Args:
            message: the value of `webhook-id`: the same for a repetition.
            content: the body.
            headers: further ones.

        Raises:
            DeliveryError: the receiver has not confirmed.
        """
        timestamp = int(datetime.now(UTC).timestamp())
        return self.post(
            [
                *headers,
                ("webhook-id", message),
                ("webhook-timestamp", str(timestamp)),
                ("webhook-signature", signature(self.keys, message, timestamp, content)),
            ],
            content,
        )


class WebhookReceiver:
    """Delivers rows to a url.

    Args:
        options: the keys of its part of the sink's file.
    """

    Options: ClassVar[type[WebhookOptions]] = WebhookOptions
    needs_json: ClassVar[bool] = True
    remembers: ClassVar[bool] = False

    def __init__(self, options: WebhookOptions) -> None:
        self._options = options
        self._shape: Shape | None = None
        self._given: Prepared | None = None

    def open(self, shape: Shape, owner: object = None) -> None:
        """Read secrets; return None, because a webhook cannot tell which version it was given.

        Args:
            shape: the form of the rows.
            owner: who delivers; a webhook keeps nothing to compare it with.

        Raises:
            Misconfigured: a secret is missing or no secret, or the url is not valid.
        """
        self.close()
        self._shape = shape
        self._given = prepared(self._options)

    def deliver(self, version: Version, changes: Sequence[Change]) -> None:
        """Deliver rows in one request; return when the receiver has confirmed it.

        Raises:
            TooLarge: there are more rows than `batch`, or the receiver says so (413).
            DeliveryError: another of its subclasses; `outcome` says which.
        """
        if not changes:
            return
        options, shape = self._options, self._shape
        assert shape is not None, "open() comes first"
        if options.batch is not None and len(changes) > options.batch:
            raise TooLarge(f"{len(changes)} rows are more than batch = {options.batch}")
        message = message_id(shape.sink, version, changes)
        self._post(message, body(options.body, shape, version, changes, datetime.now(UTC)))

    def ping(self) -> str:
        """Post a body of type `refold.ping`, and return the status and the time that it took."""
        sink = None if self._shape is None else self._shape.sink
        message = f"msg_{token_hex(32)}"
        content = ping_body(self._options.body, sink, message, datetime.now(UTC))
        begin = time.monotonic()
        answer = self._post(message, content)
        return f"{answer.status} in {(time.monotonic() - begin) * 1000:.0f} ms"

    def tell(self, erased: ErasureNotice) -> None:
        """Post a body of type `refold.erased`; return when the receiver has confirmed it.

        Raises:
            DeliveryError: one of its subclasses; `outcome` says which.
        """
        shape = self._shape
        assert shape is not None, "open() comes first"
        self._post(erased_id(shape.sink, erased), erased_body(self._options.body, shape, erased, datetime.now(UTC)))

    def sweep(self, version: Version, slice_: int) -> None:
        """Never called: a webhook does not remember rows."""
        raise NotImplementedError("a webhook cannot find the rows that it has delivered")

    def close(self) -> None:
        """Close the connection, and forget secrets."""
        if self._given is not None:
            self._given.client.close()
        self._given = None

    def _post(self, message: str, content: bytes) -> Answer:
        if self._given is None:
            self._given = prepared(self._options)
        traceparent = tracing.current()
        headers = (("traceparent", traceparent),) if traceparent else ()
        return self._given.post_signed(message, content, headers)


def prepared(options: WebhookOptions, *, below: str = "") -> Prepared:
    """Read what references name, and return a receiver to send to.

    Args:
        options: of the receiver.
        below: a path that is added to that of the url.

    Raises:
        Misconfigured: a secret is missing or no secret, or the url is not valid.
    """
    try:
        from refold.sinks.kinds.webhook.network import Client
    except ImportError as error:
        raise Misconfigured(f"webhooks need the package {error.name}", remedy="pip install 'refold[webhook]'") from None
    target, hidden = _target(options.url)
    if below:
        path, _, query = target.path.partition("?")
        target = target._replace(path=path.rstrip("/") + below + (f"?{query}" if query else ""))
    keys = []
    for reference in options.secrets:
        secret = resolve(reference, "secrets").strip()
        keys.append(_checked(key_of, secret, "secrets", reference))
        hidden |= {secret, secret.removeprefix(PREFIX).rstrip("=")}
    headers = [
        ("Host", target.authority),
        ("User-Agent", f"refold/{__version__}"),
        ("Content-Type", CONTENT_TYPES[options.body]),
    ]
    for name, text in options.headers.items():
        value = resolve_optional(text, f"headers.{name}").strip()
        headers.append((name, _checked(checked_value, value, f"headers.{name}", text)))
        if is_reference(text):
            hidden |= {value} | _parts(value, " ,;=:")
    who = options.url if is_reference(options.url) else target.authority
    client = Client(
        target,
        who,
        timeout_s=options.timeout_s,
        allow_private=options.allow_private,
        tls=_tls(options.ca) if target.scheme == "https" else None,
    )
    return Prepared(who, client, tuple(keys), tuple(headers), frozenset(one for one in hidden if len(one) >= SHORTEST))


def _target(given: str) -> tuple[Target, set[str]]:
    """Return what a url names, and the parts of it that are secret: all, if it is a reference."""
    url = resolve_optional(given, "url").strip()
    target = _checked(checked_url, url, "url", given)
    if not is_reference(given):
        return target, set()
    return target, {url, target.path, target.host, target.authority} | _parts(target.path, "/?&=")


def _checked(check: Callable[[str], T], value: str, what: str, given: str) -> T:
    try:
        return check(value)
    except ValueError as error:
        raise Misconfigured(f"{what}: {given} {error}" if is_reference(given) else f"{what}: {error}") from None


def _parts(text: str, separators: str) -> set[str]:
    return {part for part in re.split(f"[{separators}]", text) if len(part) >= SHORTEST_PART}


def _tls(ca: str | None) -> ssl.SSLContext:
    if ca is None:
        import httpcore2

        return httpcore2.default_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        # An SSLError is one, too: the file has no certificate.
        raise Misconfigured(
            f"ca: cannot read certificates from {ca}: {error.strerror or error}",
            remedy="Name a file of certificates in PEM.",
        ) from None
