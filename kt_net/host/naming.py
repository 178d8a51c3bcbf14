"""How programs of this machine come to ask our resolver: one decision over a described environment, and its ways as values. Pure.

| what there is                                            | what is done                                                    |
|----------------------------------------------------------|-----------------------------------------------------------------|
| resolv.conf names systemd-resolved, and it can be told    | a link's servers and domains; nothing outside comes to us       |
| any other resolv.conf: a file, a bind mount, a symlink    | edited in place; our resolver passes on what is not the cluster's|
| none at all                                               | one is made                                                     |
| macOS                                                     | a file for each domain in /etc/resolver (resolver(5))           |
| hosts mode, asked for                                     | a block of lines in the hosts file; resolvers are left alone    |

Not here: looking (environment.py), doing (helper.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from kt_net.errors import HostRefused
from kt_net.host import helper
from kt_net.host.helper import HOSTS_FILE, RESOLVER_FILE
from kt_net.host.resolvconf import ResolvConf, parse_resolv_conf, rewrite

#: Where systemd-resolved listens for programs that read resolv.conf (systemd-resolved.service(8)).
STUBS: Final = ("127.0.0.53", "127.0.0.54")
#: systemd-resolved takes 1024 domains a link (256 before version 243); more namespaces than this are found by the search list alone.
MOST_DOMAINS: Final = 200


class Hook(Enum):
    """By what names come to us."""

    FILE = "resolv.conf"
    RESOLVED = "systemd-resolved"
    MACOS = "/etc/resolver"
    HOSTS = "hosts file"


@dataclass(frozen=True, slots=True)
class Environment:
    """What a machine's names look like.

    Attributes:
        system: as `sys.platform` has it.
        resolv_conf: what it says; None when there is none.
        link: where it leads when it is a symlink; else "".
        mounted: whether it is a mount of its own, as in a container; such a file can be edited but not replaced.
        read_only: whether it cannot be written.
        resolved: whether systemd-resolved runs and its command is there.
        uplinks: what systemd-resolved says of the servers that it asks itself, as a resolv.conf.
    """

    system: str
    resolv_conf: str | None
    link: str = ""
    mounted: bool = False
    read_only: bool = False
    resolved: bool = False
    uplinks: str = ""


@dataclass(frozen=True, slots=True)
class Naming:
    """What was decided.

    Attributes:
        own: the resolvers that answer for this machine without us, and its search list.
        text: of the resolver file, where it is edited; "" when there is none.
        seen: how the helper tells that this is still the text; "" when there is none.
    """

    hook: Hook
    own: ResolvConf
    text: str = ""
    seen: str = ""


def decide(environment: Environment, *, hosts: bool = False, ours: tuple[str, ...] = ()) -> Naming:
    """The way of names for this machine.

    Args:
        hosts: that the user wants the hosts file.
        ours: addresses that a resolver of ours may have: never one to pass questions on to.

    Raises:
        HostRefused: there is no way; says what to do instead.
    """
    text = environment.resolv_conf or ""
    own = _without(parse_resolv_conf(text), ours)
    if hosts:
        return Naming(Hook.HOSTS, own)
    if environment.system == "darwin":
        return Naming(Hook.MACOS, own)
    if environment.resolved and own.nameservers and all(server in STUBS for server in own.nameservers):
        uplinks = _without(parse_resolv_conf(environment.uplinks), (*ours, *STUBS))
        return Naming(Hook.RESOLVED, ResolvConf(uplinks.nameservers, own.search, own.options))
    if environment.read_only:
        raise HostRefused(
            f"{RESOLVER_FILE} cannot be written{' (a mount)' if environment.mounted else ''}",
            next_step="take --dns-mode hosts, or make it writable",
        )
    if environment.resolv_conf is None and environment.link:
        raise HostRefused(
            f"{RESOLVER_FILE} leads to {environment.link}, which is not there",
            next_step="start what makes it, or take --dns-mode hosts",
        )
    if environment.resolv_conf is None:
        return Naming(Hook.FILE, ResolvConf(("127.0.0.1",), (), ()))  # what libc takes then (resolv.conf(5))
    return Naming(Hook.FILE, own, text, digest(text))


def _without(conf: ResolvConf, servers: tuple[str, ...]) -> ResolvConf:
    return ResolvConf(tuple(one for one in conf.nameservers if one not in servers), conf.search, conf.options)


def digest(text: str) -> str:
    """By which the helper knows a text again."""
    return helper.digest(text.encode(errors="surrogateescape"))


# -- the ways ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResolverFile:
    """resolv.conf with `content`; `seen` is the digest of what it replaces."""

    content: str
    seen: str

    def request(self) -> dict[str, Any]:
        """As the helper takes it."""
        return {"kind": "file", "path": RESOLVER_FILE, "content": self.content, "seen": self.seen}


@dataclass(frozen=True, slots=True)
class ResolverDomains:
    """By domain: names below `domains` go to `server`; `search` is searched, too. `everything`: all names go there.

    `kind` is "link" for systemd-resolved, "folder" for macOS' /etc/resolver.
    """

    kind: str
    server: str
    search: tuple[str, ...]
    domains: tuple[str, ...]
    everything: bool

    def request(self) -> dict[str, Any]:
        """As the helper takes it."""
        return {
            "kind": self.kind,
            "server": self.server,
            "search": list(self.search),
            "domains": list(self.domains),
            "everything": self.everything,
        }


@dataclass(frozen=True, slots=True)
class HostsBlock:
    """Lines of the hosts file: an address and its names."""

    lines: tuple[tuple[str, ...], ...]

    def request(self) -> dict[str, Any]:
        """As the helper takes it."""
        return {"kind": "hosts", "path": HOSTS_FILE, "lines": [list(line) for line in self.lines]}


Way: TypeAlias = ResolverFile | ResolverDomains | HostsBlock


def way_of(
    naming: Naming,
    *,
    server: str,
    search: tuple[str, ...],
    domains: tuple[str, ...],
    everything: bool,
    hosts: Mapping[str, tuple[str, ...]],
) -> Way:
    """What the helper is to do.

    Args:
        server: our resolver's address.
        search: domains of the cluster to search before the machine's own.
        domains: below which names may be the cluster's.
        everything: whether all names go to the cluster.
        hosts: names and their addresses, for the hosts file.

    Raises:
        HostRefused: this way cannot do that.
    """
    if naming.hook is Hook.FILE:
        return ResolverFile(rewrite(naming.text, nameserver=server, search_first=search), naming.seen)
    if naming.hook is Hook.MACOS and everything:
        raise HostRefused("macOS cannot ask the cluster for every name", next_step="leave --dns-mode podDNS out")
    if naming.hook in (Hook.RESOLVED, Hook.MACOS):
        kind = "link" if naming.hook is Hook.RESOLVED else "folder"
        more = tuple(domain for domain in domains if domain not in search)
        return ResolverDomains(kind, server, search, more[:MOST_DOMAINS], everything)
    return hosts_block(hosts)


def hosts_block(hosts: Mapping[str, tuple[str, ...]]) -> HostsBlock:
    """A line for each address, with all its names, in an order that does not change by itself."""
    names: dict[str, list[str]] = {}
    for name in sorted(hosts):
        for address in hosts[name]:
            names.setdefault(address, []).append(name)
    return HostsBlock(tuple((address, *names[address]) for address in sorted(names)))
