"""The client's side of the host helper: starts it, speaks with it, receives the device.

It believes nobody but root at the other end: the kernel says who sent each answer.

Not here: what the plan says (plan.py); how the helper is started (launch.py).
"""

from __future__ import annotations

import array
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kt_net.addr import IPPrefix
from kt_net.errors import (
    EnvironmentFault,
    HelperProtocolError,
    HostChanged,
    HostRefused,
    KtError,
    PrivilegeMissing,
    TunUnavailable,
)
from kt_net.host.helper import DEFAULT_STATE, UCRED, name_senders, sender
from kt_net.host.installed import HELPER, default_prefix, look
from kt_net.host.launch import Choice, Launch, Machine, choose
from kt_net.host.naming import Way
from kt_net.host.plan import HostPlan

__all__ = ["DEFAULT_STATE", "HELPER", "Applied", "HostHelper", "channel_pair", "leftovers", "replay_leftovers"]

#: The helper's answers are small; steps of a plan take milliseconds, a password prompt takes as long as it takes.
ANSWER_SECONDS = 30.0
MAX_ANSWER = 256 * 1024
#: Room for the sender and one descriptor; more of them find no place, and the kernel closes them.
_ROOM = socket.CMSG_SPACE(UCRED.size) + socket.CMSG_SPACE(4)

_KINDS: dict[str, type[KtError]] = {
    "tun": TunUnavailable,
    "host": HostRefused,
    "busy": HostChanged,
    "changed": HostChanged,
    "plan": HelperProtocolError,
    "protocol": HelperProtocolError,
}


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a plan.

    Attributes:
        descriptor: of the device; the caller's to close.
        skipped: routes left out.
        before: the resolver file that will come back, "" where it is not edited or was not there.
    """

    descriptor: int
    skipped: tuple[str, ...]
    before: str


def machine() -> Machine:
    """This one, as `choose` wants it described."""
    root = os.geteuid() == 0
    invoker = os.environ.get("SUDO_UID", "")
    return Machine(
        root=root,
        invoker=int(invoker) if root and invoker.isdecimal() else 0,
        sudo=shutil.which("sudo") is not None,
        python=sys.executable or "python3",
        helper=str(HELPER),
        installed=look(default_prefix()),
    )


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that name their senders: ours and the helper's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        name_senders(end)
    return ours, theirs


#: How sudo, doas and polkit say who called them.
_CALLERS = ("SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND", "DOAS_USER", "PKEXEC_UID")


def _environment() -> dict[str, str]:
    """For a helper that we start ourselves: what says that sudo has started it would not be true. Sudo says it anew."""
    return {name: value for name, value in os.environ.items() if name not in _CALLERS}


class HostHelper:
    """A running helper. When this process ends, for whatever reason, the helper undoes everything and ends."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        self._asking = threading.Lock()  # one request and its answer
        self._sending = threading.Lock()  # one line

    @classmethod
    def start(cls, state_folder: str = DEFAULT_STATE, tell: Callable[[str], None] | None = None) -> HostHelper:
        """Start one, and wait until it answers (sudo may ask for a password first).

        Args:
            tell: is told, before a password is asked for, why.

        Raises:
            PrivilegeMissing: no root to be had.
        """
        choice = choose(machine(), state_folder=state_folder)
        tell = tell or (lambda text: None)
        if choice.note:
            tell(choice.note)
        for launch in choice.launches:
            if launch.asks and not choice.note:
                tell("sudo may ask for a password; sudo ktctl helper install makes that unnecessary")
            helper = cls._launched(launch, quiet=launch is not choice.launches[-1])
            try:
                # Who is asked for a password may take his time.
                helper._ask({"do": "hello"}, timeout=None if launch.asks else ANSWER_SECONDS)
                helper._channel.settimeout(ANSWER_SECONDS)  # which also makes it one that never blocks a beat
                return helper
            except EnvironmentFault:
                helper.close()
            except BaseException:
                helper.close()
                raise
        raise PrivilegeMissing("the host helper did not start", why="sudo refused, or was given up")

    @classmethod
    def _launched(cls, launch: Launch, *, quiet: bool) -> HostHelper:
        ours, theirs = channel_pair()
        try:
            process = subprocess.Popen(
                launch.arguments,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if quiet else None,
                env=_environment(),
            )
        except OSError as error:
            ours.close()
            raise PrivilegeMissing("the host helper cannot be started", why=str(error)) from error
        finally:
            theirs.close()
        return cls(process, ours)

    @property
    def alive(self) -> bool:
        """Whether it still runs; without it nobody would undo."""
        return self._process.poll() is None

    def apply(self, plan: HostPlan) -> Applied:
        """Have the plan done.

        Raises:
            TunUnavailable: no TUN device.
            HostChanged: the device or the resolver file is another one's by now.
            HostRefused: the kernel or a file refused a step; what was done before it is undone.
            HelperProtocolError: the helper does not take this plan.
        """
        answer, descriptor = self._ask({"do": "apply", "plan": plan.request()})
        if descriptor is None:
            raise HelperProtocolError("the host helper sent no device")
        return Applied(descriptor, tuple(answer.get("skipped", ())), str(answer.get("before", "")))

    def replay(self) -> list[str]:
        """Undo what dead helpers left; what was done, in words.

        Raises:
            HostRefused: the state folder is not to be trusted.
        """
        answer, _ = self._ask({"do": "replay"})
        return [str(line) for line in answer.get("done", ())]

    def before(self) -> str | None:
        """What the resolver file was before the connection whose text is in it now, "" when there was none; None: it is no living one's.

        Raises:
            HostRefused: the helper has ended, or the state folder is not to be trusted.
        """
        answer, _ = self._ask({"do": "before"})
        before = answer.get("before")
        return before if isinstance(before, str) else None

    def change_names(self, way: Way) -> str:
        """Another way of names of the same kind; the resolver file that will come back, as in `Applied`. From any thread but the beat's.

        Raises:
            HostRefused: it cannot be had.
            HelperProtocolError: the helper does not take it.
        """
        answer, _ = self._ask({"do": "resolver", "resolver": way.request()})
        return str(answer.get("before", ""))

    def route(self, add: tuple[IPPrefix, ...], remove: tuple[IPPrefix, ...]) -> str:
        """Have routes to the device made, and then others removed, while a plan is in force; what went wrong, "" when nothing did.

        Raises:
            HostRefused: the helper has ended.
            HelperProtocolError: it does not take these routes, or is too old to.
        """
        request = {"do": "route", "add": [str(prefix) for prefix in add], "remove": [str(prefix) for prefix in remove]}
        answer, _ = self._ask(request)
        return str(answer.get("trouble", ""))

    def undo(self) -> list[str]:
        """Have everything undone; what was done, in words."""
        answer, _ = self._ask({"do": "undo"})
        return [str(line) for line in answer.get("done", ())]

    def beat(self) -> None:
        """Say that we live; never waits. Without it the helper gives the machine its own names back for the time being.

        To be called about once a second by the thread that answers names, from the first call on.
        """
        if not self._sending.acquire(blocking=False):
            return  # another thread is about to say something, which is a sign of life as well
        try:
            # Not by the socket's own method, which would wait while it is full: the helper may be stopped.
            os.write(self._channel.fileno(), b'{"do": "beat"}\n')
        except OSError:
            pass  # it has ended, which others notice, or it is stopped
        finally:
            self._sending.release()

    def close(self) -> None:
        """Let it undo what is left, and wait for its end."""
        self._channel.close()
        try:
            self._process.wait(timeout=ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # it is root's; it ends when it has undone

    def _ask(
        self, request: dict[str, Any], timeout: float | None = ANSWER_SECONDS
    ) -> tuple[dict[str, Any], int | None]:
        with self._asking:
            return self._ask_alone(request, timeout)

    def _ask_alone(self, request: dict[str, Any], timeout: float | None) -> tuple[dict[str, Any], int | None]:
        self._channel.settimeout(timeout)
        data = b""
        received: list[int] = []
        try:
            with self._sending:
                self._channel.sendall(json.dumps(request).encode() + b"\n")
            while not data.endswith(b"\n"):
                piece = self._piece(received)
                if not piece or len(data) > MAX_ANSWER:
                    raise HostRefused("the host helper has ended")
                data += piece
            answer = _parse_answer(data)
            return answer, received.pop() if received else None
        except OSError as error:
            raise HostRefused("the host helper does not answer", why=str(error)) from error
        finally:
            for descriptor in received:
                os.close(descriptor)

    def _piece(self, received: list[int]) -> bytes:
        """Octets of root's; none: it has ended. Descriptors that came with them are added to `received`.

        Raises:
            HelperProtocolError: somebody else speaks here.
        """
        piece, ancillary, _, _ = self._channel.recvmsg(65536, _ROOM)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received.extend(array.array("i", payload[: len(payload) // 4 * 4]))
        if piece and sys.platform == "linux" and sender(ancillary) != 0:
            raise HelperProtocolError("somebody who is not root answers in the host helper's place")
        return piece


def _parse_answer(data: bytes) -> dict[str, Any]:
    """What the helper says when all is well.

    Raises:
        KtError: it says that something is wrong, or nothing that can be understood.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HelperProtocolError("the host helper's answer is no JSON") from error
    if not isinstance(answer, dict):
        raise HelperProtocolError("the host helper's answer is no object")
    if not answer.get("ok"):
        fault = _KINDS.get(str(answer.get("kind")), HelperProtocolError)
        raise fault("this machine's network could not be set up", why=str(answer.get("error", "")))
    return answer


def leftovers(state_folder: str = DEFAULT_STATE) -> bool:
    """Whether a journal may be there: the folder is root's, so another user can only see that it exists."""
    try:
        return any(name.startswith("journal-") for name in os.listdir(state_folder))
    except PermissionError:
        return True
    except OSError:
        return False


def replay_leftovers(state_folder: str = DEFAULT_STATE, *, may_ask: bool = True) -> list[str]:
    """Undo what dead helpers left; what was done, in words.

    Args:
        may_ask: whether sudo may ask for a password.

    Raises:
        PrivilegeMissing: no root to be had.
        HostRefused: the helper failed.
    """
    choice = choose(machine(), state_folder=state_folder, replay=True)
    answer = _first_answer(choice, may_ask)
    if answer is None:
        raise PrivilegeMissing("the host helper did not start", why="sudo refused, or was given up")
    if not answer.get("ok"):
        raise HostRefused("leftovers could not be undone", why=str(answer.get("error", "")))
    return [str(line) for line in answer.get("done", ())]


def _first_answer(choice: Choice, may_ask: bool) -> dict[str, Any] | None:
    for launch in choice.launches:
        if launch.asks and not may_ask:
            continue
        result = subprocess.run(
            launch.arguments,
            stdout=subprocess.PIPE,
            stderr=None if launch is choice.launches[-1] else subprocess.DEVNULL,
            check=False,
            env=_environment(),
        )
        try:
            answer = json.loads(result.stdout)
        except ValueError:
            continue
        if isinstance(answer, dict):
            return answer
    return None
