"""`ktctl doctor`.

Not here: checks and what they mean (kt_net.session.doctor).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import guarded

#: Of the columns "how it is" and "which check".
LEVEL_WIDTH, CHECK_WIDTH = 8, 21


def doctor(
    context: typer.Context,
    kubeconfig: flags.Kubeconfig = None,
    kube_context: flags.Context = None,
    namespace: flags.Namespace = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
    state_dir: flags.StateDir = None,
) -> None:
    """Say what is wrong with this machine, the way to the cluster or the rights there, and what to do. Changes nothing."""
    given = flags.of(context).merged(
        kubeconfig=kubeconfig, context=kube_context, namespace=namespace, output=output, debug=debug
    )
    given.set_up_logging()
    printer = Printer("doctor", given.form)
    raise typer.Exit(guarded(printer, given.debug, lambda: _doctor(given, printer, state_dir)))


def _doctor(given: flags.Globals, printer: Printer, state_dir: str | None) -> int:
    from kt_net.errors import ProblemsFound
    from kt_net.findings import Level
    from kt_net.host.machine import look_at_machine
    from kt_net.host.privilege import become_invoker
    from kt_net.session.doctor import Asked, examine

    # The undo journals are root's; everything after them is the user's own: kubeconfig, plugins, the running connection.
    machine = look_at_machine(flags.state_folder(state_dir))
    become_invoker()
    findings = []
    for finding in examine(Asked(given.kubeconfig, given.context, given.namespace), machine):
        findings.append(finding)
        if not printer.is_json:
            print(_text(finding), flush=True)
    levels = Counter(finding.level for finding in findings)
    words = ", ".join(f"{levels[level]} {level}" for level in Level if levels[level])
    checks: list[dict[str, Any]] = [
        {"check": one.check, "level": one.level, "found": one.found, "next": one.next_step} for one in findings
    ]
    if levels[Level.problem]:
        count = levels[Level.problem]
        return printer.error(ProblemsFound(f"{count} problem{'s' * (count > 1)} found", why=words), checks=checks)
    printer.result(words, checks=checks)
    return OK


def _text(finding: Any) -> str:
    line = f"{finding.level:<{LEVEL_WIDTH}} {finding.check:<{CHECK_WIDTH}} {finding.found}"
    return f"{line}\n{'':<{LEVEL_WIDTH}} {'':<{CHECK_WIDTH}} next: {finding.next_step}" if finding.next_step else line
