"""What the agent dials, and what it refuses whoever asks. Pure.

Who may port-forward to the pod may use it; that must not reach further than the pod's own place in the network: not the pod's
loopback (the agent itself, sidecars), not the node's metadata service, nothing that is no single machine.

Not here: resolving names. The judgement is made on addresses, after resolving.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from kt_net.addr import IPAddress, IPPrefix

#: Metadata services of clouds that are not link-local (AWS over IPv6, Alibaba, Oracle's alternative).
METADATA: tuple[IPPrefix, ...] = (
    ipaddress.ip_network("fd00:ec2::254/128"),
    ipaddress.ip_network("100.100.100.200/32"),
    ipaddress.ip_network("192.0.0.192/32"),
)
#: IPv6 addresses that carry an IPv4 address of which the same must hold: NAT64 (RFC 6052) and 6to4 (RFC 3056).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

DNS_PORT = 53


class Policy:
    """The judgement.

    Args:
        own: the pod's own addresses.
        listen_port: the agent's listener, refused on every own address.
        nameservers: of the pod's resolv.conf; allowed on port 53 even where link-local (node-local DNS caches are).
        allowed: when not empty, nothing outside these prefixes is dialled.
    """

    def __init__(
        self,
        *,
        own: Iterable[IPAddress] = (),
        listen_port: int,
        nameservers: Iterable[IPAddress] = (),
        allowed: Iterable[IPPrefix] = (),
    ) -> None:
        self._own = frozenset(own)
        self._listen_port = listen_port
        self._nameservers = frozenset(nameservers)
        self._allowed = tuple(allowed)

    def refusal(self, address: IPAddress, port: int) -> str | None:
        """Why `address` and `port` are not dialled, or None when they may be."""
        plain = _plain(address)
        if port == DNS_PORT and plain in self._nameservers and not plain.is_loopback:
            return None
        if plain.is_loopback:
            return "loopback"
        if plain.is_unspecified or plain in _THIS_NETWORK:
            return "unspecified"
        if plain.is_multicast or plain == _BROADCAST:
            return "multicast or broadcast"
        if plain.is_link_local:
            return "link-local"
        if any(plain in prefix for prefix in METADATA if prefix.version == plain.version):
            return "a metadata service"
        if plain in self._own and port == self._listen_port:
            return "the agent's own listener"
        if self._allowed and not any(plain in prefix for prefix in self._allowed if prefix.version == plain.version):
            return "outside the allow-list"
        return None


_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_BROADCAST = ipaddress.ip_address("255.255.255.255")


def _plain(address: IPAddress) -> IPAddress:
    """The IPv4 address inside an IPv6 address that only wraps one, else the address itself (without a zone)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[12:])
    if int(address) >> 32 == 0 and int(address) > 1:
        return ipaddress.IPv4Address(address.packed[12:])  # IPv4-compatible (RFC 4291 section 2.5.5.1), deprecated
    return ipaddress.IPv6Address(address.packed)
