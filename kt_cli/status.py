"""`ktctl status`.

Not here: counting (kt_net.stats has the snapshot).
"""

from __future__ import annotations

from typing import Any

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import guarded

#: Flows shown as text; JSON has all.
MOST_FLOWS = 20


def status(context: typer.Context, output: flags.Output = None, debug: flags.Debug = False) -> None:
    """Say what is connected: routes, names, tunnel, flows."""
    given = flags.of(context).merged(output=output, debug=debug)
    given.set_up_logging()
    printer = Printer("status", given.form)
    raise typer.Exit(guarded(printer, given.debug, lambda: _status(printer)))


def _status(printer: Printer) -> int:
    from kt_net.session.control import ask

    answer = ask("status")
    stats = answer.get("stats")
    if not isinstance(stats, dict):
        printer.result("being connected", state="starting", pid=answer.get("pid"))
        return OK
    printer.result(_text(stats), state="connected", pid=answer.get("pid"), **stats)
    return OK


def _text(stats: dict[str, Any]) -> str:
    tunnel = stats["tunnel"]
    rtt = "not measured yet" if tunnel["rtt_s"] is None else f"{tunnel['rtt_s'] * 1000:.1f} ms"
    lines = [
        f"connected to {stats['cluster']}, namespace {stats['namespace']}, for {stats['connected_s']:.0f} s",
        f"shadow pod {stats['pod']}, round trip {rtt}",
        f"device {stats['device']}, routes {', '.join(stats['routes'])}",
        f"names by {stats['resolver']}, search {' '.join(stats['search'])}",
        f"{tunnel['octets_sent']} octets sent, {tunnel['octets_received']} received",
        f"{stats['flows_open']} flows open, {stats['flows_total']} in all",
    ]
    for flow in stats["flows"][:MOST_FLOWS]:
        lines.append(
            f"  {flow['protocol']} {flow['source']} -> {flow['destination']} {flow['state']} "
            f"up {flow['octets_up']} down {flow['octets_down']}"
        )
    return "\n".join(lines)
