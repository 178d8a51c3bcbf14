"""The lab's network namespaces and what joins them.

node -- laptop: the laptop reaches the API server and nothing else; laptop -- world and node -- world: the way to everything outside;
machine -- node: for kubectl from here. Nothing outside these namespaces is changed but one interface on this machine.

Not here: processes.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab.commands import attempt, run
from tests.lab.instance import Instance

API_PORT = 6443
#: Where `ip netns` keeps names.
NAMESPACES = Path("/run/netns")


def up(instance: Instance) -> None:
    """Make everything; what is there from an unfinished run is removed first."""
    down(instance)
    n = instance.number
    for name in (instance.node, instance.laptop, instance.world):
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        _sysctl(name, "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
    _link(instance, 0, (None, f"ktlab{n}"), (instance.node, "machine"))
    _link(instance, 1, (instance.laptop, "node"), (instance.node, "laptop"))
    _link(instance, 2, (instance.world, "laptop"), (instance.laptop, "world"))
    _link(instance, 3, (instance.world, "node"), (instance.node, "world"))
    _sysctl(instance.node, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    _default(instance.laptop, instance.link4(2, 1), instance.link6(2, 1))
    _default(instance.node, instance.link4(3, 1), instance.link6(3, 1))
    for prefix, gateway in (
        (f"{instance.link4(0, 0)}/24", instance.link4(1, 2)),
        (f"{instance.link6(0, 0)}/64", instance.link6(1, 2)),
    ):
        run("ip", "-n", instance.laptop, "route", "add", prefix, "via", gateway)
    # The way back from the node's own address to the laptop is its link; the laptop may speak to the API server only.
    rules = f"""table inet ktlab {{
  chain input {{
    type filter hook input priority -300; policy accept;
    iifname "laptop" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname "laptop" tcp dport {API_PORT} accept
    iifname "laptop" drop
  }}
  chain forward {{
    type filter hook forward priority -300; policy accept;
    iifname "laptop" drop
  }}
}}
"""
    run("ip", "netns", "exec", instance.node, "nft", "-f", "-", given=rules)


def down(instance: Instance) -> None:
    """Remove everything; interfaces go with their namespaces."""
    for name in (instance.node, instance.laptop, instance.world):
        attempt("ip", "netns", "del", name)
    attempt("ip", "link", "del", f"ktlab{instance.number}")
    if NAMESPACES.is_dir() and not any(NAMESPACES.iterdir()):
        attempt(
            "umount", str(NAMESPACES)
        )  # `ip netns add` has mounted it on itself; it does so again when somebody needs it


def left(instance: Instance) -> list[str]:
    """What of it is there."""
    found = [
        f"namespace {name}"
        for name in (instance.node, instance.laptop, instance.world)
        if Path(NAMESPACES, name).exists()
    ]
    if Path(f"/sys/class/net/ktlab{instance.number}").exists():
        found.append(f"interface ktlab{instance.number}")
    return found


def _link(instance: Instance, link: int, first: tuple[str | None, str], second: tuple[str, str]) -> None:
    """A veth pair with addresses .1 and .2 of the link."""
    temporary = f"ktl{instance.number}x{link}"
    run("ip", "link", "add", temporary, "type", "veth", "peer", "name", second[1], "netns", second[0])
    if first[0] is None:
        run("ip", "link", "set", temporary, "name", first[1])
    else:
        run("ip", "link", "set", temporary, "netns", first[0], "name", first[1])
    for end, (namespace, interface) in enumerate((first, second), start=1):
        where = ["-n", namespace] if namespace else []
        run("ip", *where, "addr", "add", f"{instance.link4(link, end)}/24", "dev", interface)
        run("ip", *where, "-6", "addr", "add", f"{instance.link6(link, end)}/64", "dev", interface, "nodad")
        run("ip", *where, "link", "set", interface, "up")


def _default(namespace: str, v4: str, v6: str) -> None:
    run("ip", "-n", namespace, "route", "add", "default", "via", v4)
    run("ip", "-n", namespace, "-6", "route", "add", "default", "via", v6)


def _sysctl(namespace: str, *settings: str) -> None:
    run("ip", "netns", "exec", namespace, "sysctl", "-qw", *settings)
