"""The kernel's routes as values, read from /proc (proc_net(5)); no netlink is needed to look.

Not here: changing them (helper.py).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

from kt_net.addr import IPAddress, IPPrefix

_RTF_UP = 0x0001
_RTF_REJECT = 0x0200
_RTF_LOCAL = 0x80000000


@dataclass(frozen=True, slots=True)
class Route:
    """One route; `gateway` is None for a link's own. Of equal prefixes the one with the lower metric counts."""

    prefix: IPPrefix
    interface: str
    gateway: IPAddress | None
    metric: int = field(default=0, compare=False)


def parse_ipv4_routes(text: str) -> list[Route]:
    """Of /proc/net/route; lines that make no sense are passed over."""
    routes: list[Route] = []
    for line in text.splitlines()[1:]:
        words = line.split()
        try:
            flags = int(words[3], 16)
            address, mask, gateway = (_ipv4(words[i]) for i in (1, 7, 2))
            prefix = ipaddress.ip_network(f"{address}/{mask}", strict=False)
            metric = int(words[6])
        except (IndexError, ValueError):
            continue
        if flags & _RTF_UP and not flags & _RTF_REJECT:
            routes.append(Route(prefix, words[0], gateway if int(gateway) else None, metric))
    return routes


def parse_ipv6_routes(text: str) -> list[Route]:
    """Of /proc/net/ipv6_route; the kernel's own local and multicast entries are left out."""
    routes: list[Route] = []
    for line in text.splitlines():
        words = line.split()
        try:
            flags = int(words[8], 16)
            prefix = ipaddress.IPv6Network((bytes.fromhex(words[0]), int(words[1], 16)))
            gateway = ipaddress.IPv6Address(bytes.fromhex(words[4]))
            metric = int(words[5], 16)
        except (IndexError, ValueError):
            continue
        if flags & _RTF_UP and not flags & (_RTF_REJECT | _RTF_LOCAL) and words[9] != "lo" and not prefix.is_multicast:
            routes.append(Route(prefix, words[9], gateway if int(gateway) else None, metric))
    return routes


def _ipv4(text: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(socket.ntohl(struct.unpack("!I", bytes.fromhex(text))[0]).to_bytes(4, "big"))


def read_routes() -> list[Route]:
    """The routes of this network namespace; none where /proc does not tell (macOS)."""
    routes: list[Route] = []
    for path, parse in (("/proc/net/route", parse_ipv4_routes), ("/proc/net/ipv6_route", parse_ipv6_routes)):
        try:
            routes += parse(Path(path).read_bytes().decode(errors="surrogateescape"))  # names of interfaces are octets
        except OSError:
            continue
    return routes
