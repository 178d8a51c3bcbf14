"""The host helper: the one part that runs as root. Standard library only, one file, `python3 -I helper.py`.

It creates a TUN device, sets routes and the resolver file from a plan, and undoes all that when its standard input ends, however the
client died. Before each step the undo is in a journal on disk. When the helper dies as well, its guard, a second process that does nothing
else, undoes what the journal says; when all three die, the next start does, or `--replay`.

A client that lives and does not answer (stopped, swapped out) would leave this machine without names. So it beats once a second; after
three seconds of silence the machine has its own resolver file back, until the client beats again.

Protocol: standard input is one end of a Unix stream socket. Both sides send JSON objects, one a line. The answer to a plan carries
the TUN's descriptor (SCM_RIGHTS). Requests: {"do": "hello"|"apply"|"route"|"undo"}; answers: {"ok": true, ...} or
{"ok": false, "kind": ..., "error": ...}. {"do": "beat"} is not answered.

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
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

PROTOCOL = 1
DEFAULT_STATE = "/var/lib/ktctl"

#: After so many seconds without a beat the machine's own resolver file comes back. libc gives up on a name server after 5.
SILENCE_SECONDS = 3.0

MAX_REQUEST = 1024 * 1024
MAX_ROUTES = 1024
MAX_FILE = 64 * 1024
INTERFACE = re.compile(r"kt[0-9]{1,3}\Z")
RESOLVER_FILES = ("/etc/resolv.conf",)

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
    if not isinstance(plan, dict) or set(plan) != {"interface", "routes", "resolver"}:
        raise Fault("plan", "a plan has interface, routes and resolver")
    interface = plan["interface"]
    if not isinstance(interface, dict) or set(interface) != {"name", "mtu", "offload", "addresses"}:
        raise Fault("plan", "an interface has name, mtu, offload and addresses")
    if not isinstance(interface["name"], str) or not INTERFACE.match(interface["name"]):
        raise Fault("plan", f"not an interface of ours: {interface['name']!r}")
    if not isinstance(interface["mtu"], int) or not 1280 <= interface["mtu"] <= 65535:
        raise Fault("plan", f"an MTU of {interface['mtu']!r}")
    if not isinstance(interface["offload"], bool) or not isinstance(interface["addresses"], list):
        raise Fault("plan", "offload is a truth value, addresses are a list")
    for address in interface["addresses"]:
        if _network(address).num_addresses != 1:
            raise Fault("plan", f"not a single address: {address}")
    if not isinstance(plan["routes"], list) or len(plan["routes"]) > MAX_ROUTES:
        raise Fault("plan", f"routes are a list of at most {MAX_ROUTES}")
    for route in plan["routes"]:
        _check_route(route)
    _check_resolver(plan["resolver"])


def _network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        # A scope ("%") may be any text; what is believed here goes to `ip -batch`.
        return ipaddress.ip_network(text if isinstance(text, str) and "%" not in text else "")
    except ValueError as error:
        raise Fault("plan", f"no prefix: {text!r}") from error


def _check_route(text: Any) -> None:
    network = _network(text)
    shortest = 4 if network.version == 4 else 8
    if network.prefixlen < shortest:
        raise Fault("plan", f"{network} is too much of the internet")
    if network.is_loopback or network.is_link_local or network.is_multicast or network.is_unspecified:
        raise Fault("plan", f"{network} is not to be routed")


def _check_resolver(resolver: Any) -> None:
    if resolver is None:
        return
    if not isinstance(resolver, dict) or set(resolver) != {"path", "content"}:
        raise Fault("plan", "a resolver has path and content")
    if resolver["path"] not in RESOLVER_FILES:
        raise Fault("plan", f"not a resolver file: {resolver['path']!r}")
    if not isinstance(resolver["content"], str) or len(resolver["content"]) > MAX_FILE:
        raise Fault("plan", f"a resolver file has at most {MAX_FILE} characters")


# -- the journal ---------------------------------------------------------------------------------------------------


class Journal:
    """The undo of what was done, on disk before it is done."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self.path = os.path.join(folder, f"journal-{name}.json")
        self.undo: list[dict[str, Any]] = []

    def add(self, step: dict[str, Any]) -> None:
        """Write down how to undo what comes next."""
        self.undo.append(step)
        self._write()

    def _write(self) -> None:
        record = {"schema": 1, "pid": os.getpid(), "started": start_time(os.getpid()), "undo": self.undo}
        beside = f"{self.path}.{os.getpid()}"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)

    def remove(self) -> None:
        """All is undone."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


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


def start_time(pid: int) -> int | None:
    """When the process was started, in ticks since boot; with the pid it names one process for ever. None: there is none.

    A zombie is none: nobody may ever collect it (a container's first process often does not).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
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
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith("journal-") and not name.endswith(".json"):
            os.unlink(path)  # half written by a helper that died: a living one would hold the lock
            continue
        if not name.startswith("journal-"):
            continue
        try:
            with open(path) as file:
                record = json.load(file)
            pid, started, undo = record["pid"], record["started"], record["undo"]
            if record["schema"] != 1 or not isinstance(undo, list):
                raise ValueError("of another version")
        except (OSError, ValueError, KeyError, TypeError) as error:
            done.append(f"{path} cannot be read ({error}); left alone")
            continue
        if started is not None and start_time(pid) == started:
            continue  # its helper lives
        done += undo_all(undo)
        os.unlink(path)
    return done


def undo_all(steps: list[dict[str, Any]]) -> list[str]:
    """Undo, last step first; a step that fails does not keep the others from being undone."""
    done: list[str] = []
    for step in reversed(steps):
        try:
            done.append(UNDO[step["kind"]](step))
        except (OSError, KeyError, ValueError, TypeError) as error:
            done.append(f"{step.get('kind')} could not be undone: {error}")
    return done


def undo_interface(step: dict[str, Any]) -> str:
    """The device goes with its last descriptor; this is for one that somebody else holds open."""
    if INTERFACE.match(step["name"]) and interface_exists(step["name"]):
        subprocess.run(["ip", "link", "del", step["name"]], capture_output=True, check=False, timeout=5)
    return f"interface {step['name']} removed"


def undo_file(step: dict[str, Any]) -> str:
    """The old octets back in the same inode, unless somebody has written something else since."""
    path = step["path"]
    if path not in RESOLVER_FILES:
        raise ValueError(f"not a resolver file: {path!r}")
    with open(path, "r+b") as file:
        current, before = file.read(MAX_FILE + 1), base64.b64decode(step["before"])
        if current == before:
            return f"{path} restored"  # while the client was silent
        if digest(current) != step["ours"] and not partly(current, step):
            return f"{path} was changed by somebody else; left as it is"
        write_in_place(file, before)
    return f"{path} restored"


def redo_file(step: dict[str, Any]) -> None:
    """Ours once more, if the file is still what `undo_file` made of it."""
    with open(step["path"], "r+b") as file:
        if file.read(MAX_FILE + 1) == base64.b64decode(step["before"]):
            write_in_place(file, base64.b64decode(step["after"]))


def partly(current: bytes, step: dict[str, Any]) -> bool:
    """Whether we died in the midst of writing: the file is the beginning of one text, and behind it nothing or what the other has there."""
    before, after = base64.b64decode(step["before"]), base64.b64decode(step["after"])
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


def write_in_place(file: Any, data: bytes) -> None:
    """Keep the inode: the file may be a bind mount, as in a container."""
    file.seek(0)
    file.write(data)
    file.truncate()
    file.flush()
    os.fsync(file.fileno())


UNDO = {"interface": undo_interface, "file": undo_file}


# -- doing ---------------------------------------------------------------------------------------------------------


def apply_plan(plan: dict[str, Any], journal: Journal) -> tuple[int, list[str]]:
    """Do it step by step; the TUN's descriptor, and what had to be left out.

    Raises:
        Fault: a step failed. What was done stands in the journal.
    """
    interface = plan["interface"]
    journal.add({"kind": "interface", "name": interface["name"]})
    descriptor = make_tun(interface["name"], interface["offload"])
    try:
        skipped = set_routes(interface, plan["routes"])
        if plan["resolver"] is not None:
            set_file(plan["resolver"], journal)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, skipped


def make_tun(name: str, offload: bool) -> int:
    """A TUN device that lives as long as its descriptor.

    Raises:
        Fault: none can be had.
    """
    if interface_exists(name):
        raise Fault("busy", f"the interface {name} is there already")
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
        run_ip([f"-{version}", "-batch", "-"], "\n".join(lines) + "\n")
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
    try:
        result = subprocess.run(
            ["ip", *arguments], input=lines, capture_output=True, text=True, check=False, timeout=10
        )
    except FileNotFoundError as error:
        raise Fault("host", "the program `ip` (iproute2) is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Fault("host", "`ip` did not answer") from error
    if result.returncode:
        raise Fault("host", f"ip: {result.stderr.strip()[:500]}")


def set_file(resolver: dict[str, Any], journal: Journal) -> None:
    """Write the resolver file, in place.

    Raises:
        Fault: it cannot be written.
    """
    path, after = resolver["path"], resolver["content"].encode()
    try:
        with open(path, "r+b") as file:
            before = file.read(MAX_FILE + 1)
            if len(before) > MAX_FILE:
                raise Fault("host", f"{path} is larger than {MAX_FILE} octets")
            journal.add(
                {
                    "kind": "file",
                    "path": path,
                    "before": base64.b64encode(before).decode(),
                    "after": base64.b64encode(after).decode(),
                    "ours": digest(after),
                }
            )
            write_in_place(file, after)
    except OSError as error:
        raise Fault("host", f"{path}: {error.strerror}") from error


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


# -- serving -------------------------------------------------------------------------------------------------------


class Service:
    """Answers one client until it is gone, then undoes."""

    def __init__(self, channel: socket.socket, folder: str) -> None:
        self._channel = channel
        self._folder = folder
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
            try:
                data = self._channel.recv(65536)
            except ConnectionError:
                return None
            if not data or len(self._waiting) > MAX_REQUEST:
                return None
            self._waiting += data
        line, _, self._waiting = self._waiting.partition(b"\n")
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            return {}

    def _beat(self) -> None:
        self._beats = self._journal is not None
        if self._given_back:
            self._given_back = False
            self._each_file(redo_file)

    def _give_back(self) -> None:
        """The client is silent: the machine's names are its own again. Routes stay, they are the cluster's alone."""
        self._given_back = True
        self._each_file(undo_file)

    def _each_file(self, do: Callable[[dict[str, Any]], object]) -> None:
        for step in self._journal.undo if self._journal is not None else ():
            if step["kind"] == "file":
                try:
                    do(step)
                except OSError:
                    pass  # gone; there is nothing to be done about it

    def _answer(self, request: Any) -> None:
        what = request.get("do") if isinstance(request, dict) else None
        descriptor = -1
        try:
            if what == "hello":
                answer: dict[str, Any] = {"protocol": PROTOCOL, "pid": os.getpid()}
            elif what == "apply":
                descriptor, answer = self._apply(request.get("plan"))
            elif what == "route":
                answer = self._route(request.get("add"), request.get("remove"))
            elif what == "undo":
                answer = {"done": self._undo()}
            else:
                raise Fault("protocol", f"unknown request {what!r}")
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
        replayed = replay_locked(folder)
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
        return descriptor, {"skipped": skipped, "replayed": replayed}

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
        done = undo_all(journal.undo)
        journal.remove()
        return done

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


def stop(number: int, frame: object) -> NoReturn:
    """A signal ends the helper by way of its undo."""
    raise SystemExit(0)


def main(arguments: list[str] | None = None) -> int:
    """Serve on standard input, or replay; 0 when it went well."""
    parser = argparse.ArgumentParser(prog="helper", description="The host helper of ktctl.")
    parser.add_argument("--state-dir", default=DEFAULT_STATE)
    parser.add_argument("--replay", action="store_true", help="undo what dead helpers left, say what in JSON, and end")
    options = parser.parse_args(arguments)
    try:
        if options.replay:
            print(json.dumps({"ok": True, "done": replay(options.state_dir)}))
            return 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)
        try:
            os.setsid()  # Ctrl-C in the terminal is for the client, which tells us; sudo has asked its question by now
        except OSError:
            pass  # a session leader already
        channel = socket.socket(fileno=os.dup(0))
        if channel.family != socket.AF_UNIX:
            raise Fault("protocol", "standard input is no Unix socket; ktctl starts this program")
        Service(channel, options.state_dir).run()
    except (Fault, OSError) as fault:
        print(json.dumps({"ok": False, "kind": getattr(fault, "kind", "host"), "error": str(fault)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
