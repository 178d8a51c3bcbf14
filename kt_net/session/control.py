"""How another terminal speaks to a running connection: a Unix socket in ktctl's folder, one JSON object a line.

Not here: what status looks like on a screen.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kt_net.errors import NotConnected
from kt_net.session.home import DEFAULT_NAME, control_socket

logger = logging.getLogger(__name__)

MAX_LINE = 4 * 1024 * 1024
#: For an answer; and for whoever has connected to say what it wants.
SECONDS = 30.0
REQUEST_SECONDS = 2.0

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer after which the socket is no longer for questions: once the answer has gone, `begin` takes it over."""

    answer: Answer
    begin: Callable[[socket.socket], None]


class ControlServer:
    """Answers on a thread of its own.

    Args:
        verbs: what may be asked, and what answers it, given the request.
        name: of the connection.
    """

    def __init__(
        self, verbs: Mapping[str, Callable[[Mapping[str, Any]], Answer | Stream]], name: str = DEFAULT_NAME
    ) -> None:
        self._verbs = verbs
        self._path = control_socket(name)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # of one that was killed; the claim says that none lives
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._socket.bind(str(self._path))
        finally:
            os.umask(mask)
        self._socket.listen(8)
        threading.Thread(target=self._run, name="ktctl-control", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                connected, _ = self._socket.accept()
            except OSError:
                return
            with connected, contextlib.suppress(OSError, ValueError):
                connected.settimeout(REQUEST_SECONDS)
                answer = self._answer(_line(connected))
                stream = answer if isinstance(answer, Stream) else None
                connected.sendall(json.dumps(stream.answer if stream else answer).encode() + b"\n")
                if stream is not None:
                    stream.begin(connected.dup())

    def _answer(self, line: bytes) -> Answer | Stream:
        try:
            request = json.loads(line)
            verb = self._verbs.get(str(request.get("do")) if isinstance(request, dict) else "")
            return verb(request) if verb is not None else {"error": "unknown request"}
        except Exception as error:  # whatever one asks, the next one is to be answered
            logger.debug("a request over the control socket", exc_info=True)
            return {"error": f"{type(error).__name__}: {error}"}


def ask(verb: str, to: str = DEFAULT_NAME, *, within: float = SECONDS, **arguments: str) -> Answer:
    """The answer of the running connection of that name, `within` seconds.

    Raises:
        NotConnected: there is none.
    """
    answer, _, connected = open_stream(verb, to, within=within, **arguments)
    connected.close()
    return answer


def open_stream(
    verb: str, to: str = DEFAULT_NAME, *, within: float = SECONDS, **arguments: str
) -> tuple[Answer, bytes, socket.socket]:
    """The answer of the running connection, what came behind it, and the socket, which has more to say when the verb is one of a stream.

    Raises:
        NotConnected: there is none.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(within)
        connected.connect(str(control_socket(to)))
        connected.sendall(json.dumps({"do": verb, **arguments}).encode() + b"\n")
        line, _, behind = _line(connected).partition(b"\n")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("whoever listens does not speak our language")
    except (OSError, ValueError) as error:
        connected.close()
        what = "nothing is connected" if to == DEFAULT_NAME else f"nothing is connected as {to}"
        raise NotConnected(what, why=str(error) if isinstance(error, ValueError) else "") from error
    return answer, behind, connected


def _line(connected: socket.socket) -> bytes:
    """A line, and perhaps what came behind it."""
    data = b""
    while b"\n" not in data[-65536:] and len(data) < MAX_LINE:
        piece = connected.recv(65536)
        if not piece:
            break
        data += piece
    return data
