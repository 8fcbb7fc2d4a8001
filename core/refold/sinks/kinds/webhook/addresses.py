"""Which addresses a webhook may call: public ones. Others may belong to services that trust their own network. Pure.

The ranges are those of IANA's registries of special addresses, written out: what Python's `ipaddress` calls private
differs between its versions.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_METADATA = {
    # Services that give credentials to whoever asks from inside a cloud. That of Azure has a public address.
    ip_address("169.254.169.254"),
    ip_address("169.254.170.2"),
    ip_address("169.254.170.23"),
    ip_address("100.100.100.200"),
    ip_address("192.0.0.192"),
    ip_address("168.63.129.16"),
    ip_address("fd00:ec2::254"),
    ip_address("fd00:ec2::23"),
}
_V4 = [
    (IPv4Network(network), word)
    for network, word in [
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared (carrier-grade NAT)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    ]
]
_V6 = [
    (IPv6Network(network), word)
    for network, word in [
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("3fff::/20", "reserved"),
    ]
]
_GLOBAL_V6 = IPv6Network("2000::/3")
"""The only range of IPv6 from which public addresses are given out."""
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")


def flaw(address: IPv4Address | IPv6Address) -> str | None:
    """Return the word for what an address is if it is not public, such as `loopback`; None if it is public.

    An IPv6 address that leads to an IPv4 address (mapped, NAT64, 6to4) is what that one is.
    """
    if address in _METADATA:
        return "a cloud's metadata service"
    if isinstance(address, IPv4Address):
        return next((word for network, word in _V4 if address in network), None)
    inner = _inner(address)
    if inner is not None:
        return flaw(inner)
    word = next((word for network, word in _V6 if address in network), None)
    return word or (None if address in _GLOBAL_V6 else "reserved")


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to an IPv6 address end at."""
    if address in _MAPPED or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return None
