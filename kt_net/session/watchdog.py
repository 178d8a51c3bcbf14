"""A process that outlives its client, and gives back what the client has taken when that dies without saying goodbye.

The client tells it on a pipe, a JSON object a line; the pipe's end without the word "done" is the client's death, however that came. A
client that is only stopped keeps the pipe open. It has a session of its own, so that what a terminal sends its programs does not reach it.

Run: `python -m kt_net.session.watchdog`, by `Watchdog`. Not here: what giving back is (kt_net.choreography.edits).
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, Any, Final

from kt_net.choreography.edits import GiveBack
from kt_net.choreography.records import FIELDS
from kt_net.errors import ApiUnreachable, KtError, RequestRefused
from kt_net.kube.api import HttpKubeApi, KubeApi
from kt_net.kube.config import load_cluster
from kt_net.kube.run import run_edit

logger = logging.getLogger(__name__)

#: Octets of a line, and how many things one client holds.
MAX_LINE: Final = 16 * 1024
MAX_HELD: Final = 256
#: For as long the API server may be away; after that the agent's turn has come long since.
GIVE_UP_SECONDS: Final = 300.0
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
#: For it to end when it was told that all is done.
DONE_SECONDS: Final = 2.0


class Watchdog:
    """The client's end. It costs nothing when it cannot be: `alive` says so."""

    def __init__(self, *, kubeconfig: str | None, context: str | None, namespace: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._where = {"kubeconfig": kubeconfig, "context": context, "namespace": namespace}

    def start(self) -> None:
        """Have it there."""
        try:
            self._process = subprocess.Popen(
                # -P: no module of the folder that the user happens to be in.
                [sys.executable, "-P", "-m", "kt_net.session.watchdog"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            logger.warning("no watchdog: %s", error)
            return
        self._say(where=self._where)

    @property
    def alive(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def hold(self, kind: str, name: str, session: str) -> None:
        """The session has, or is about to have, this object."""
        self._say(hold={"kind": kind, "name": name, "session": session})

    def job(self, name: str, uid: str) -> None:
        """A shadow pod's Job, which goes with the client."""
        self._say(job={"name": name, "uid": uid})

    def done(self) -> None:
        """All is given back: it may go."""
        self._say(done=True)
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(DONE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _say(self, **words: Any) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            logger.warning("the watchdog is gone: %s", error)


@dataclass(slots=True)
class Charge:
    """What a client has told.

    Attributes:
        held: (kind, name, session) in the order in which they were taken.
        jobs: (name, uid).
        done: nothing is to be given back.
    """

    where: dict[str, Any] | None = None
    held: list[tuple[str, str, str]] = field(default_factory=list)
    jobs: list[tuple[str, str]] = field(default_factory=list)
    done: bool = False

    def receive_line(self, line: bytes) -> None:
        """What one line says; what makes no sense says nothing: nobody is there to complain to."""
        try:
            words = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(words, dict):
            return
        where, hold, job = words.get("where"), words.get("hold"), words.get("job")
        if isinstance(where, dict):
            self.where = where
        if isinstance(hold, dict) and hold.get("kind") in FIELDS and len(self.held) < MAX_HELD:
            self._remember(self.held, (str(hold["kind"]), str(hold.get("name")), str(hold.get("session"))))
        if isinstance(job, dict) and len(self.jobs) < MAX_HELD:
            self._remember(self.jobs, (str(job.get("name")), str(job.get("uid"))))
        self.done = self.done or words.get("done") is True

    @staticmethod
    def _remember(found: list[Any], one: Any) -> None:
        if one not in found:
            found.append(one)


def listen(lines: IO[bytes], charge: Charge) -> None:
    """Until the client is gone, or says that all is done."""
    while not charge.done and (line := lines.readline(MAX_LINE)):
        charge.receive_line(line)


def give_back(api: KubeApi, namespace: str, charge: Charge) -> Iterable[str]:
    """All of it, last first, then the shadow pods; what could not be yet, in words: it may be tried again."""
    for kind, name, session in reversed(charge.held):
        try:
            run_edit(api, kind, namespace, name, GiveBack(session))
        except (ApiUnreachable, RequestRefused) as error:
            yield str(error)
        except KtError as error:
            logger.warning("%s %s: %s", kind, name, error)  # no permission any more, or not understood: not by us
    for name, uid in charge.jobs:
        try:
            api.delete("Job", namespace, name, uid=uid)
        except (ApiUnreachable, RequestRefused) as error:
            yield str(error)
        except KtError as error:
            logger.warning("Job %s: %s", name, error)


def main() -> int:
    """Listen, and give back; 0 when nothing is left to do."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    charge = Charge()
    first = sys.stdin.buffer.readline(MAX_LINE)
    charge.receive_line(first)
    if charge.where is None:
        return 2
    try:
        # Now, while the client lives: credentials that a program gives may take their time.
        cluster = load_cluster(**{key: charge.where.get(key) for key in ("kubeconfig", "context", "namespace")})
    except (KtError, TypeError):
        return 2
    api = HttpKubeApi(cluster)
    listen(sys.stdin.buffer, charge)
    if charge.done:
        return 0
    limit, pause = time.monotonic() + GIVE_UP_SECONDS, FIRST_PAUSE
    while left := list(give_back(api, cluster.namespace, charge)):
        logger.warning("%s", left[0])
        if time.monotonic() > limit:
            return 1
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
