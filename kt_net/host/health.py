"""Whether this machine is fit for a connection, and what an earlier one left: judged from a described machine. Pure.

Not here: looking (machine.py).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Set
from typing import Final

from kt_net.addr import IPPrefix
from kt_net.errors import RouteConflict, TunUnavailable
from kt_net.findings import Finding, ok, problem, skipped, warning
from kt_net.host.layout import judge_resolver
from kt_net.host.machine import TUN, Machine
from kt_net.host.plan import refuse_overlap
from kt_net.host.routes import Route

#: IPv6 asks for it of every link (RFC 8200 section 5); below it large answers of the API server's TLS get lost on the way.
LEAST_MTU: Final = 1280


def judge_machine(machine: Machine) -> list[Finding]:
    """Everything that this machine alone tells."""
    return [
        _tun(machine),
        _iproute(machine),
        _root(machine),
        judge_resolver(machine.resolver, connected=bool(machine.devices)),
        _leftovers(machine),
        _mtu(machine),
    ]


def judge_routes(
    prefixes: Iterable[IPPrefix], own: Set[str], routes: Iterable[Route], owners: Mapping[str, str]
) -> list[Finding]:
    """Ranges of the cluster against the routes that are there already.

    Args:
        own: devices of connections to this cluster.
        owners: names of this user's connections, by their devices.
    """
    known, found = list(routes), []
    wanted = list(prefixes)
    for prefix in wanted:
        try:
            refuse_overlap(prefix, own, known, owners)
        except RouteConflict as error:
            found.append(problem("routes", error.what, error.next_step))
    words = ", ".join(map(str, wanted))
    return found or [ok("routes", f"none of this machine's overlaps the cluster's ranges ({words})")]


def _tun(machine: Machine) -> Finding:
    next_step = TunUnavailable.default_next_step
    if machine.may_administer is False:
        return problem("tun", "root has no CAP_NET_ADMIN here, so no TUN device can be made", next_step)
    if machine.tun_error == 0:
        return ok("tun", f"{TUN} is there")
    if machine.tun_error in (errno.EACCES, errno.EPERM) and not machine.root:
        return ok("tun", f"{TUN} is there, and root's")
    return problem("tun", f"{TUN}: {os.strerror(machine.tun_error)}", next_step)


def _iproute(machine: Machine) -> Finding:
    if machine.ip:
        return ok("iproute2", "the program `ip` is there")
    return problem("iproute2", "the program `ip` is not installed", "install it: apt install iproute2 (dnf: iproute)")


def _root(machine: Machine) -> Finding:
    if machine.root:
        return ok("root", "this is root")
    if not machine.sudo:
        return problem("root", "neither root nor sudo", "run ktctl as root; ktctl forward needs neither")
    if machine.locked:
        return problem(
            "root",
            "sudo is there and cannot work: no program gets more rights than its caller here (no_new_privs)",
            "run ktctl outside of this container or sandbox, or allow privilege escalation; ktctl forward needs no root",
        )
    return ok("root", "by sudo, for the host helper only")


def _leftovers(machine: Machine) -> Finding:
    check, undo = "leftovers", "run: sudo ktctl disconnect"
    if machine.journals is None:
        return skipped(check, "undo journals are root's alone", "run: sudo ktctl doctor")
    broken = [journal for journal in machine.journals if journal.trouble]
    dead = [journal for journal in machine.journals if not journal.alive and not journal.trouble]
    if dead:
        words = "; ".join(f"{', '.join(journal.undo)} by process {journal.pid}" for journal in dead)
        return problem(check, f"left by a ktctl that died: {words}", undo)
    if broken:
        words = "; ".join(f"{journal.path}: {journal.trouble}" for journal in broken)
        return warning(check, f"an undo journal that cannot be read ({words})", "look at it, and remove it")
    return ok(check, "nothing is left of an earlier connection")


def _mtu(machine: Machine) -> Finding:
    if not machine.mtus:
        return skipped("mtu", "there is no default route")
    words = ", ".join(f"{name} {mtu}" for name, mtu in machine.mtus)
    if all(mtu >= LEAST_MTU for _, mtu in machine.mtus):
        return ok("mtu", words)
    small = next(name for name, mtu in machine.mtus if mtu < LEAST_MTU)
    return warning(
        "mtu",
        f"{words}: less than {LEAST_MTU}, which IPv6 cannot use and large answers may not fit",
        f"raise it: ip link set {small} mtu {LEAST_MTU} (a VPN's: in its settings)",
    )
