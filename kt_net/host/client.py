"""The client's side of the host helper: starts it, speaks with it, receives the device.

Not here: what the plan says (plan.py).
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kt_net.addr import IPPrefix
from kt_net.errors import (
    EnvironmentFault,
    HelperProtocolError,
    HostRefused,
    KtError,
    PrivilegeMissing,
    TunUnavailable,
)
from kt_net.host.plan import HostPlan

HELPER = Path(__file__).with_name("helper.py")
DEFAULT_STATE = "/var/lib/ktctl"
#: The helper's answers are small; steps of a plan take milliseconds, a password prompt takes as long as it takes.
ANSWER_SECONDS = 30.0
MAX_ANSWER = 256 * 1024

_KINDS: dict[str, type[KtError]] = {
    "tun": TunUnavailable,
    "host": HostRefused,
    "busy": HostRefused,
    "plan": HelperProtocolError,
    "protocol": HelperProtocolError,
}


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a plan: the device's descriptor (the caller's to close), routes left out, leftovers undone first."""

    descriptor: int
    skipped: tuple[str, ...]
    replayed: tuple[str, ...]


def command(*arguments: str) -> list[str]:
    """How to run the helper: directly as root, else by sudo.

    Raises:
        PrivilegeMissing: neither root nor sudo.
    """
    python = [sys.executable or "python3", "-I", str(HELPER), *arguments]
    if os.geteuid() == 0:
        return python
    if shutil.which("sudo") is None:
        raise PrivilegeMissing("root is needed for the TUN device, routes and DNS", why="there is no sudo here")
    return ["sudo", "--", *python]


class HostHelper:
    """A running helper. When this process ends, for whatever reason, the helper undoes everything and ends."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        self._asking = threading.Lock()  # one request and its answer
        self._sending = threading.Lock()  # one line

    @classmethod
    def start(cls, state_folder: str = DEFAULT_STATE) -> HostHelper:
        """Start one, and wait until it answers (sudo may ask for a password first).

        Raises:
            PrivilegeMissing: no root to be had.
        """
        arguments = command("--state-dir", state_folder)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            process = subprocess.Popen(arguments, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        except OSError as error:
            ours.close()
            raise PrivilegeMissing("the host helper cannot be started", why=str(error)) from error
        finally:
            theirs.close()
        helper = cls(process, ours)
        try:
            helper._ask({"do": "hello"}, timeout=None)
            ours.settimeout(ANSWER_SECONDS)  # which also makes it one that never blocks a beat
        except EnvironmentFault:
            helper.close()
            raise PrivilegeMissing("the host helper did not start", why="sudo refused, or was given up") from None
        return helper

    @property
    def alive(self) -> bool:
        """Whether it still runs; without it nobody would undo."""
        return self._process.poll() is None

    def apply(self, plan: HostPlan) -> Applied:
        """Have the plan done.

        Raises:
            TunUnavailable: no TUN device.
            HostRefused: the kernel or a file refused a step; what was done before it is undone.
            HelperProtocolError: the helper does not take this plan.
        """
        answer, descriptor = self._ask({"do": "apply", "plan": plan.request()})
        if descriptor is None:
            raise HelperProtocolError("the host helper sent no device")
        return Applied(descriptor, tuple(answer.get("skipped", ())), tuple(answer.get("replayed", ())))

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
        data, descriptor = b"", None
        try:
            with self._sending:
                self._channel.sendall(json.dumps(request).encode() + b"\n")
            while not data.endswith(b"\n"):
                piece, ancillary, _, _ = self._channel.recvmsg(65536, socket.CMSG_SPACE(4))
                for level, kind, payload in ancillary:
                    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                        descriptor = array.array("i", payload[:4])[0]
                if not piece or len(data) > MAX_ANSWER:
                    raise HostRefused("the host helper has ended")
                data += piece
            answer = json.loads(data)
        except OSError as error:
            raise HostRefused("the host helper does not answer", why=str(error)) from error
        except ValueError as error:
            raise HelperProtocolError("the host helper's answer is no JSON") from error
        if not isinstance(answer, dict):
            raise HelperProtocolError("the host helper's answer is no object")
        if not answer.get("ok"):
            fault = _KINDS.get(str(answer.get("kind")), HelperProtocolError)
            raise fault("this machine's network could not be set up", why=str(answer.get("error", "")))
        return answer, descriptor


def leftovers(state_folder: str = DEFAULT_STATE) -> bool:
    """Whether a journal may be there: the folder is root's, so another user can only see that it exists."""
    folder = Path(state_folder)
    try:
        return any(folder.glob("journal-*"))
    except PermissionError:
        return True
    except OSError:
        return False


def replay_leftovers(state_folder: str = DEFAULT_STATE) -> list[str]:
    """Undo what dead helpers left; what was done, in words.

    Raises:
        PrivilegeMissing: no root to be had.
        HostRefused: the helper failed.
    """
    result = subprocess.run(
        command("--state-dir", state_folder, "--replay"), stdout=subprocess.PIPE, stdin=None, check=False
    )
    try:
        answer = json.loads(result.stdout)
    except ValueError:
        raise PrivilegeMissing("the host helper did not start", why="sudo refused, or was given up") from None
    if not answer.get("ok"):
        raise HostRefused("leftovers could not be undone", why=str(answer.get("error", "")))
    return [str(line) for line in answer.get("done", ())]
