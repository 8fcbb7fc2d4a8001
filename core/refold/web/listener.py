"""The socket of a server, and how its address is written."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from refold.errors import InputError


@contextmanager
def listening(
    host: str, port: int, *, option: str = "--host or --port", shared: bool = False
) -> Iterator[socket.socket]:
    """Yield a socket that listens on an address; it is closed in the end.

    Args:
        host: address, or a name of this machine; of a name's addresses the first is taken, IPv4 before IPv6.
        port: port; 0 draws a free one.
        option: the option that gave the address, for the remedy.
        shared: whether other processes may take the same port and share its connections. Then the socket only keeps
            the port, and takes no connection until its server listens.

    Raises:
        InputError: the address cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _unusable(host, port, option, error) from None
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            if not shared:
                # Until one of them listens, SO_REUSEADDR lets two processes take the same port.
                listener.listen()
        except OSError as error:
            raise _unusable(host, port, option, error) from None
        yield listener


def origin(listener: socket.socket) -> str:
    """Return the address of a socket as a URL without a path: `http://127.0.0.1:8642`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def address(text: str) -> tuple[str, int]:
    """Return host and port of an address like `127.0.0.1:9464` or `[::1]:9464`. Pure.

    Raises:
        InputError: the text is no such address.
    """
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.port is not None and parts.netloc == text and "@" not in text:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise InputError(f"{text!r} is not an address", remedy="Write it like 127.0.0.1:9464, or [::1]:9464.")


def _unusable(host: str, port: int, option: str, error: OSError) -> InputError:
    return InputError(f"cannot listen on {host}:{port}: {error.strerror}", remedy=f"Choose another {option}.")
