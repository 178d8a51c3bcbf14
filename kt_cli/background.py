"""`--background`: the command ends when the session is there, and the session goes on without a terminal.

Not here: what the session does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from kt_cli.exits import OK
from kt_cli.running import STOPPING

_READY = b"1"


def in_background(run: Callable[[Callable[[], None]], int], name: str | None) -> int:
    """`run` in a child process; the exit code once it says that it is ready, or its own when it ends before.

    Args:
        name: of the connection, whose log it writes; None for the usual one.
        run: given what it has to call when it is ready: from then on it has no terminal, and says what happens to `log_file`.

    Before there are other threads only.
    """
    waits, tells = os.pipe()
    child = os.fork()
    if not child:
        os.close(waits)
        return run(lambda: _detach(tells, name))
    os.close(tells)
    for number in STOPPING:
        # Who ends the command before it is ready means the session, and wants to see it undone.
        signal.signal(number, lambda received, frame: os.kill(child, received))
    if os.read(waits, 1) == _READY:
        return OK
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _detach(tells: int, name: str | None) -> None:
    from kt_net.session.home import DEFAULT_NAME, open_log

    log, nothing = open_log(name or DEFAULT_NAME), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for descriptor in (log, nothing):
        os.close(descriptor)
    os.setsid()
    os.write(tells, _READY)
    os.close(tells)
