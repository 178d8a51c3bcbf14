"""How names come to us, for the layouts that machines have."""

from __future__ import annotations

import pytest

from kt_net.errors import HostRefused
from kt_net.host.helper import Fault, check_resolver, folder_files, is_anothers, without_block, without_ours
from kt_net.host.naming import Environment, Hook, Naming, decide, digest, hosts_block, way_of
from kt_net.host.resolvconf import ResolvConf, rewrite

OURS = ("198.19.255.253",)
STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.test\n"
UPLINKS = "nameserver 192.168.0.1\nnameserver 198.19.255.253\nsearch corp.test\n"
RUN = "/run/systemd/resolve"
FILE = "nameserver 192.168.0.1\nsearch corp.test\n"

#: layout -> what is found there, and what is done
LAYOUTS: dict[str, tuple[Environment, Hook, tuple[str, ...]]] = {
    "Debian 12, ifupdown or NetworkManager": (Environment("linux", FILE), Hook.FILE, ("192.168.0.1",)),
    "Debian, resolvconf": (
        Environment("linux", FILE, link="/run/resolvconf/resolv.conf"),
        Hook.FILE,
        ("192.168.0.1",),
    ),
    "Ubuntu 24.04, Fedora 41": (
        Environment("linux", STUB, link=f"{RUN}/stub-resolv.conf", resolved=True, uplinks=UPLINKS),
        Hook.RESOLVED,
        ("192.168.0.1",),
    ),
    "Fedora, resolv.conf is a copy of the stub": (
        Environment("linux", STUB, resolved=True, uplinks=UPLINKS),
        Hook.RESOLVED,
        ("192.168.0.1",),
    ),
    "Arch, systemd-resolved only for nss-resolve": (
        Environment("linux", FILE, resolved=True, uplinks=UPLINKS),
        Hook.FILE,
        ("192.168.0.1",),
    ),
    "systemd-resolved without stub": (
        Environment("linux", UPLINKS, link=f"{RUN}/resolv.conf", resolved=True, uplinks=UPLINKS),
        Hook.FILE,
        ("192.168.0.1",),
    ),
    "systemd-resolved, no network yet": (
        Environment("linux", STUB, link=f"{RUN}/stub-resolv.conf", resolved=True, uplinks="# no servers\n"),
        Hook.RESOLVED,
        (),
    ),
    "Alpine": (
        Environment("linux", "nameserver 192.168.0.1\nnameserver 192.168.0.2\n"),
        Hook.FILE,
        ("192.168.0.1", "192.168.0.2"),
    ),
    "WSL2": (
        Environment("linux", "nameserver 10.255.255.254\n", link="/mnt/wsl/resolv.conf"),
        Hook.FILE,
        ("10.255.255.254",),
    ),
    "WSL2 with systemd-resolved": (
        Environment(
            "linux", STUB, link=f"{RUN}/stub-resolv.conf", resolved=True, uplinks="nameserver 10.255.255.254\n"
        ),
        Hook.RESOLVED,
        ("10.255.255.254",),
    ),
    "container": (Environment("linux", FILE, mounted=True), Hook.FILE, ("192.168.0.1",)),
    "container in the network of a host with systemd-resolved": (
        Environment("linux", STUB, mounted=True),
        Hook.FILE,
        ("127.0.0.53",),
    ),
    "container without any": (Environment("linux", None), Hook.FILE, ("127.0.0.1",)),
    "macOS": (Environment("darwin", FILE, link="/private/var/run/resolv.conf"), Hook.MACOS, ("192.168.0.1",)),
    "one of ours that nobody took back": (
        Environment("linux", "nameserver 198.19.255.253\nnameserver 192.168.0.1\n"),
        Hook.FILE,
        ("192.168.0.1",),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str) -> None:
    environment, hook, servers = LAYOUTS[name]
    naming = decide(environment, ours=OURS)
    assert (naming.hook, naming.own.nameservers) == (hook, servers)
    in_hosts = decide(environment, hosts=True, ours=OURS)
    assert in_hosts.hook is Hook.HOSTS


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (Environment("linux", FILE, mounted=True, read_only=True), "cannot be written (a mount)"),
        (Environment("linux", FILE, read_only=True), "cannot be written"),
        (Environment("linux", None, link=f"{RUN}/stub-resolv.conf"), f"leads to {RUN}/stub-resolv.conf, which is not"),
    ],
)
def test_no_way_but_the_hosts_file(environment: Environment, words: str) -> None:
    with pytest.raises(HostRefused) as error:
        decide(environment)
    assert words in error.value.what
    assert "--dns-mode hosts" in error.value.next_step
    assert decide(environment, hosts=True).hook is Hook.HOSTS


def way(hook: Hook, *, everything: bool = False) -> object:
    naming = Naming(hook, ResolvConf(("192.168.0.1",), (), ()), FILE, digest(FILE))
    made = way_of(
        naming,
        server="198.19.255.253",
        search=("default.svc.cluster.local", "svc.cluster.local"),
        domains=("cluster.local", "svc.cluster.local", *(f"ns-{number}" for number in range(300))),
        everything=everything,
        hosts={"web": ("10.96.0.7", "fd00::7"), "web.default": ("10.96.0.7",), "a": ("10.96.0.1",)},
    ).request()
    check_resolver(made)
    return made


def test_ways() -> None:
    assert way(Hook.FILE) == {
        "kind": "file",
        "path": "/etc/resolv.conf",
        "content": rewrite(
            FILE, nameserver="198.19.255.253", search_first=("default.svc.cluster.local", "svc.cluster.local")
        ),
        "seen": digest(FILE),
    }
    resolved, macos = way(Hook.RESOLVED), way(Hook.MACOS)
    assert isinstance(resolved, dict)
    assert isinstance(macos, dict)
    assert (resolved["kind"], macos["kind"]) == ("link", "folder")
    assert len(resolved["domains"]) == 200
    assert resolved["domains"][:2] == ["cluster.local", "ns-0"], "what is searched is not routed once more"
    assert way(Hook.HOSTS) == {
        "kind": "hosts",
        "path": "/etc/hosts",
        "lines": [["10.96.0.1", "a"], ["10.96.0.7", "web", "web.default"], ["fd00::7", "web"]],
    }
    with pytest.raises(HostRefused, match="every name"):
        way(Hook.MACOS, everything=True)


def test_hosts_keep_their_order() -> None:
    hosts = {"b": ("10.0.0.1",), "a": ("10.0.0.1",)}
    assert hosts_block(hosts) == hosts_block(dict(reversed(hosts.items())))


LINK = {"kind": "link", "server": "198.19.255.253", "search": ["a.b"], "domains": ["c"], "everything": False}
HOSTS = {"kind": "hosts", "path": "/etc/hosts", "lines": [["10.0.0.1", "web"]]}
RESOLV = {"kind": "file", "path": "/etc/resolv.conf", "content": "x", "seen": ""}


@pytest.mark.parametrize(
    "resolver",
    [
        {},
        [],
        {"kind": ["link"]},
        {**LINK, "kind": "socket"},
        {**LINK, "server": "-h"},
        {**LINK, "server": "10.0.0.0/8"},
        {**LINK, "server": 7},
        {**LINK, "domains": ["--help"]},
        {**LINK, "domains": ["~."]},
        {**LINK, "domains": ["../../etc/passwd"]},
        {**LINK, "domains": ["a/b"]},
        {**LINK, "domains": ["UPPER"]},
        {**LINK, "domains": ["a..b"]},
        {**LINK, "domains": ["x" * 64]},
        {**LINK, "domains": ["a."] * 2},
        {**LINK, "domains": ["a"] * 1000},
        {**LINK, "search": "abc"},
        {**LINK, "everything": 1},
        {**LINK, "more": 1},
        {**HOSTS, "path": "/etc/passwd"},
        {**HOSTS, "lines": [["10.0.0.1"]]},
        {**HOSTS, "lines": [["10.0.0.1", "web\n1.2.3.4 bank.example"]]},
        {**HOSTS, "lines": [["10.0.0.1/32", "web"]]},
        {**HOSTS, "lines": [["fe80::1%eth0 x\n", "web"]]},
        {**HOSTS, "lines": [["10.0.0.1", 7]]},
        {**HOSTS, "lines": [["10.0.0.1", "a"]] * 20001},
        {**RESOLV, "path": "/etc/passwd"},
        {**RESOLV, "content": "x" * 100_000},
        {**RESOLV, "content": "\ud800"},
        {**RESOLV, "seen": None},
    ],
)
def test_the_helper_takes_no_other_ways(resolver: object) -> None:
    with pytest.raises(Fault):
        check_resolver(resolver)


def test_files_of_macos() -> None:
    files = folder_files("kt3", LINK)
    assert set(files) == {"a.b", "c", "ktctl.kt3.search"}
    assert files["c"].endswith("nameserver 198.19.255.253\n")
    assert files["ktctl.kt3.search"].endswith("search a.b\n")


BEFORE = b"nameserver 192.168.0.1\nsearch corp.test\noptions edns0\n"
AFTER = b"# ours\nnameserver 198.19.255.253\nsearch default.svc corp.test\noptions edns0\n"


@pytest.mark.parametrize(
    ("current", "kept"),
    [
        (b"nameserver 192.168.9.9\n", b"nameserver 192.168.9.9\n"),
        (b"nameserver 192.168.9.9\noptions edns0\n", b"nameserver 192.168.9.9\noptions edns0\n"),
        (AFTER + b"options timeout:1\n", BEFORE + b"options timeout:1\n"),
        (AFTER.replace(b"# ours\n", b""), BEFORE),
        (b"nameserver 9.9.9.9\n" + AFTER, BEFORE + b"nameserver 9.9.9.9\n"),
        (b"", b""),
    ],
)
def test_what_somebody_else_made_of_our_file(current: bytes, kept: bytes) -> None:
    """A file of their own is left alone; a line added to ours stays, and ours go."""
    assert without_ours(current, BEFORE, AFTER) == kept


def block(interface: bytes, *, joined: bytes = b"") -> bytes:
    return b"# ktctl: names by %s begin%s\n10.0.0.1 web\n# ktctl: names by %s end\n" % (interface, joined, interface)


PLAIN, LINES, JOINED = b"127.0.0.1 localhost\n", block(b"kt0"), block(b"kt0", joined=b", joined")


@pytest.mark.parametrize(
    ("text", "without"),
    [
        (PLAIN + LINES, PLAIN),
        (PLAIN + JOINED, PLAIN[:-1]),
        (PLAIN + LINES + b"1.2.3.4 mine\n", PLAIN + b"1.2.3.4 mine\n"),
        (PLAIN + JOINED + b"1.2.3.4 mine\n", PLAIN + b"1.2.3.4 mine\n"),
        (PLAIN, PLAIN),
        (LINES[:-10], LINES[:-10]),
        (b"", b""),
        # Another connection's lines stay, and know from then on of the line end that the first one had to put.
        (PLAIN + LINES + block(b"kt1"), PLAIN + block(b"kt1")),
        (PLAIN + block(b"kt1") + LINES, PLAIN + block(b"kt1")),
        (PLAIN + JOINED + block(b"kt1"), PLAIN + block(b"kt1", joined=b", joined")),
        (PLAIN + block(b"kt1"), PLAIN + block(b"kt1")),
    ],
)
def test_a_hosts_file_without_our_lines(text: bytes, without: bytes) -> None:
    assert without_block(text, "kt0") == without


SECOND = rewrite("search corp.test\n", nameserver="198.19.255.252", search_first=("svc",)).encode()
FIRST = SECOND.replace(b".252", b".253")


@pytest.mark.parametrize(
    ("current", "whose"),
    [
        (SECOND, True),
        (SECOND + b"options timeout:1\n", True),
        (FIRST, False),
        (FIRST + SECOND, False),
        (FIRST[:-4], False),
        (b"nameserver 198.19.255.252\n", False),
        (SECOND.partition(b"\n")[0] + b"\n", False),
        (b"", False),
    ],
)
def test_another_connections_file(current: bytes, whose: bool) -> None:
    assert is_anothers(current, FIRST) == whose
