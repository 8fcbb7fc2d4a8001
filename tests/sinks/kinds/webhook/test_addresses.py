"""Only public addresses may be called, in whatever form they are written."""

from ipaddress import ip_address

import pytest

from refold.sinks.kinds.webhook.addresses import flaw

PUBLIC = [
    "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
    "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "2606:4700::1111", "2a00:1450:4001::200e", "2001:4860:4860::8888", "2400::1",
    "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1",
]  # fmt: skip
NOT_PUBLIC = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "shared",
    "100.127.255.255": "shared",
    "127.0.0.1": "loopback",
    "127.255.255.255": "loopback",
    "169.254.1.1": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.0.1": "private",
    "192.0.0.1": "reserved",
    "192.0.2.1": "reserved",
    "192.88.99.1": "reserved",
    "198.18.0.1": "reserved",
    "198.19.255.255": "reserved",
    "198.51.100.1": "reserved",
    "203.0.113.1": "reserved",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "169.254.169.254": "metadata",
    "100.100.100.200": "metadata",
    "192.0.0.192": "metadata",
    "168.63.129.16": "metadata",
    "fd00:ec2::254": "metadata",
    "::": "unspecified",
    "::1": "loopback",
    "::7f00:1": "reserved",
    "fc00::1": "private",
    "fdff::1": "private",
    "fe80::1": "link-local",
    "fec0::1": "private",
    "ff02::1": "multicast",
    "100::1": "reserved",
    "2001::1": "reserved",
    "2001:2::1": "reserved",
    "2001:20::1": "reserved",
    "2001:db8::1": "reserved",
    "3fff::1": "reserved",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "64:ff9b:1::1": "reserved",
    # IPv4 addresses inside: mapped, NAT64, 6to4.
    "::ffff:127.0.0.1": "loopback",
    "::ffff:10.0.0.1": "private",
    "::ffff:169.254.169.254": "metadata",
    "64:ff9b::7f00:1": "loopback",
    "64:ff9b::a9fe:a9fe": "metadata",
    "64:ff9b::c0a8:1": "private",
    "2002:7f00:1::": "loopback",
    "2002:a00:1::1": "private",
    "2002:a9fe:a9fe::1": "metadata",
}


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert flaw(ip_address(text)) is None


@pytest.mark.parametrize(("text", "word"), NOT_PUBLIC.items())
def test_not_public(text: str, word: str) -> None:
    assert word in (flaw(ip_address(text)) or "")


def test_python_calls_nothing_private_that_is_allowed() -> None:
    """Another list of special addresses, which nobody here wrote: all that it knows is refused."""
    for text in PUBLIC:
        address = ip_address(text)
        inner = getattr(address, "ipv4_mapped", None) or address
        assert not (inner.is_private or inner.is_loopback or inner.is_link_local or inner.is_multicast)
    step = 256
    for first in range(0, 2**32, 2**32 // (step * step)):
        address = ip_address(first)
        if not address.is_global or address.is_multicast or address.is_reserved:
            assert flaw(address) is not None, address
