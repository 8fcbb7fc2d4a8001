"""Which names a request may call a server by.

A web page can make a browser call 127.0.0.1 under a name of the page's own (DNS rebinding), and read the answer. Such a
request has the page's name in its Host header.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address; a name other than localhost may lead anywhere. Pure."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Hosts:
    """The names of a server.

    Args:
        names: names by which it may be called, beside addresses. `localhost` and all below it always are.
        everywhere: whether any address may be called; else only those of loopback. An address cannot be rebound.
    """

    def __init__(self, names: Iterable[str] = (), *, everywhere: bool = False) -> None:
        self._names = {"localhost", *(name.casefold() for name in names)}
        self._everywhere = everywhere

    def allows(self, headers: Collection[str]) -> bool:
        """Return whether a request with these Host headers may pass. Pure."""
        if len(headers) != 1:
            return False
        [text] = headers
        try:
            parts = urlsplit(f"//{text}")
            host, _ = parts.hostname, parts.port
        except ValueError:
            return False
        if not host or parts.netloc != text or "@" in text:
            return False
        if host in self._names or host.endswith(".localhost"):
            return True
        try:
            found = ip_address(host)
        except ValueError:
            return False
        return self._everywhere or found.is_loopback
