"""`ktctl logs`.

Not here: writing it (background.py, output.py).
"""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import guarded

#: Between two looks at a file that grows.
LOOK_SECONDS = 0.2


def logs(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until Ctrl-C")] = False,
    name: flags.Name = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
) -> None:
    """Say what has happened to a connection in the background."""
    given = flags.of(context).merged(output=output, debug=debug)
    printer = Printer("logs", given.form)
    raise typer.Exit(guarded(printer, given.debug, lambda: _logs(printer, follow, name)))


def _logs(printer: Printer, follow: bool, name: str | None) -> int:
    from kt_net.errors import NotConnected
    from kt_net.session.home import log_file, meant

    try:
        file = open(log_file(meant(name)), encoding="utf-8", errors="replace")  # noqa: SIM115 - closed below
    except OSError as error:
        raise NotConnected(
            "no connection has been in the background",
            why=str(error),
            next_step="start one: ktctl connect --background",
        ) from error
    with file:
        if printer.is_json and not follow:
            printer.result("", lines=file.read().splitlines())
            return OK
        while True:
            text = file.read()
            if text:
                sys.stdout.write(text)
                sys.stdout.flush()
            elif not follow:
                return OK
            elif os.fstat(file.fileno()).st_nlink == 0:
                return OK  # another connection writes another one
            else:
                time.sleep(LOOK_SECONDS)
