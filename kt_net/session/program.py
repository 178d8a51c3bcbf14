"""The program that stands in for the exchanged one, run with its environment, for as long as both last.

It is a child in the terminal's foreground, so what the user types reaches it. When it ends the exchange ends; when the exchange ends, it is
asked to, and after a while made to.

Not here: the environment itself (kt_net.kube.environment).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from kt_net.errors import HostRefused, KtError, ObjectMissing, ProgramMissing, ProgramRefused, UsageFault
from kt_net.forward.places import selector_text
from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.environment import Environment, container_of, env_file, environment_of, values_of

#: For a program that has seen the user's Ctrl-C itself, before it is asked; and for one that was asked.
OWN_SECONDS: Final = 2.0
ASKED_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1


class Session(Protocol):
    """What is around it."""

    def start(self) -> None:
        """Bring it up."""

    def wait(self, stop: threading.Event) -> None:
        """Until `stop` is set; raises when it ends by itself."""

    def close(self) -> list[str]:
        """Undo it."""


def find_program(command: list[str]) -> str:
    """The program's file.

    Raises:
        ProgramMissing, ProgramRefused: none, or one that may not be run.
    """
    found = shutil.which(command[0])
    if found is not None:
        return found
    if os.path.exists(command[0]):
        raise ProgramRefused(f"{command[0]} cannot be run", why="it is no program that this user may run")
    raise ProgramMissing(f"there is no program {command[0]}")


class ProgramSession:
    """A session with a program in it.

    Args:
        environment: what the program has more than we have; asked for once the session is up.
    """

    def __init__(self, session: Session, command: list[str], environment: Callable[[], Mapping[str, str]]) -> None:
        self._session = session
        self._file = find_program(command)
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        #: Of the program, as a shell has it; None while there is none.
        self.code: int | None = None

    def start(self) -> None:
        """Bring the session up; see `Session`."""
        self._session.start()

    def wait(self, stop: threading.Event) -> None:
        """Run the program, until it ends, or `stop` is set, or the session ends by itself.

        Raises:
            ProgramRefused: the kernel does not take it.
            KtError: the session's.
        """
        try:
            self._process = process = subprocess.Popen(
                self._command, executable=self._file, env={**os.environ, **self._environment()}, restore_signals=True
            )
        except (OSError, ValueError) as error:
            raise ProgramRefused(f"{self._command[0]} cannot be run", why=str(error)) from error
        over = threading.Event()

        def watch() -> None:
            while process.poll() is None and not stop.wait(LOOK_SECONDS):
                pass
            over.set()

        threading.Thread(target=watch, name="ktctl-program", daemon=True).start()
        try:
            self._session.wait(over)
        finally:
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        for seconds, number in ((OWN_SECONDS, signal.SIGTERM), (ASKED_SECONDS, signal.SIGKILL)):
            try:
                process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(number)
        code = process.wait()
        self.code = code if code >= 0 else 128 - code

    def close(self) -> list[str]:
        """Undo the session; see `Session`."""
        return self._session.close()


def read_environment(
    api: HttpKubeApi, namespace: str, selector: Mapping[str, str], *, container: str, port: int | str
) -> Environment:
    """Of a container of one of the pods with these labels, a ready one if there is any.

    Raises:
        ObjectMissing: there is no pod.
        UsageFault: it has no such container.
        KtError: the refusals of kt_net.kube.
    """
    words = selector_text({"matchLabels": selector})
    pods = [pod for pod in api.list("Pod", namespace, selector=words) if not pod["metadata"].get("deletionTimestamp")]
    if not pods:
        raise ObjectMissing("there is no pod whose environment could be taken", why=f"none in {namespace} has {words}")
    pod = max(pods, key=_ready)
    found = container_of(pod, name=container, port=port)
    if found is None:
        names = ", ".join(str(one.get("name")) for one in (pod.get("spec") or {}).get("containers") or ())
        raise UsageFault(f"--container: there is no {container}", why=f"the pod has {names}")
    known: dict[tuple[str, str], Mapping[str, str] | str | None] = {}

    def read(kind: str, name: str) -> Mapping[str, str] | str | None:
        if (kind, name) not in known:
            known[kind, name] = _read(api, namespace, kind, name)
        return known[kind, name]

    return environment_of(pod, found, read)


def _read(api: HttpKubeApi, namespace: str, kind: str, name: str) -> Mapping[str, str] | str | None:
    try:
        return values_of(kind, api.get(kind, namespace, name))
    except ObjectMissing:
        return None
    except KtError as error:
        return str(error)


def _ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def write_files(environment: Environment, *, plain: str | None, as_json: str | None) -> list[str]:
    """For other programs; readable for this user only: there may be secrets in it. What could not be written, in words.

    Raises:
        HostRefused: a file cannot be written.
    """
    said: list[str] = []
    if plain is not None:
        text, several = env_file(environment.values)
        _write(plain, text)
        said += [f"{name} has several lines, which an environment file cannot have: left out" for name in several]
    if as_json is not None:
        _write(as_json, json.dumps(environment.values, indent=2, sort_keys=True) + "\n")
    return said


def _write(file: str, text: str) -> None:
    path = Path(file)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as written:
                written.write(text)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise HostRefused(f"cannot write {file}", why=str(error), next_step="name another file") from error
