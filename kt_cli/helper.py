"""`ktctl helper install|status|uninstall`: the host helper as a file of root's, so that connecting needs no password.

Not here: the file (kt_net.host.installed), the rule (kt_net.host.sudoers).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Annotated, TypeAlias

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import guarded

app = typer.Typer(name="helper", help="Install the host helper, so that connecting needs no password.")

Prefix: TypeAlias = Annotated[
    str | None,
    typer.Option("--prefix", metavar="DIR", help="where, instead of /usr/local; connect looks in KT_HELPER_PREFIX"),
]


@app.command()
def install(
    context: typer.Context,
    prefix: Prefix = None,
    python: Annotated[
        str | None,
        typer.Option("--python", metavar="FILE", help="root's interpreter that runs it (default /usr/bin/python3)"),
    ] = None,
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="the rule's user (default: who calls sudo)")] = "",
    group: Annotated[str, typer.Option("--group", metavar="NAME", help="the rule's group, instead of a user")] = "",
    write_rule: Annotated[
        bool, typer.Option("--sudoers", help="write the rule to /etc/sudoers.d as well, instead of only printing it")
    ] = False,
    output: flags.Output = None,
    debug: flags.Debug = False,
) -> None:
    """Install the host helper as a file that only root can change, and print the sudoers rule that allows it. Needs root."""
    given = flags.of(context).merged(output=output, debug=debug)
    given.set_up_logging()
    printer = Printer("helper install", given.form)

    def run() -> int:
        return _install(printer, prefix, python, (user, group), write_rule)

    raise typer.Exit(guarded(printer, given.debug, run))


def _install(printer: Printer, prefix: str | None, python: str | None, whom: tuple[str, str], write_rule: bool) -> int:
    from kt_net.host import installed, sudoers

    user, group = whom
    if not user and not group:
        user = _caller()
    # Before anything is written.
    text = sudoers.rule(sudoers.subject(user, group), installed.helper_path(prefix or installed.default_prefix()))
    path = installed.install(prefix or installed.default_prefix(), python or installed.DEFAULT_PYTHON)
    printer.step(f"helper {path}")
    checked = sudoers.check(text)
    if write_rule:
        sudoers.write(text)
        printer.step(f"rule {sudoers.FILE}")
    elif not printer.is_json:
        how = "checked by visudo" if checked else "there is no visudo here to check it"
        print(f"the rule ({how}); write it with visudo -f {sudoers.FILE}, or run this again with --sudoers:\n")
        print(text)
    printer.result(
        "installed; ktctl connect uses it from now on",
        path=path,
        rule=text,
        checked=checked,
        written=sudoers.FILE if write_rule else None,
    )
    return OK


def _caller() -> str:
    """The user behind sudo, as sudoers has it."""
    from kt_net.errors import UsageFault
    from kt_net.host import sudoers

    name, number = os.environ.get("SUDO_USER", ""), os.environ.get("SUDO_UID", "0")
    if number == "0":
        return ""
    try:
        return sudoers.subject(name)
    except UsageFault:
        return f"#{number}"  # which is looked at again


@app.command()
def uninstall(
    context: typer.Context, prefix: Prefix = None, output: flags.Output = None, debug: flags.Debug = False
) -> None:
    """Remove the installed helper and the rule that --sudoers wrote. Needs root."""
    given = flags.of(context).merged(output=output, debug=debug)
    given.set_up_logging()
    printer = Printer("helper uninstall", given.form)
    raise typer.Exit(guarded(printer, given.debug, lambda: _uninstall(printer, prefix)))


def _uninstall(printer: Printer, prefix: str | None) -> int:
    from kt_net.host import installed, sudoers

    path = installed.helper_path(prefix or installed.default_prefix())
    gone = installed.uninstall(prefix or installed.default_prefix())
    rule_gone = sudoers.remove()
    if gone:
        printer.step(f"{path} removed")
    if rule_gone:
        printer.step(f"{sudoers.FILE} removed")
    words = "uninstalled" if gone or rule_gone else "nothing was installed"
    printer.result(words, path=path, removed=gone, rule_removed=rule_gone)
    return OK


@app.command()
def status(
    context: typer.Context, prefix: Prefix = None, output: flags.Output = None, debug: flags.Debug = False
) -> None:
    """Say whether a helper is installed, whether connect uses it, and whether sudo allows it without a password."""
    given = flags.of(context).merged(output=output, debug=debug)
    given.set_up_logging()
    printer = Printer("helper status", given.form)
    raise typer.Exit(guarded(printer, given.debug, lambda: _status(printer, prefix)))


def _status(printer: Printer, prefix: str | None) -> int:
    from kt_net.host import installed

    found = installed.look(prefix or installed.default_prefix())
    allowed = found.state is installed.State.CURRENT and _allowed(found.path)
    words = {
        installed.State.ABSENT: f"{found.path} is not there; next: sudo ktctl helper install",
        installed.State.STALE: f"not used: {found.why}; next: sudo ktctl helper install",
        installed.State.UNSAFE: f"not used: {found.why}; next: make that root's alone, then sudo ktctl helper install",
        installed.State.CURRENT: f"{found.path} is of this version",
    }[found.state]
    printer.step(words)
    if found.state is installed.State.CURRENT:
        printer.step("sudo starts it without a password" if allowed else "sudo would ask for a password")
    printer.result("", path=found.path, state=found.state.value, why=found.why, without_password=allowed)
    return OK


def _allowed(path: str) -> bool:
    """Whether this user starts it without a question: it says that there is no client, and ends."""
    if os.geteuid() == 0:
        return True
    if shutil.which("sudo") is None:
        return False
    said = subprocess.run(["sudo", "-n", "--", path], capture_output=True, stdin=subprocess.DEVNULL, check=False).stdout
    return said.startswith(b'{"ok": false, "kind": "protocol"')
