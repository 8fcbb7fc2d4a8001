"""Sockets of servers: which address they get, and how it is told."""

from __future__ import annotations

import socket

import pytest

from refold.errors import InputError
from refold.web.listener import address, listening, origin


def test_an_address_becomes_a_socket() -> None:
    with listening("localhost", 0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1" and origin(listener) == f"http://127.0.0.1:{port}"
    assert listener.fileno() == -1
    with listening("::1", 0) as listener:
        assert origin(listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_a_port_is_taken_before_anything_is_served() -> None:
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        for shared in (False, True):
            with (
                pytest.raises(InputError, match="cannot listen") as refused,
                listening("127.0.0.1", port, option="--listen", shared=shared),
            ):
                pass
            assert refused.value.remedy == "Choose another --listen."


def test_a_port_that_is_shared_takes_no_connection_by_itself() -> None:
    with listening("127.0.0.1", 0, shared=True) as kept:
        at = kept.getsockname()
        with listening("127.0.0.1", at[1], shared=True):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(at)


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="cannot listen"), listening(host, 0):
        pass


def test_addresses() -> None:
    assert address("127.0.0.1:9464") == ("127.0.0.1", 9464)
    assert address("[::1]:0") == ("::1", 0)
    for wrong in ("9464", "127.0.0.1", ":9464", "a:b", "http://x:1", "x:1/y", "u@x:1", "127.0.0.1:99999", "::1:9"):
        with pytest.raises(InputError):
            address(wrong)
