"""The host helper: the one part that runs as root. Standard library only, one file, `python3 -I helper.py`.

It creates a TUN device, sets routes and the resolver file from a plan, and undoes all that when its standard input ends, however the
client died. Before each step the undo is in a journal on disk. When the helper dies as well, its guard, a second process that does nothing
else, undoes what the journal says; when all three die, the next start does, or `--replay`.

A client that lives and does not answer (stopped, swapped out) would leave this machine without names. So it beats once a second; after
three seconds of silence the machine has its own resolver file back, until the client beats again.

Names come to our resolver in one of four ways, as the plan says: the resolver file edited in place, systemd-resolved told by link and
domain, a file for each domain in /etc/resolver (macOS), or a block of lines in the hosts file. `resolver` puts another one of the same
kind in its place while the plan is in force.

Several connections may be there at once, each with a helper and a device of its own. The resolver file is one of them's: it has the other
ones' names asked for (kt_net.session.name_keeper), and when it ends another one may take the file. `before` tells what was in it before
the one whose text is in it now.

Protocol: standard input is one end of a Unix stream socket. Both sides send JSON objects, one a line, and the kernel says with each
piece who sent it (SCM_CREDENTIALS): here root and the user for whom this was started are heard, there root alone. The answer to a plan
carries the TUN's descriptor (SCM_RIGHTS). Requests: {"do": "hello"|"replay"|"before"|"apply"|"resolver"|"route"|"undo"}; answers: {"ok":
true, ...} or {"ok": false, "kind": ..., "error": ...}. {"do": "beat"} is not answered.

Not here: deciding what is routed or which names go where (kt_net.host.plan); it refuses what is outside its own grammar.
"""

from __future__ import annotations

import argparse
import array
import base64
import contextlib
import errno
import fcntl
import hashlib
import ipaddress
import itertools
import json
import os
import pwd
import re
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

PROTOCOL = 1
#: Where the journal is unless root says otherwise.
DEFAULT_STATE = "/var/lib/ktctl"

#: After so many seconds without a beat the machine's own resolver file comes back. libc gives up on a name server after 5.
SILENCE_SECONDS = 3.0

MAX_REQUEST = 4 * 1024 * 1024
MAX_ROUTES = 1024
MAX_FILE = 64 * 1024
MAX_HOSTS_FILE = 4 * 1024 * 1024
MAX_DOMAINS = 256
MAX_HOSTS_LINES = 20000
INTERFACE = re.compile(r"kt[0-9]{1,3}\Z")
RESOLVER_FILE = "/etc/resolv.conf"
RESOLVER_FOLDER = "/etc/resolver"
HOSTS_FILE = "/etc/hosts"
#: The first line of a resolver file that we wrote.
RESOLVER_MARK = "# written by ktctl; what was here before comes back when it ends"
#: In the resolver folder: the file with a connection's search list, and what every file of that connection begins with.
SEARCH_FILE = "ktctl.{}.search"
FOLDER_MARK = "# written by ktctl for {}, which removes it when it ends\n"
#: A host or domain name in small letters (RFC 1123 section 2.1; the underscore of service names, RFC 2782).
NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
#: Around a connection's lines in the hosts file; the middle one begins where a line end had to be put before them.
BLOCK_BEGINS, BLOCK_JOINED = "# ktctl: names by {} begin\n", "# ktctl: names by {} begin, joined\n"
BLOCK_ENDS = "# ktctl: names by {} end\n"

#: What is never captured, not even as a part of a route; an IPv4 address in IPv6 clothes is none of a cluster's either.
NEVER_ROUTED = tuple(
    map(
        ipaddress.ip_network,
        [
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "::/128",
            "::1/128",
            "::ffff:0:0/96",
            "fe80::/10",
            "ff00::/8",
        ],
    )
)
#: Where the device's own addresses come from (kt_net.host.plan): an address of somebody else's would take that one's packets.
OWN_RANGES = tuple(ipaddress.ip_network(text) for text in ("198.18.0.0/15", "fd6b:746e:6574::/64"))
MAX_ADDRESSES = 8
#: Of a plan: lists in objects in an object.
MAX_DEPTH = 5
MAX_NUMBER = 2**32

#: Which programs are run is not the caller's to choose, whatever sudo lets through.
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
#: A client that does not read its answers for so long is none.
SEND_SECONDS = 10

# linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4


class Fault(Exception):
    """Something to be told to the client: a kind that it maps to an error class, and words."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


# -- the grammar ---------------------------------------------------------------------------------------------------


def check_plan(plan: Any) -> None:
    """Refuse a plan that asks for more than a connection needs.

    Raises:
        Fault: it does.
    """
    check_values(plan)
    if not isinstance(plan, dict) or set(plan) != {"interface", "routes", "resolver"}:
        raise Fault("plan", "a plan has interface, routes and resolver")
    interface = plan["interface"]
    if not isinstance(interface, dict) or set(interface) != {"name", "mtu", "offload", "addresses"}:
        raise Fault("plan", "an interface has name, mtu, offload and addresses")
    if not isinstance(interface["name"], str) or not INTERFACE.match(interface["name"]):
        raise Fault("plan", f"not an interface of ours: {shown(interface['name'])}")
    if type(interface["mtu"]) is not int or not 1280 <= interface["mtu"] <= 65535:
        raise Fault("plan", f"an MTU of {shown(interface['mtu'])}")
    if not isinstance(interface["offload"], bool) or not isinstance(interface["addresses"], list):
        raise Fault("plan", "offload is a truth value, addresses are a list")
    if len(interface["addresses"]) > MAX_ADDRESSES:
        raise Fault("plan", f"an interface has at most {MAX_ADDRESSES} addresses")
    for address in interface["addresses"]:
        network = _network(address)
        if network.num_addresses != 1:
            raise Fault("plan", f"not a single address: {address}")
        if not any(network.overlaps(own) for own in OWN_RANGES if own.version == network.version):
            raise Fault("plan", f"not an address for a device of ours: {address}")
    if not isinstance(plan["routes"], list) or len(plan["routes"]) > MAX_ROUTES:
        raise Fault("plan", f"routes are a list of at most {MAX_ROUTES}")
    for route in plan["routes"]:
        _check_route(route)
    check_resolver(plan["resolver"])


def _network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        # A scope ("%") may be any text; what is believed here goes to `ip -batch`.
        network = ipaddress.ip_network(text if isinstance(text, str) and "%" not in text else "")
    except ValueError as error:
        raise Fault("plan", f"no prefix: {shown(text)}") from error
    if str(network) != text:
        # Others (masks, short forms) would be read once more by `ip`, perhaps as something else.
        raise Fault("plan", f"{shown(text)} is to be written {network}")
    return network


def check_values(value: Any, depth: int = MAX_DEPTH) -> None:
    """Refuse what no plan is made of, whatever its names are: fractions, huge numbers, text that cannot be written, depth.

    Raises:
        Fault: there is such a value.
    """
    if not depth:
        raise Fault("plan", "a plan is not so deep")
    if isinstance(value, dict):
        for name, part in value.items():
            check_values(name, depth - 1)
            check_values(part, depth - 1)
    elif isinstance(value, list):
        for part in value:
            check_values(part, depth - 1)
    elif isinstance(value, str):
        try:
            zero = b"\0" in value.encode()
        except UnicodeEncodeError:  # half a surrogate pair, as JSON may have it
            zero = True
        if zero:
            raise Fault("plan", "text that cannot be written")
    elif type(value) is int:
        if abs(value) > MAX_NUMBER:
            raise Fault("plan", "a number that is too large")
    elif value is not None and not isinstance(value, bool):
        raise Fault("plan", f"a plan has no {type(value).__name__} in it")


def shown(value: Any) -> str:
    """For an error's words: never long."""
    return repr(value)[:100]


def _check_route(text: Any) -> None:
    network = _network(text)
    shortest = 4 if network.version == 4 else 8
    if network.prefixlen < shortest:
        raise Fault("plan", f"{network} is too much of the internet")
    if any(network.overlaps(never) for never in NEVER_ROUTED if never.version == network.version):
        raise Fault("plan", f"{network} is not to be routed")


def check_resolver(resolver: Any) -> None:
    """Refuse a way of names that is none of ours.

    Raises:
        Fault: it is not.
    """
    check_values(resolver)
    if resolver is None:
        return
    kind = resolver.get("kind") if isinstance(resolver, dict) else None
    check = CHECKS.get(kind) if isinstance(kind, str) else None
    if check is None:
        raise Fault("plan", "a resolver is a file, a link, a folder or hosts")
    check(resolver)


def _check_file(resolver: dict[str, Any]) -> None:
    if set(resolver) != {"kind", "path", "content", "seen"}:
        raise Fault("plan", "a resolver file has path, content and what was seen in it")
    if resolver["path"] != RESOLVER_FILE:
        raise Fault("plan", f"not a resolver file: {shown(resolver['path'])}")
    if not isinstance(resolver["content"], str) or len(resolver["content"]) > MAX_FILE:
        raise Fault("plan", f"a resolver file has at most {MAX_FILE} characters")
    if not isinstance(resolver["seen"], str):
        raise Fault("plan", "what was seen is a digest, or nothing")


def _check_link(resolver: dict[str, Any]) -> None:
    if set(resolver) != {"kind", "server", "search", "domains", "everything"}:
        raise Fault("plan", "a resolver has server, search, domains and everything")
    _check_address(resolver["server"])
    if not isinstance(resolver["everything"], bool):
        raise Fault("plan", "everything is a truth value")
    for key in ("search", "domains"):
        if not isinstance(resolver[key], list) or len(resolver[key]) > MAX_DOMAINS:
            raise Fault("plan", f"{key} are a list of at most {MAX_DOMAINS}")
        for domain in resolver[key]:
            _check_name(domain)


def _check_hosts(resolver: dict[str, Any]) -> None:
    if set(resolver) != {"kind", "path", "lines"}:
        raise Fault("plan", "hosts have path and lines")
    if resolver["path"] != HOSTS_FILE:
        raise Fault("plan", f"not a hosts file: {shown(resolver['path'])}")
    if not isinstance(resolver["lines"], list) or len(resolver["lines"]) > MAX_HOSTS_LINES:
        raise Fault("plan", f"lines are a list of at most {MAX_HOSTS_LINES}")
    for line in resolver["lines"]:
        if not isinstance(line, list) or len(line) < 2:
            raise Fault("plan", "a line is an address and names")
        _check_address(line[0])
        for name in line[1:]:
            _check_name(name)


def _check_address(text: Any) -> None:
    try:
        address = ipaddress.ip_address(text if isinstance(text, str) and "%" not in text else "")
    except ValueError as error:
        raise Fault("plan", f"no address: {shown(text)}") from error
    if str(address) != text:
        raise Fault("plan", f"{shown(text)} is to be written {address}")


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not NAME.match(name):
        raise Fault("plan", f"not a name: {shown(name)}")


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "file": _check_file,
    "link": _check_link,
    "folder": _check_link,
    "hosts": _check_hosts,
}


# -- the journal ---------------------------------------------------------------------------------------------------


class Journal:
    """The undo of what was done, on disk before it is done."""

    def __init__(self, folder: str, name: str) -> None:
        self.path = os.path.join(folder, f"journal-{name}.json")
        self.undo: list[dict[str, Any]] = []

    def add(self, step: dict[str, Any]) -> None:
        """Write down how to undo what comes next."""
        self.undo.append(step)
        self._write()

    def put(self, step: dict[str, Any] | None, kind: str, **undo: Any) -> None:
        """Write down how to undo what comes next, in the place of `step` when it is there already."""
        if step is None:
            self.add({"kind": kind, **undo})
        else:
            step.update(undo)
            self._write()

    def _write(self) -> None:
        write_journal(self.path, self.undo, started=start_time(os.getpid()))

    def end(self) -> list[str]:
        """Undo all; what was done, in words. What cannot be undone now stays on disk, for the next start."""
        done, left = undo_all(self.undo)
        leave(self.path, left)
        return done


def write_journal(path: str, undo: list[dict[str, Any]], *, started: str | None) -> None:
    """Whole or not at all, and on disk. `started`: of this process; None: nobody's any more."""
    record = {"schema": 1, "pid": os.getpid(), "started": started, "undo": undo}
    beside = f"{path}.{os.getpid()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)


def leave(path: str, left: list[dict[str, Any]]) -> None:
    """Nothing is in force of a journal any more; `left` is to be undone when it can be, and holds up nobody who wants the same device."""
    beside = path.removesuffix(".json").removesuffix(".left") + ".left.json"
    if left:
        earlier: list[dict[str, Any]] = []
        if path != beside:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                earlier = read_journal(beside)[1]
        try:
            write_journal(beside, earlier + left, started=None)
        except OSError:
            return  # the disk is full, maybe: the journal as it is says more than none
    if not left or path != beside:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def state_folder(path: str) -> str:
    """The folder, made when it is not there, ours alone.

    Raises:
        Fault: somebody else could write to it.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        seen = os.lstat(path)
    except OSError as error:
        raise Fault("host", f"no state folder {path}: {error.strerror}") from error
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
        raise Fault("host", f"{path} is not a folder that only root can write to")
    return path


def start_time(pid: int) -> str | None:
    """Which boot of this machine, and when in it the process was started; with the pid it names one process for ever. None: there is none.

    A zombie is none: nobody may ever collect it (a container's first process often does not).
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        with open(f"/proc/{pid}/stat", "rb") as stat_file:
            fields = stat_file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else f"{boot} {int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return None


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Nobody else begins a plan or replays meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replay(folder: str) -> list[str]:
    """Undo what dead helpers left; what was done, in words."""
    if not os.path.isdir(folder):
        return []
    with locked(state_folder(folder)):
        return replay_locked(folder)


def replay_locked(folder: str) -> list[str]:
    """`replay`, for who holds the lock."""
    done: list[str] = []
    for path in journals(folder):
        if not path.endswith(".json"):
            os.unlink(path)  # half written by a helper that died: a living one would hold the lock
            continue
        try:
            alive, undo = read_journal(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            done.append(f"{path} cannot be read ({error}); left alone")
            continue
        if not alive:
            words, left = undo_all(undo)
            done += words
            leave(path, left)
    return done


def journals(folder: str) -> list[str]:
    """Paths of them, half written ones among them."""
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.startswith("journal-")]


def read_journal(path: str) -> tuple[bool, list[dict[str, Any]]]:
    """Whether its helper lives, and the steps.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is none of ours.
    """
    with open(path) as file:
        record = json.load(file)
    pid, started, undo = record["pid"], record["started"], record["undo"]
    if record["schema"] != 1 or not isinstance(undo, list):
        raise ValueError("of another version")
    return started is not None and start_time(pid) == started, undo


def before_all(folder: str) -> str | None:
    """What the resolver file was before the connection whose text is in it now, "" when there was none; None: it is no living one's."""
    if not os.path.isdir(folder):
        return None
    with locked(state_folder(folder)):
        try:
            with open(RESOLVER_FILE, "rb") as resolver_file:
                now = digest(resolver_file.read(MAX_FILE + 1))
        except OSError:
            return None
        for path in journals(folder):
            try:
                alive, undo = read_journal(path)
                for step in undo if alive else ():
                    if step["kind"] == "file" and step["ours"] == now:
                        return decoded(step["before"] or "").decode(errors="surrogateescape")
            except (OSError, ValueError, KeyError, TypeError):
                continue  # half written, or of another version
    return None


def undo_all(steps: list[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Undo, last step first; in words, and the steps that failed and may not fail another time. One does not keep the others from it."""
    done: list[str] = []
    left: list[dict[str, Any]] = []
    for step in reversed(steps):
        try:
            done.append(UNDO[step["kind"]](step))
        except (KeyError, ValueError, TypeError, FileNotFoundError) as error:
            done.append(f"{step.get('kind')} could not be undone: {error}")  # it never can
        except (OSError, Fault, subprocess.TimeoutExpired) as error:
            done.append(f"{step.get('kind')} could not be undone: {error}; it is tried again at the next start")
            left.insert(0, step)
    return done, left


def undo_interface(step: dict[str, Any]) -> str:
    """The device goes with its last descriptor; this is for one that somebody else holds open."""
    if INTERFACE.match(step["name"]) and interface_exists(step["name"]):
        subprocess.run(["ip", "link", "del", step["name"]], capture_output=True, check=False, timeout=5)
    return f"interface {step['name']} removed"


def undo_file(step: dict[str, Any]) -> str:
    """The old octets back in the same inode. What somebody else has written since is kept, without our lines."""
    path = step["path"]
    if path != RESOLVER_FILE:
        raise ValueError(f"not a resolver file: {path!r}")
    if not os.path.exists(step["target"]):
        return f"{path} is gone"  # below /run, which does not outlive the machine
    with open(
        step["target"], "rb"
    ) as file:  # to be written only when there is something to be written: it may be read-only by now
        current = file.read(MAX_FILE + 1)
    before = None if step["before"] is None else decoded(step["before"])
    if current == before:
        return f"{path} restored"  # while the client was silent
    if digest(current) == step["ours"] or partly(current, before or b"", decoded(step["after"])):
        if before is None:
            os.unlink(step["target"])
            return f"{path} removed: there was none"
        overwrite(step["target"], before)
        return f"{path} restored"
    if is_anothers(current, decoded(step["after"])):
        return f"{path} is another connection's now; left to it"
    kept = without_ours(current, before or b"", decoded(step["after"]))
    if kept == current:
        return f"{path} was changed by somebody else; left as it is"
    overwrite(step["target"], kept)
    return f"{path} restored, with what somebody else has added"


def is_anothers(current: bytes, after: bytes) -> bool:
    """Whether a resolver file is the whole text of another connection, which took it while this one was silent."""
    mark = RESOLVER_MARK.encode() + b"\n"
    servers = [[line for line in text.splitlines() if line.startswith(b"nameserver ")] for text in (current, after)]
    return current.startswith(mark) and bool(servers[0]) and not set(servers[0]) & set(servers[1])


def without_ours(current: bytes, before: bytes, after: bytes) -> bytes:
    """A resolver file that somebody else has written, without lines of ours: where there are some, it was made from our text."""
    ours = set(after.splitlines()) - set(before.splitlines())
    lines = current.splitlines()
    if not ours & set(lines):
        return current
    added = [line for line in lines if line not in ours and line not in before.splitlines()]
    return before + b"".join(line + b"\n" for line in added)


def redo_file(step: dict[str, Any]) -> None:
    """Ours once more, if the file is still what `undo_file` made of it."""
    if step["before"] is None:
        create(step["target"], decoded(step["after"]))
        return
    with open(step["target"], "r+b") as file:
        if file.read(MAX_FILE + 1) == decoded(step["before"]):
            write_in_place(file, decoded(step["after"]))


def undo_link(step: dict[str, Any]) -> str:
    """systemd-resolved forgets a link's settings when it goes; this is for one that is still there."""
    if INTERFACE.match(step["name"]) and interface_exists(step["name"]):
        try:
            run_resolvectl("revert", step["name"])
        except Fault:
            if interface_exists(step["name"]):
                raise
    return f"systemd-resolved: settings of {step['name']} reverted"


def redo_link(step: dict[str, Any]) -> None:
    """Tell systemd-resolved once more."""
    tell_resolved(step["name"], step["settings"])


def undo_folder(step: dict[str, Any]) -> str:
    """Our files out of /etc/resolver, and the folder when we made it."""
    for name in step["names"]:
        path = os.path.join(RESOLVER_FOLDER, name)
        if NAME.match(name) and is_ours(path, step["interface"]):
            os.unlink(path)
    if step["made"] and os.path.isdir(RESOLVER_FOLDER) and not os.listdir(RESOLVER_FOLDER):
        os.rmdir(RESOLVER_FOLDER)
    return f"{RESOLVER_FOLDER}: our files removed"


def redo_folder(step: dict[str, Any]) -> None:
    """Our files once more."""
    write_folder(folder_files(step["interface"], step["settings"]))


def is_ours(path: str, interface: str) -> bool:
    """Whether a file of the resolver folder is one that this connection wrote, or began to."""
    mark = FOLDER_MARK.format(interface).encode()
    try:
        with open(path, "rb") as file:
            found = file.read(len(mark))
    except FileNotFoundError:
        return False
    return mark.startswith(found)


def undo_hosts(step: dict[str, Any]) -> str:
    """Our block out of the file; what others have written around it stays."""
    path = step["path"]
    if path != HOSTS_FILE:
        raise ValueError(f"not a hosts file: {path!r}")
    with open(path, "rb") as file:
        current, before = file.read(MAX_HOSTS_FILE + 1), decoded(step["before"])
    if current == before:
        return f"{path} restored"
    if digest(current) == step["ours"] or partly(current, before, decoded(step["after"])):
        overwrite(path, before)
        return f"{path} restored"
    without = without_block(current, step["interface"])
    if without == current:
        return f"{path} was changed by somebody else; nothing of ours is in it"
    overwrite(path, without)
    return f"{path}: our lines removed, others' kept"


def without_block(text: bytes, interface: str) -> bytes:
    """A hosts file without a connection's lines, and without the line end that had to be put before them."""
    begins, joins, ends = (form.format(interface).encode() for form in (BLOCK_BEGINS, BLOCK_JOINED, BLOCK_ENDS))
    joined = begins not in text
    before, found, rest = text.partition(joins if joined else begins)
    _, ended, behind = rest.partition(ends)
    if not found or not ended:
        return text
    if not joined:
        return before + behind
    other = re.match(rb"# ktctl: names by kt[0-9]{1,3} begin\n", behind)
    if other:  # of a connection that is still there: the line end is its own from now on
        return before + other[0][:-1] + b", joined\n" + behind[other.end() :]
    return before + behind if behind else before.removesuffix(b"\n")


def decoded(text: str) -> bytes:
    """Octets of a file, from the journal."""
    return base64.b64decode(text)


def encoded(data: bytes) -> str:
    """For the journal."""
    return base64.b64encode(data).decode()


def partly(current: bytes, before: bytes, after: bytes) -> bool:
    """Whether we died in the midst of writing: the file is the beginning of one text, and behind it nothing or what the other has there."""
    if after.startswith(current):
        return True
    for new, old in ((after, before), (before, after)):
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(current, new, strict=False)))
        if current[same:] == old[same:]:
            return True
    return False


def digest(data: bytes) -> str:
    """Of file contents."""
    return hashlib.sha256(data).hexdigest()


def overwrite(path: str, data: bytes) -> None:
    """See `write_in_place`."""
    with open(path, "r+b") as file:
        write_in_place(file, data)


def write_in_place(file: Any, data: bytes) -> None:
    """Keep the inode: the file may be a bind mount, as in a container."""
    file.seek(0)
    file.write(data)
    file.truncate()
    file.flush()
    os.fsync(file.fileno())


UNDO: dict[str, Callable[[dict[str, Any]], str]] = {
    "interface": undo_interface,
    "file": undo_file,
    "link": undo_link,
    "folder": undo_folder,
    "hosts": undo_hosts,
}
#: What a silent client must not hold: this machine's way to names. The lines of a hosts file are about the cluster's alone.
REDO: dict[str, Callable[[dict[str, Any]], None]] = {
    "file": redo_file,
    "link": redo_link,
    "folder": redo_folder,
}


# -- doing ---------------------------------------------------------------------------------------------------------


def apply_plan(plan: dict[str, Any], journal: Journal) -> tuple[int, list[str]]:
    """Do it step by step; the TUN's descriptor, and what had to be left out.

    Raises:
        Fault: a step failed. What was done stands in the journal.
    """
    interface = plan["interface"]
    if interface_exists(interface["name"]):  # before an undo is written that would remove it
        raise Fault("busy", f"the interface {interface['name']} is there already")
    journal.add({"kind": "interface", "name": interface["name"]})
    descriptor = make_tun(interface["name"], interface["offload"])
    try:
        skipped = set_routes(interface, plan["routes"])
        set_resolver(interface["name"], plan["resolver"], journal)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, skipped


def make_tun(name: str, offload: bool) -> int:
    """A TUN device that lives as long as its descriptor.

    Raises:
        Fault: none can be had.
    """
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Fault("tun", f"/dev/net/tun: {error.strerror}") from error
    try:
        flags = IFF_TUN | IFF_NO_PI | (IFF_VNET_HDR if offload else 0)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if offload:
            fcntl.ioctl(descriptor, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    except OSError as error:
        os.close(descriptor)
        raise Fault("tun", f"no TUN device {name}: {error.strerror}") from error
    return descriptor


def interface_exists(name: str) -> bool:
    """Whether this network namespace has it (/sys may belong to another one)."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def set_routes(interface: dict[str, Any], routes: list[str]) -> list[str]:
    """Addresses, MTU and routes, in one run of `ip` a family; routes of a family that is off are left out and named.

    Raises:
        Fault: the kernel refused a step.
    """
    name = interface["name"]
    run_ip(["-batch", "-"], f"link set {name} mtu {interface['mtu']}\nlink set {name} txqueuelen 1000 up\n")
    skipped: list[str] = []
    for version in (4, 6):
        lines = [f"addr add {a} dev {name}" for a in interface["addresses"] if _network(a).version == version]
        lines += [f"route add {r} dev {name}" for r in routes if _network(r).version == version]
        if not lines:
            continue
        if version == 6 and not ipv6_is_on(name):
            skipped += [r for r in routes if _network(r).version == 6]
            continue
        if version == 6:
            lines = [line + " nodad" if line.startswith("addr") else line for line in lines]
        try:
            run_ip([f"-{version}", "-batch", "-"], "\n".join(lines) + "\n")
        except Fault as fault:
            if "File exists" in str(
                fault
            ):  # EEXIST: another connection has chosen the same addresses at the same moment
                raise Fault("changed", f"a route of the plan is there already: {fault}") from fault
            raise
    return skipped


def change_routes(name: str, add: list[str], remove: list[str]) -> str:
    """Make and remove routes to the device, in this order; what went wrong, in the words of `ip`."""
    trouble: list[str] = []
    for version in (4, 6):
        lines = [
            f"route {verb} {r} dev {name}"
            for verb, routes in (("add", add), ("del", remove))
            for r in routes
            if _network(r).version == version
        ]
        if not lines:
            continue
        if version == 6 and not ipv6_is_on(name):
            trouble.append("IPv6 is switched off")
            continue
        try:
            run_ip([f"-{version}", "-force", "-batch", "-"], "\n".join(lines) + "\n")
        except Fault as fault:
            trouble.append(str(fault))
    return "; ".join(trouble)


def ipv6_is_on(name: str) -> bool:
    """Whether the interface may have IPv6 addresses and routes."""
    try:
        with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6") as file:
            return file.read().strip() == "0"
    except OSError:
        return False


def run_ip(arguments: list[str], lines: str) -> None:
    """iproute2.

    Raises:
        Fault: it is not there, or it failed.
    """
    run(["ip", *arguments], package="iproute2", lines=lines)


def run_resolvectl(*arguments: str) -> None:
    """systemd-resolved's own command (resolvectl(1)); it speaks D-Bus.

    Raises:
        Fault: it is not there, or it failed.
    """
    run(["resolvectl", "--no-pager", *arguments], package="systemd-resolved")


def run(command: list[str], *, package: str, lines: str = "") -> None:
    """A program that sets something.

    Raises:
        Fault: it is not there, it failed, or it does not answer.
    """
    name = command[0]
    try:
        result = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError as error:
        raise Fault("host", f"the program `{name}` ({package}) is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Fault("host", f"`{name}` did not answer") from error
    if result.returncode:
        raise Fault("host", f"{name}: {result.stderr.strip()[:500]}")


# -- the way of names ----------------------------------------------------------------------------------------------


def set_resolver(interface: str, resolver: dict[str, Any] | None, journal: Journal) -> None:
    """Begin with a way of names, or put another one of the same kind in the place of what is in force.

    Raises:
        Fault: it is of another kind, or it cannot be had.
    """
    before = next((step for step in journal.undo if step["kind"] in CHECKS), None)
    if resolver is None and before is None:
        return
    if resolver is None or (before is not None and before["kind"] != resolver["kind"]):
        raise Fault("plan", "names go another way already")
    if resolver["kind"] == "file":
        set_file(resolver, journal, before)
    elif resolver["kind"] == "hosts":
        set_hosts(interface, resolver, journal, before)
    elif resolver["kind"] == "folder":
        set_folder(interface, resolver, journal, before)
    else:
        set_link(interface, resolver, journal, before)


def set_file(resolver: dict[str, Any], journal: Journal, step: dict[str, Any] | None) -> None:
    """Write the resolver file, in place. What others have written since is what will come back.

    Raises:
        Fault: it cannot be written, or it is not what the client saw.
    """
    path, after = resolver["path"], resolver["content"].encode()
    target = os.path.realpath(path)
    record: dict[str, Any] = {"path": path, "target": target, "after": encoded(after), "ours": digest(after)}
    try:
        if step is not None and step["target"] != target:
            undo_file(step)  # the path leads elsewhere now, and may lead there again
        if not os.path.lexists(path):
            if resolver["seen"]:
                raise Fault("changed", f"{path} has gone")
            journal.put(step, "file", before=None, **record)
            create(target, after)
            return
        with open(path, "r+b") as file:
            before = file.read(MAX_FILE + 1)
            if len(before) > MAX_FILE:
                raise Fault("host", f"{path} is larger than {MAX_FILE} octets")
            if step is not None and digest(before) == step["ours"]:
                record["before"] = step["before"]  # nobody has been here
            elif digest(before) != resolver["seen"]:
                raise Fault("changed", f"{path} has just been changed")
            elif step is not None:
                record["before"] = encoded(without_ours(before, decoded(step["before"] or ""), decoded(step["after"])))
            else:
                record["before"] = encoded(before)
            journal.put(step, "file", **record)
            write_in_place(file, after)
    except OSError as error:
        raise Fault("host", f"{path}: {error.strerror}") from error


def before_us(journal: Journal) -> str:
    """The resolver file that will come back; "" when there is none."""
    texts = [step["before"] for step in journal.undo if step["kind"] == "file"]
    return decoded(texts[0] or "").decode(errors="surrogateescape") if texts else ""


def create(path: str, data: bytes) -> None:
    """A file that is not there, readable by all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o644)
        write_in_place(file, data)


def set_hosts(interface: str, resolver: dict[str, Any], journal: Journal, step: dict[str, Any] | None) -> None:
    """Our block at the end of the hosts file, in the place of an earlier one.

    Raises:
        Fault: it cannot be written.
    """
    path = resolver["path"]
    try:
        with open(path, "r+b") as file:
            current = file.read(MAX_HOSTS_FILE + 1)
            if len(current) > MAX_HOSTS_FILE:
                raise Fault("host", f"{path} is larger than {MAX_HOSTS_FILE} octets")
            # One that is there at the start was left by somebody whose journal is gone: it does not come back.
            before = without_block(current, interface)
            joined = bool(before) and not before.endswith(b"\n")
            lines = "".join(f"{' '.join(line)}\n" for line in resolver["lines"])
            block = (BLOCK_JOINED if joined else BLOCK_BEGINS).format(interface) + lines + BLOCK_ENDS.format(interface)
            after = before + b"\n" * joined + block.encode()
            record = {"before": encoded(before), "after": encoded(after), "ours": digest(after)}
            journal.put(step, "hosts", path=path, interface=interface, **record)
            write_in_place(file, after)
    except OSError as error:
        raise Fault("host", f"{path}: {error.strerror}") from error


def set_link(interface: str, resolver: dict[str, Any], journal: Journal, step: dict[str, Any] | None) -> None:
    """Names below the domains, and those alone, go to our resolver.

    Raises:
        Fault: systemd-resolved does not take it.
    """
    journal.put(step, "link", name=interface, settings=resolver)
    tell_resolved(interface, resolver)


def tell_resolved(interface: str, resolver: dict[str, Any]) -> None:
    """See `set_link`. The cluster's names are signed by nobody: without "dnssec no" a strict machine would refuse them."""
    domains = [*resolver["search"], *(f"~{domain}" for domain in resolver["domains"])]
    for setting in ("dnssec", "dnsovertls", "llmnr", "mdns"):
        run_resolvectl(setting, interface, "no")
    run_resolvectl("default-route", interface, "yes" if resolver["everything"] else "no")
    run_resolvectl("domain", interface, *domains, *(["~."] if resolver["everything"] else []))
    run_resolvectl("dns", interface, resolver["server"])


def set_folder(interface: str, resolver: dict[str, Any], journal: Journal, step: dict[str, Any] | None) -> None:
    """A file for each domain, as resolver(5) of macOS has it. A domain that has one of somebody else's keeps it.

    Raises:
        Fault: they cannot be written.
    """
    files = folder_files(interface, resolver)
    try:
        taken = {
            name
            for name in files
            if os.path.lexists(path := os.path.join(RESOLVER_FOLDER, name)) and not is_ours(path, interface)
        }
        files = {name: text for name, text in files.items() if name not in taken}
        if step is None:
            made = not os.path.isdir(RESOLVER_FOLDER)
            journal.put(step, "folder", interface=interface, names=sorted(files), made=made, settings=resolver)
            os.makedirs(RESOLVER_FOLDER, mode=0o755, exist_ok=True)
        else:
            gone = [name for name in step["names"] if name not in files]
            journal.put(step, "folder", names=sorted({*step["names"], *files}), settings=resolver)
            for name in gone:
                if is_ours(path := os.path.join(RESOLVER_FOLDER, name), interface):
                    os.unlink(path)
        write_folder(files)
    except OSError as error:
        raise Fault("host", f"{RESOLVER_FOLDER}: {error.strerror}") from error


def folder_files(interface: str, resolver: dict[str, Any]) -> dict[str, str]:
    """Names and contents of the files."""
    mark = FOLDER_MARK.format(interface)
    files = dict.fromkeys((*resolver["domains"], *resolver["search"]), f"{mark}nameserver {resolver['server']}\n")
    if resolver["search"]:
        files[SEARCH_FILE.format(interface)] = f"{mark}search {' '.join(resolver['search'])}\n"
    return files


def write_folder(files: dict[str, str]) -> None:
    """All of them."""
    for name, text in files.items():
        path = os.path.join(RESOLVER_FOLDER, name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            write_in_place(file, text.encode())


def quiet_errors() -> None:
    """What there is to say goes to the client from now on: whoever reads the client's standard error must not have to wait for our end."""
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nothing, 2)
    os.close(nothing)


# -- the guard -----------------------------------------------------------------------------------------------------


def start_guard(folder: str) -> int:
    """A process that waits for our end and then undoes what we left; the descriptor that tells it, ours to keep open."""
    waits, tells = os.pipe2(os.O_CLOEXEC)
    helper = os.getpid()
    if os.fork():
        os.close(waits)
        return tells
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.dup2(waits, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))  # the client's socket first of all
        while os.read(3, 1):
            pass
        while os.getppid() == helper:
            time.sleep(0.001)  # its descriptors are closed a moment before it counts as dead
        replay(folder)
    finally:
        os._exit(0)


# -- who is at the other end -----------------------------------------------------------------------------------------

#: struct ucred of unix(7): pid, uid, gid.
UCRED = struct.Struct("iII")
#: Room for one of them and for nothing else: descriptors that somebody passes in find no place and are closed by the kernel.
UCRED_ROOM = socket.CMSG_SPACE(UCRED.size)


def name_senders(channel: socket.socket) -> None:
    """Have the kernel say who sent each piece. On both ends before anything is sent: what was sent earlier has no sender."""
    if sys.platform == "linux":
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def sender(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """Who sent what came with it, as a real user id; None: the kernel does not say.

    Not SO_PEERCRED: of a pair of sockets it names on both ends who made the pair.
    """
    if sys.platform != "linux":
        return None
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) >= UCRED.size:
            pid, uid, _ = UCRED.unpack_from(data)
            return int(uid) if pid > 0 else None  # 0: sent before senders were named, then as user 65534
    return None


def maker(xucred: bytes) -> int | None:
    """macOS: who made the pair of sockets, from struct xucred of LOCAL_PEERCRED (sys/ucred.h); None: of an unknown version.

    The kernel there does not name the sender of a piece; who made the pair is what can be known.
    """
    if len(xucred) < 8:
        return None
    version, uid = struct.unpack_from("=II", xucred)
    return int(uid) if version == 0 else None


def foreign_caller(environment: Mapping[str, str]) -> int | None:
    """The user who had sudo (doas, pkexec) start this; None: root did.

    Raises:
        Fault: it cannot be known who.
    """
    if "DOAS_USER" in environment:
        try:
            return pwd.getpwnam(environment["DOAS_USER"]).pw_uid or None
        except (KeyError, ValueError) as error:
            raise Fault("protocol", "DOAS_USER is nobody") from error
    for name in ("SUDO_UID", "PKEXEC_UID"):
        if name in environment:
            if not re.fullmatch(r"[0-9]{1,10}", environment[name]):
                raise Fault("protocol", f"{name} is no number")
            return int(environment[name]) or None
    return None


#: What a foreign caller might have taken: limit, what is wanted, the least that will do. With half a resolver file and no way to write the
#: old one back nobody would be helped.
LIMITS = (
    (resource.RLIMIT_FSIZE, resource.RLIM_INFINITY, MAX_REQUEST),
    (resource.RLIMIT_CPU, resource.RLIM_INFINITY, 3600),
    (resource.RLIMIT_AS, resource.RLIM_INFINITY, 1 << 30),
    (resource.RLIMIT_DATA, resource.RLIM_INFINITY, 1 << 28),
    (resource.RLIMIT_NOFILE, 1024, 64),
    (resource.RLIMIT_CORE, 0, 0),
)


def settle(foreign: bool) -> None:
    """Leave what the caller chose for this process behind: a foreign one's environment, limits, folder, signals.

    Raises:
        Fault: the limits that he chose cannot be left.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # one of the three was closed, and some file of ours would have become it
    os.close(descriptor)
    os.chdir("/")
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not foreign:
        return
    os.environ.clear()
    os.environ.update(PATH=PROGRAMS, LC_ALL="C")
    for limit, value, least in LIMITS:
        try:
            resource.setrlimit(limit, (value, value))
            continue
        except (ValueError, OSError):  # a container's root may not go beyond what the caller has left
            hard = resource.getrlimit(limit)[1]
            resource.setrlimit(limit, (hard, hard))
        if hard != resource.RLIM_INFINITY and hard < least:
            raise Fault("host", "the limits of this process (ulimit) are too low")


# -- serving -------------------------------------------------------------------------------------------------------


class Service:
    """Answers one client until it is gone, then undoes."""

    def __init__(self, channel: socket.socket, folder: str, users: frozenset[int] = frozenset({0})) -> None:
        name_senders(channel)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_SECONDS, 0))
        self._channel = channel
        self._folder = folder
        self._users = users
        self._journal: Journal | None = None
        self._waiting = b""
        self._guard = -1
        self._interface = ""
        self._routes: set[str] = set()
        self._beats = False  # the client has said that it lives, and will again
        self._given_back = False

    def run(self) -> None:
        """Until the client is gone."""
        try:
            while (request := self._receive()) is not None:
                if request == {"do": "beat"}:
                    self._beat()
                else:
                    self._answer(request)
        finally:
            self._undo()

    def _receive(self) -> Any:
        while b"\n" not in self._waiting:
            if self._beats and not self._given_back and not select.select([self._channel], [], [], SILENCE_SECONDS)[0]:
                self._give_back()
            data = self._piece()
            if not data or len(self._waiting) > MAX_REQUEST:
                return None
            self._waiting += data
        line, _, self._waiting = self._waiting.partition(b"\n")
        try:
            # As text: JSON in octets might also be UTF-16.
            request = json.loads(line.decode(), object_pairs_hook=each_once)
        except (ValueError, RecursionError):
            return {}
        return {} if request is None else request

    def _piece(self) -> bytes:
        """Octets of the client's; none: it is gone, or somebody else has a hand in it."""
        try:
            data, ancillary, flags, _ = self._channel.recvmsg(65536, UCRED_ROOM)
        except ConnectionError:
            return b""
        if sys.platform == "linux" and (flags & socket.MSG_CTRUNC or sender(ancillary) not in self._users):
            return b""
        return data

    def _beat(self) -> None:
        self._beats = self._journal is not None
        if self._given_back:
            self._given_back = False
            self._each_way(REDO)

    def _give_back(self) -> None:
        """The client is silent: the machine's names are its own again. Routes stay, they are the cluster's alone."""
        self._given_back = True
        self._each_way({kind: UNDO[kind] for kind in REDO})

    def _each_way(self, do: Mapping[str, Callable[[dict[str, Any]], object]]) -> None:
        for step in self._journal.undo if self._journal is not None else ():
            if step["kind"] in do:
                try:
                    do[step["kind"]](step)
                except (OSError, Fault):
                    pass  # gone; there is nothing to be done about it

    def _answer(self, request: Any) -> None:
        what = request.get("do") if isinstance(request, dict) else None
        descriptor = -1
        try:
            if what == "hello":
                answer: dict[str, Any] = {"protocol": PROTOCOL, "pid": os.getpid()}
            elif what == "apply":
                descriptor, answer = self._apply(request.get("plan"))
            elif what == "resolver":
                answer = self._resolver(request.get("resolver"))
            elif what == "replay":
                answer = {"done": replay(self._folder)}
            elif what == "before":
                answer = {"before": before_all(self._folder)}
            elif what == "route":
                answer = self._route(request.get("add"), request.get("remove"))
            elif what == "undo":
                answer = {"done": self._undo()}
            else:
                raise Fault("protocol", f"unknown request {shown(what)}")
        except Fault as fault:
            self._send({"ok": False, "kind": fault.kind, "error": str(fault)})
            return
        self._send({"ok": True, **answer}, descriptor)

    def _apply(self, plan: Any) -> tuple[int, dict[str, Any]]:
        check_plan(plan)
        if self._journal is not None:
            raise Fault("protocol", "a plan is in force already")
        quiet_errors()
        folder = state_folder(self._folder)
        if self._guard < 0:
            self._guard = start_guard(folder)
        with locked(folder):
            return self._apply_locked(plan, folder)

    def _apply_locked(self, plan: dict[str, Any], folder: str) -> tuple[int, dict[str, Any]]:
        replay_locked(folder)
        journal = Journal(folder, plan["interface"]["name"])
        if os.path.exists(journal.path):
            raise Fault("busy", f"another helper holds {plan['interface']['name']}")
        self._journal, self._interface, self._routes = journal, plan["interface"]["name"], set(plan["routes"])
        try:
            descriptor, skipped = apply_plan(plan, journal)
        except BaseException as error:
            self._undo()
            if isinstance(error, OSError):
                raise Fault("host", str(error)) from error
            raise
        return descriptor, {"skipped": skipped, "before": before_us(journal)}

    def _resolver(self, resolver: Any) -> dict[str, Any]:
        check_resolver(resolver)
        if self._journal is None:
            raise Fault("protocol", "no plan is in force")
        with locked(self._folder):
            set_resolver(self._interface, resolver, self._journal)
        return {"before": before_us(self._journal)}

    def _route(self, add: Any, remove: Any) -> dict[str, Any]:
        """More or fewer routes to the device of the plan. Nothing of it is in the journal: routes go with their device.

        Each is tried, whatever became of the others: a client that wants to know looks at the kernel's routes.
        """
        if self._journal is None:
            raise Fault("protocol", "no plan is in force")
        if not isinstance(add, list) or not isinstance(remove, list) or len(add) > MAX_ROUTES:
            raise Fault("plan", f"routes are lists of at most {MAX_ROUTES}")
        for route in add:
            _check_route(route)
        if not all(isinstance(route, str) and route in self._routes for route in remove):
            raise Fault("plan", "only routes of the plan, or added to it, can be removed")
        routes = self._routes.difference(remove).union(add)
        if len(routes) > MAX_ROUTES:
            raise Fault("plan", f"more than {MAX_ROUTES} routes in all")
        self._routes = routes
        return {"trouble": change_routes(self._interface, add, remove)}

    def _undo(self) -> list[str]:
        journal, self._journal = self._journal, None
        self._beats = self._given_back = False
        if journal is None:
            return []
        return journal.end()

    def _send(self, answer: dict[str, Any], descriptor: int = -1) -> None:
        data = json.dumps(answer).encode() + b"\n"
        try:
            if descriptor < 0:
                self._channel.sendall(data)
                return
            rights = array.array("i", [descriptor])
            self._channel.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
        finally:
            if descriptor >= 0:
                os.close(descriptor)  # the client's copy alone keeps the device alive


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different: of two the reader would choose one.

    Raises:
        ValueError: they are not.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def stop(number: int, frame: object) -> NoReturn:
    """A signal ends the helper by way of its undo."""
    raise SystemExit(0)


def main(arguments: list[str] | None = None) -> int:
    """Serve on standard input, or replay; 0 when it went well."""
    parser = argparse.ArgumentParser(prog="helper", description="The host helper of ktctl.", allow_abbrev=False)
    parser.add_argument("--state-dir", default=DEFAULT_STATE)
    parser.add_argument("--replay", action="store_true", help="undo what dead helpers left, say what in JSON, and end")
    parser.add_argument("--user", type=int, default=0, metavar="UID", help="who is heard besides root")
    options = parser.parse_args(arguments)
    try:
        caller = foreign_caller(os.environ)
        if caller is not None and (options.state_dir != DEFAULT_STATE or options.user):
            # A folder of one's own choice might hold a journal of one's own making.
            raise Fault("protocol", "only root chooses the state folder and the user")
        folder = os.path.abspath(options.state_dir)
        settle(foreign=caller is not None or bool(options.user))
        if options.replay:
            print(json.dumps({"ok": True, "done": replay(folder)}))
            return 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)
        try:
            os.setsid()  # Ctrl-C in the terminal is for the client, which tells us; sudo has asked its question by now
        except OSError:
            pass  # a session leader already
        channel = client_channel()
        users = frozenset({0, options.user if caller is None else caller})
        if sys.platform == "darwin" and maker(channel.getsockopt(0, 1, 76)) not in users:  # SOL_LOCAL, LOCAL_PEERCRED
            raise Fault("protocol", "whoever made the socket has no business here")
        Service(channel, folder, users).run()
    except (Fault, OSError) as fault:
        print(json.dumps({"ok": False, "kind": getattr(fault, "kind", "host"), "error": str(fault)}))
        return 1
    return 0


def client_channel() -> socket.socket:
    """Standard input.

    Raises:
        Fault: it is not what ktctl makes of it.
    """
    try:
        channel = socket.socket(fileno=os.dup(0))
    except OSError as error:
        raise Fault("protocol", "standard input is no socket; ktctl starts this program") from error
    if channel.family != socket.AF_UNIX or channel.type != socket.SOCK_STREAM:
        raise Fault("protocol", "standard input is no Unix stream socket; ktctl starts this program")
    return channel


if __name__ == "__main__":
    sys.exit(main())
