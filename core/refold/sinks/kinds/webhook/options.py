"""The options of a webhook: its part of the sink's file."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from refold.sinks.kinds.webhook.body import Form
from refold.sinks.secrets import checked_reference, is_reference

LONGEST_TIMEOUT_S = 45.0
"""Less than the time after which another deliverer takes over from one that is silent."""
MOST_SECRETS = 5
"""Most secrets that sign a request."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9a-fA-F:.]+")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_SECRET_NAME = re.compile(r"authorization|cookie|token|secret|passw|credential|api-?key|auth-?key", re.IGNORECASE)
_OURS = {
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
    "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
}  # fmt: skip


class Target(NamedTuple):
    """What a url names.

    Args:
        scheme: `http` or `https`.
        host: a name, or an address without brackets.
        port: the port.
        path: path and query.
        authority: host and port as the header `Host` wants them.
    """

    scheme: str
    host: str
    port: int
    path: str
    authority: str


def checked_url(url: str) -> Target:
    """Return what a url names. Pure.

    Raises:
        ValueError: it is no url of a webhook. The message does not show it, because it may be a secret.
    """
    if not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ValueError("must be ASCII without spaces: write %20 for a space, and a host with umlauts as xn--…")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is no url: write https://host/path") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with https:// or http://: write https://host/path")
    if "@" in parts.netloc:
        raise ValueError('must not hold a user or a password: write headers = {Authorization = "env:NAME"}')
    if not parts.hostname or not _HOST.fullmatch(parts.hostname) or len(parts.hostname) > 253 or "\\" in url:
        raise ValueError("has no valid host: write https://host/path")
    if any(len(label) > 63 or not label for label in parts.hostname.split(".")) and ":" not in parts.hostname:
        raise ValueError("has no valid host: write https://host/path")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("has no valid port: write https://host:8443/path")
    if parts.fragment:
        raise ValueError("must not have a part after #, which is never sent")
    return _target(parts, port)


def _target(parts: SplitResult, port: int | None) -> Target:
    usual = {"http": 80, "https": 443}[parts.scheme]
    host = str(parts.hostname)
    shown = f"[{host}]" if ":" in host else host
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = shown if port in (None, usual) else f"{shown}:{port}"
    return Target(parts.scheme, host, port or usual, path, authority)


def checked_value(value: str) -> str:
    """Return the value of a header. Pure.

    Raises:
        ValueError: HTTP has no such value. The message does not show it, because it may be a secret.
    """
    if not _VALUE.fullmatch(value):
        raise ValueError("must be printable ASCII without spaces at its ends")
    return value


def _url(url: str) -> str:
    if is_reference(url):
        return checked_reference(url)
    checked_url(url)
    return url


class WebhookOptions(BaseModel):
    """Keys of `[webhook]` in the file of a sink.

    Args:
        url: where to send; a url that is a secret itself is a reference, `env:NAME` or `file:/path`.
        secrets: references to the secrets that sign; during a rotation the new and the old one.
        body: the form of bodies.
        headers: further headers; a value may be a reference.
        timeout_s: seconds for one request, from its first byte to the last of its answer.
        allow_private: whether the receiver may be in a private network.
        ca: path of the certificates (PEM) of the authority that issued the receiver's.
        batch: most rows in a request; by default as many as the sink gives.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(_url)] = Field(
        description='Where to send: write url = "https://host/path", or url = "env:NAME" if it is a secret.', repr=False
    )
    secrets: tuple[str, ...] = Field(
        description='What signs: write secrets = ["env:NAME"], and set NAME to whsec_… where deliveries are made.'
    )
    body: Form = "standard"
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    timeout_s: Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT_S)] = 15.0
    allow_private: bool = False
    ca: str | None = None
    batch: Annotated[int, Field(ge=1)] | None = None

    @field_validator("secrets")
    @classmethod
    def _references(cls, secrets: tuple[str, ...]) -> tuple[str, ...]:
        if not 1 <= len(secrets) <= MOST_SECRETS:
            raise ValueError(f'must have 1 to {MOST_SECRETS} references: write ["env:NAME"]')
        for one in secrets:
            if not is_reference(one):
                raise ValueError('holds a secret: write ["env:NAME"] or ["file:/path"], and put the secret there')
            checked_reference(one)
        return secrets

    @field_validator("headers")
    @classmethod
    def _allowed(cls, headers: dict[str, str]) -> dict[str, str]:
        seen: set[str] = set()
        for name, value in headers.items():
            small = name.lower()
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name[:40]!a} cannot name a header")
            if small in _OURS or small.startswith("webhook-"):
                raise ValueError(f"{name} is set by refold: leave it out")
            if small in seen:
                raise ValueError(f"{name} is there twice: names of headers do not tell capitals from small letters")
            seen.add(small)
            try:
                (checked_reference if is_reference(value) else checked_value)(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            if _SECRET_NAME.search(name) and not is_reference(value):
                raise ValueError(f'{name} holds a secret: write {name} = "env:NAME", and put the whole value there')
        return headers

    @field_validator("ca")
    @classmethod
    def _absolute(cls, ca: str | None) -> str | None:
        if ca is not None and not ca.startswith("/"):
            raise ValueError("must be an absolute path, such as /etc/ssl/own-ca.pem")
        return ca
