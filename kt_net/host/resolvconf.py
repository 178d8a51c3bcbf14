"""resolv.conf(5) as a value, and our form of it. Pure.

Not here: writing the file (helper.py).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from kt_net.host.helper import RESOLVER_MARK


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What a resolv.conf says. `nameservers` are addresses in text (with a zone where there is one)."""

    nameservers: tuple[str, ...]
    search: tuple[str, ...]
    options: tuple[str, ...]


def parse_resolv_conf(text: str) -> ResolvConf:
    """What libc would take from it: the last `search` or `domain` line counts; lines that make no sense are passed over."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        keyword, values = words[0], words[1:]
        if keyword == "nameserver" and _is_address(values[0]):
            nameservers.append(values[0])
        elif keyword == "search":
            search = tuple(values)
        elif keyword == "domain":
            search = (values[0],)
        elif keyword == "options":
            options += values
    return ResolvConf(tuple(nameservers), search, tuple(options))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def rewrite(text: str, *, nameserver: str, search_first: tuple[str, ...]) -> str:
    """A resolv.conf with `nameserver` alone, `search_first` before the machine's own search list, and its options kept."""
    old = parse_resolv_conf(text)
    search = list(search_first) + [domain for domain in old.search if domain not in search_first]
    lines = [RESOLVER_MARK, f"nameserver {nameserver}", f"search {' '.join(filter(str.isascii, search))}"]
    if old.options:
        lines.append(f"options {' '.join(filter(str.isascii, old.options))}")
    return "\n".join(lines) + "\n"
