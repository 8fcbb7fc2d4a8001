"""The address to which a webhook is posted: looked up once, and refused if it is inside the deliverer's own network.

A URL comes from whoever writes the file of a sink. Without this guard it could reach what only this machine can, such
as the metadata service of a cloud (server-side request forgery).
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from refold.sinks.receiver import Misconfigured, Unavailable

_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
_PORTS = {"http": 80, "https": 443}


def checked_url(url: str) -> SplitResult:
    """Return the parts of a URL to which rows can be posted. Pure.

    Raises:
        ValueError: it is not such a URL; the message does not repeat it.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("must begin with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password: write a header with a reference, such as env:NAME")
    if not parts.hostname:
        raise ValueError("names no host")
    if any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise ValueError("must not hold spaces or control characters")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("has no valid port") from None
    return parts


def port_of(parts: SplitResult) -> int:
    """Return the port of a URL."""
    return parts.port or _PORTS[parts.scheme]


def look_up(host: str, port: int, *, allow_private: bool) -> list[str]:
    """Return the addresses of a host, all of which may be reached.

    Raises:
        Misconfigured: the name does not exist, or one of its addresses is not public.
        Unavailable: the name cannot be looked up now.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Unavailable(f"{host} cannot be looked up now", status="DNS") from None
        raise Misconfigured(f"there is no host {host}", status="DNS", remedy="Correct the URL of the sink.") from None
    except UnicodeError:
        raise Misconfigured(f"{host} is not the name of a host", status="DNS") from None
    addresses = [str(address[0]) for *_, address in found]
    if not allow_private:
        for address in addresses:
            if not is_public(address):
                raise Misconfigured(
                    f"{host} has the address {address}, which is not public",
                    status="address",
                    remedy="If the receiver is in your own network, write allow_private = true.",
                )
    return list(dict.fromkeys(addresses))


def is_public(address: str) -> bool:
    """Return whether an address can only be reached through the internet. Pure."""
    found: IPv4Address | IPv6Address = ip_address(address.split("%")[0])
    if isinstance(found, IPv6Address):
        within = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if within is None and any(found in network for network in _NAT64):
            within = IPv4Address(int(found) & 0xFFFFFFFF)
        if within is not None:
            return is_public(str(within)) and not found.is_multicast
    return found.is_global and not (
        found.is_multicast or found.is_loopback or found.is_link_local or found.is_reserved or found.is_unspecified
    )
