"""Words for addresses that every floor may use.

Hot paths key tables by packed bytes (4 or 16 of them); `ipaddress` objects are made at the edges only.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final, TypeAlias

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPPrefix: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect to: an address in text or a host name, and a port (0..65535; an echo identifier for ICMP)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_text(packed: bytes) -> str:
    """The text of a packed address of 4 or 16 bytes.

    Raises:
        ValueError: neither 4 nor 16 bytes.
    """
    return str(ipaddress.ip_address(packed))


def collapse(prefixes: list[IPPrefix]) -> list[IPPrefix]:
    """The same addresses in the fewest prefixes, IPv4 first, in order."""
    v4 = [prefix for prefix in prefixes if isinstance(prefix, ipaddress.IPv4Network)]
    v6 = [prefix for prefix in prefixes if isinstance(prefix, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)]


def subtract(prefixes: list[IPPrefix], holes: list[IPPrefix]) -> list[IPPrefix]:
    """`prefixes` without every address of `holes`."""
    left = collapse(prefixes)
    for hole in holes:
        kept: list[IPPrefix] = []
        for prefix in left:
            if prefix.version != hole.version or not prefix.overlaps(hole):
                kept.append(prefix)
            elif isinstance(prefix, ipaddress.IPv4Network) and isinstance(hole, ipaddress.IPv4Network):
                if hole.prefixlen > prefix.prefixlen:
                    kept.extend(prefix.address_exclude(hole))
            elif (
                isinstance(prefix, ipaddress.IPv6Network)
                and isinstance(hole, ipaddress.IPv6Network)
                and hole.prefixlen > prefix.prefixlen
            ):
                kept.extend(prefix.address_exclude(hole))
        left = kept
    return collapse(left)
