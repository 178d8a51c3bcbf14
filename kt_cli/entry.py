"""The console script: what must be true before anything else is imported.

Not here: the commands (kt_cli.main).
"""

import signal


def run() -> None:
    """`ktctl`.

    Until a command takes the signals over there is nothing to undo, so Ctrl-C simply ends the process.
    Python's own handler would raise KeyboardInterrupt instead, which is lost when it falls into a callback
    of the import system: the command then goes on as if nothing had been said.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not when the parent has us ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kt_cli.main import app

    app()
