"""What the agent tells about its pod in its hello.

Not here: the hello's form (kt_net.tunnel.hello).
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import socket
from typing import Any

from kt_net.addr import IPAddress
from kt_net.tunnel.hello import LISTEN

VERSION = "0.1.0.dev0"
MAX_RESOLV_CONF = 16 * 1024


def resolv_conf(path: str = "/etc/resolv.conf") -> str:
    """The pod's resolv.conf, or "" when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_RESOLV_CONF)
    except OSError:
        return ""


def nameservers(text: str) -> list[IPAddress]:
    """The name servers of a resolv.conf; lines that name none are passed over."""
    found: list[IPAddress] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                found.append(ipaddress.ip_address(words[1].partition("%")[0]))
    return found


def own_addresses() -> list[IPAddress]:
    """The pod's addresses, as its kernel lists them (proc_net(5)); loopback and link-local ones left out."""
    found: list[IPAddress] = []
    for address in (*_local_ipv4(_read("/proc/net/fib_trie")), *_local_ipv6(_read("/proc/net/if_inet6"))):
        if address not in found and not address.is_loopback and not address.is_link_local:
            found.append(address)
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _local_ipv4(trie: str) -> list[IPAddress]:
    """Leaves of the routing trie that are host addresses of this machine: the address stands on the line before."""
    found: list[IPAddress] = []
    for leaf, kind in itertools.pairwise(trie.splitlines()):
        if "/32 host LOCAL" in kind and "|-- " in leaf:
            with contextlib.suppress(ValueError):
                found.append(ipaddress.ip_address(leaf.rpartition("|-- ")[2].strip()))
    return found


def _local_ipv6(table: str) -> list[IPAddress]:
    found: list[IPAddress] = []
    for line in table.splitlines():
        with contextlib.suppress(ValueError, IndexError):
            found.append(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))
    return found


def ping_allowed(family: socket.AddressFamily) -> bool:
    """Whether this process may open ping sockets (sysctl net.ipv4.ping_group_range, for both families)."""
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    try:
        socket.socket(family, socket.SOCK_DGRAM, protocol).close()
    except OSError:
        return False
    return True


def report() -> dict[str, Any]:
    """The hello's report."""
    own = own_addresses()
    return {
        "agent": VERSION,
        "resolv_conf": resolv_conf(),
        "families": sorted({f"ipv{address.version}" for address in own}),
        "ping": {"ipv4": ping_allowed(socket.AF_INET), "ipv6": ping_allowed(socket.AF_INET6)},
        LISTEN: ["tcp", "udp"],
        "pod_ips": [str(address) for address in own],
    }
