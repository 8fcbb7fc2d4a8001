"""What every request must satisfy, and what every answer carries.

A page of another site cannot read the dashboard by giving its own name our address (DNS rebinding), for the name in the
Host header must be ours or an address. It can act on nothing, for a POST must come from a page of ours.

A proxy is believed about the person, the scheme and the name that its client used, but not that the name is ours: a
browser beside a proxy on this machine has the proxy's address, and a rebound page may send any header.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from refold.dashboard.tokens import Grade, Tokens
from refold.errors import InputError
from refold.web.hosts import Hosts

COOKIE = "refold_session"
PROXIED = "refold.proxied"
"""Key of the scope: whether the request came from a proxy that is believed."""
GRADE = "refold.grade"
"""Key of the scope: what the request's token or session allows."""
SAFE = ("GET", "HEAD")

CSP = "; ".join(
    (
        "default-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    # With `no-referrer` browsers would send no Origin of our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies whose X-Forwarded-… headers are believed."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Proxies:
        """Return the proxies of an option: addresses or networks, separated by commas.

        Raises:
            InputError: one of them is neither.
        """
        try:
            return cls(tuple(ip_network(one.strip()) for one in text.split(",") if one.strip()))
        except ValueError as error:
            raise InputError(
                f"--trust-proxy: {error}", remedy="Name addresses or networks: 10.0.0.7,10.1.0.0/16"
            ) from None

    def believed(self, client: object) -> bool:
        """Return whether a request came from one of them."""
        if not isinstance(client, tuple | list) or not client:
            return False
        try:
            address = ip_address(str(client[0]))
        except ValueError:
            return False
        return any(address in network for network in self.networks)


class Guard:
    """Refuses what is not for the dashboard, and adds headers to every answer.

    Args:
        app: the application behind it.
        host: the address that is listened on.
        names: further names by which it may be called, such as a proxy's.
        tokens: the tokens.
        proxies: whose X-Forwarded-… headers are believed.
    """

    def __init__(self, app: ASGIApp, *, host: str, names: Collection[str], tokens: Tokens, proxies: Proxies) -> None:
        self._app = app
        self._hosts = Hosts((*names, host, socket.gethostname(), socket.getfqdn()), everywhere=True)
        self._tokens = tokens
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        scope[PROXIED] = self._proxies.believed(scope.get("client"))
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        scope[GRADE] = self._grade(headers)
        await self._app(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        if not self._called_by_name(headers, proxied=scope[PROXIED]):
            return PlainTextResponse(
                "This name is not the dashboard's. Use the address that it listens on, or say --allow-host.\n",
                421,
            )
        if "token" in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            return PlainTextResponse(
                "A token does not belong in an address, which histories and logs keep. Change it now.\n",
                400,
            )
        if scope["method"] in SAFE:
            return None
        if scope["method"] != "POST":
            return PlainTextResponse(
                "Pages are read with GET, and actions are sent with POST.\n", 405, {"allow": "GET, HEAD, POST"}
            )
        if not self._tokens.any:
            return PlainTextResponse("This dashboard is read-only. To act here, start it with --token-file.\n", 403)
        if not _from_us(headers, proxied=scope[PROXIED]):
            return PlainTextResponse("This request does not come from a page of the dashboard.\n", 403)
        return None

    def _called_by_name(self, headers: Headers, *, proxied: bool) -> bool:
        """Return whether a request names us, and whether its client did, if a proxy says what it said."""
        if not self._hosts.allows(headers.getlist("host")):
            return False
        forwarded = headers.getlist("x-forwarded-host") if proxied else []
        return all(self._hosts.allows([name.strip()]) for names in forwarded for name in names.split(","))

    def _grade(self, headers: Headers) -> Grade:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.casefold() == "bearer":
            return self._tokens.grade(given.strip())
        return self._tokens.of_session(_cookies(headers).get(COOKIE, ""))


def _from_us(headers: Headers, *, proxied: bool) -> bool:
    """Return whether a request that acts was sent by a page of ours, or by a program with the token itself."""
    fetched = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if fetched is not None and fetched != "same-origin":
        return False
    if origin is not None:
        host = headers.get("x-forwarded-host", headers.get("host", "")) if proxied else headers.get("host", "")
        return _place(origin) == host.casefold() != ""
    if fetched is not None:
        return True
    # No browser: programs send neither of the two, and cannot be made to send a token that they do not have.
    return headers.get("authorization", "").casefold().startswith("bearer ")


def _place(origin: str) -> str | None:
    """Return the host and port of an Origin header; None if it is no address."""
    try:
        return urlsplit(origin).netloc.casefold()
    except ValueError:
        return None


def _cookies(headers: Headers) -> Mapping[str, str]:
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return {name: value for name, _, value in pairs}
