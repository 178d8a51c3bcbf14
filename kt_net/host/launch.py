"""How the host helper is started, as a decision over a described machine. Pure.

Root starts it directly. Anybody else has sudo start it: the installed one when it is there, is root's and is of this version, else the
one of this installation. Each is tried without a question first.

Not here: starting it (client.py); what is installed (installed.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_net.errors import PrivilegeMissing
from kt_net.host.helper import DEFAULT_STATE
from kt_net.host.installed import Installed, State


@dataclass(frozen=True, slots=True)
class Machine:
    """What the decision depends on.

    Attributes:
        root: whether this process is.
        invoker: the user behind sudo, when this process is root by it; else 0.
        sudo: whether there is such a program.
        python: the interpreter that runs us.
        helper: the helper's file of this installation.
        installed: the one that `ktctl helper install` puts on the machine.
    """

    root: bool
    invoker: int
    sudo: bool
    python: str
    helper: str
    installed: Installed


@dataclass(frozen=True, slots=True)
class Launch:
    """One way to start the helper.

    Attributes:
        asks: whether a password may be asked for.
    """

    arguments: tuple[str, ...]
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Ways to start it, to be tried in this order, and what the user should know about them.

    Attributes:
        note: why the installed helper is not used; "" when there is nothing to say.
    """

    launches: tuple[Launch, ...]
    note: str = ""


def choose(machine: Machine, *, state_folder: str = DEFAULT_STATE, replay: bool = False) -> Choice:
    """How to start the helper there.

    Args:
        replay: to undo what dead helpers left instead of serving.

    Raises:
        PrivilegeMissing: neither root nor sudo; or somebody who is not root wants another state folder.
    """
    wanted = ("--replay",) if replay else ()
    own = (machine.python, "-I", machine.helper)
    if machine.root:
        user = ("--user", str(machine.invoker)) if machine.invoker and not replay else ()
        return Choice((Launch((*own, "--state-dir", state_folder, *user, *wanted)),))
    if not machine.sudo:
        raise PrivilegeMissing("root is needed for the TUN device, routes and DNS", why="there is no sudo here")
    if state_folder != DEFAULT_STATE:
        raise PrivilegeMissing(
            f"only root chooses the state folder {state_folder}",
            why="a journal in it says what is undone as root",
            next_step="leave --state-dir and KT_STATE_DIR out, or run it with sudo",
        )
    program: tuple[str, ...] = own
    note = ""
    if machine.installed.state is State.CURRENT:
        program = (machine.installed.path,)
    elif machine.installed.state is not State.ABSENT:
        note = f"the installed helper is not used: {machine.installed.why}; next: sudo ktctl helper install"
    return Choice(
        (
            Launch(("sudo", "-n", "--", *program, *wanted)),
            Launch(("sudo", "--", *program, *wanted), asks=True),
        ),
        note,
    )
