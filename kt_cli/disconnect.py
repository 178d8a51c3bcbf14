"""`ktctl disconnect`.

Not here: undoing (the connection does it itself; what a dead one left, the host helper).
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import guarded

#: For a running connection to undo and end.
SECONDS = 30.0


def disconnect(
    context: typer.Context,
    name: flags.Name = None,
    every: Annotated[bool, typer.Option("--all", help="all connections of this user")] = False,
    output: flags.Output = None,
    debug: flags.Debug = False,
    state_dir: flags.StateDir = None,
) -> None:
    """End a running connection, and restore what one that was killed left on this machine."""
    given = flags.of(context).merged(output=output, debug=debug)
    given.set_up_logging()
    printer = Printer("disconnect", given.form)
    raise typer.Exit(guarded(printer, given.debug, lambda: _disconnect(printer, name, every, state_dir)))


def _disconnect(printer: Printer, name: str | None, every: bool, state_dir: str | None) -> int:
    from kt_net.errors import NotConnected
    from kt_net.session.home import connections, is_claimed, meant

    ended = [one for one in (connections() if every else [meant(name)]) if is_claimed(one)]
    for one in ended:
        _end(printer, one)
    restored = flags.restore_machine(flags.state_folder(state_dir), printer.step)
    if not ended and not restored:
        raise NotConnected(
            "nothing is connected, and nothing is left on this machine of an earlier connection",
            why="what one that was killed has left in the cluster goes by itself within minutes",
        )
    printer.result("disconnected", ended=bool(ended), connections=ended, restored=restored)
    return OK


def _end(printer: Printer, name: str) -> None:
    from kt_net.errors import TunnelLost
    from kt_net.session.control import ask
    from kt_net.session.home import DEFAULT_NAME, is_claimed

    ask("disconnect", name)
    limit = time.monotonic() + SECONDS
    while is_claimed(name):
        if time.monotonic() > limit:
            raise TunnelLost("the connection does not end", next_step="end its process, then run this again")
        time.sleep(0.05)
    printer.step(f"the running connection{'' if name == DEFAULT_NAME else f' {name}'} has ended")
