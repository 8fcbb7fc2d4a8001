"""Names that a server goes by, and names that lead to it and are not its own."""

from __future__ import annotations

import pytest

from refold.web.hosts import Hosts, is_loopback


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost", True), ("box", True), ("BOX:8642", True), ("10.1.2.3:80", True), ("[::1]:8642", True),
        ("a.localhost", True), ("evil", False), ("", False), ("box/", False), ("u@box", False), ("box:x", False),
        ("[::1", False), ("10.1.2.3.evil", False),
    ],
)  # fmt: skip
def test_names(host: str, ours: bool) -> None:
    assert Hosts(["Box"], everywhere=True).allows([host]) is ours


def test_one_name_and_addresses_of_this_machine() -> None:
    here = Hosts()
    assert here.allows(["[::1]:80"]) and here.allows(["127.9.9.9"])
    assert not here.allows(["10.1.2.3"])
    assert not here.allows(["localhost", "localhost"]) and not here.allows([])


def test_loopback() -> None:
    assert is_loopback("::1") and is_loopback("127.9.9.9") and is_loopback("localhost")
    assert not is_loopback("10.0.0.1") and not is_loopback("a.b")
