"""`ktctl status`.

Not here: counting (kt_net.stats has the snapshot).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import Stopped, StopSwitch, guarded

#: Flows shown as text; JSON has all.
MOST_FLOWS = 20
#: Between two looks of --watch.
WATCH_SECONDS = 1.0

_SIZES = ("KiB", "MiB", "GiB", "TiB")


def status(
    context: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="go on until Ctrl-C, or until the connection ends")
    ] = False,
    name: flags.Name = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
) -> None:
    """Say what is connected: routes, names, tunnel, flows; of all connections, unless one is named."""
    given = flags.of(context).merged(output=output, debug=debug)
    given.set_up_logging()
    printer = Printer("status", given.form)
    raise typer.Exit(guarded(printer, given.debug, lambda: _watch(printer, name) if watch else _status(printer, name)))


def _status(printer: Printer, name: str | None) -> int:
    from kt_net.session.control import ask
    from kt_net.session.home import connections, meant

    names = connections() if name is None else []
    if len(names) < 2:
        _print(printer, ask("status", meant(name)))
        return OK
    for number, one in enumerate(names):
        if number and not printer.is_json:
            print()
        _print(printer, ask("status", one))
    return OK


def _print(printer: Printer, answer: Mapping[str, Any]) -> None:
    stats = answer.get("stats")
    if isinstance(stats, dict):
        printer.result(text_of(stats), state="connected", pid=answer.get("pid"), **stats)
    else:
        printer.result("being connected", state="starting", pid=answer.get("pid"))


# -- while it changes


def _watch(printer: Printer, name: str | None) -> int:
    """A screen that is drawn again, an object a second, or without a terminal a block whenever something has changed."""
    from kt_net.session.control import ask
    from kt_net.session.home import meant

    name = meant(name)
    answers = _answers(ask("status", name), name)  # that nothing is connected is an error here, and the end later
    with StopSwitch().installed():
        try:
            if printer.is_json:
                for answer in answers:
                    _print(printer, answer)
            elif sys.stdout.isatty():
                _draw(answers)
            else:
                _tell_changes(printer, answers)
        except Stopped:
            return OK
    printer.result("the connection has ended", state="ended")
    return OK


def _answers(first: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    """One a second, until the connection has ended."""
    from kt_net.errors import NotConnected
    from kt_net.session.control import ask
    from kt_net.session.home import is_claimed

    yield first
    while True:
        time.sleep(WATCH_SECONDS)
        try:
            answer = ask("status", name)
        except NotConnected:
            if is_claimed(name):
                continue  # stopped, or busy ending
            return
        yield answer


def _draw(answers: Iterator[Mapping[str, Any]]) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(Text(""), auto_refresh=False) as live:
        for answer in answers:
            stats = answer.get("stats")
            text = text_of(stats) if isinstance(stats, dict) else "being connected"
            live.update(Text(f"{text}\n{time.strftime('%H:%M:%S')}, every second; end with Ctrl-C"), refresh=True)


def _tell_changes(printer: Printer, answers: Iterator[Mapping[str, Any]]) -> None:
    seen: object = None
    for answer in answers:
        stats = answer.get("stats")
        what = what_counts(stats) if isinstance(stats, dict) else "being connected"
        if what != seen:
            if seen is not None and not printer.is_json:
                print()
            _print(printer, answer)
        seen = what


def what_counts(stats: Mapping[str, Any]) -> dict[str, Any]:
    """What of a snapshot is a change when it is another one: not time that passes, nor the tunnel's pings."""
    left_out = {"connected_s", "tunnel", "flows"}
    kept = {name: value for name, value in stats.items() if name not in left_out}
    kept["lanes"] = [stats["tunnel"]["lanes"], stats["tunnel"]["carrier"]]
    kept["flows"] = [
        [flow[name] for name in ("protocol", "source", "destination", "state", "octets_up", "octets_down")]
        for flow in stats["flows"]
    ]
    return kept


# -- words


def text_of(stats: Mapping[str, Any]) -> str:
    """A snapshot for people to read."""
    tunnel = stats["tunnel"]
    rtt = "not measured yet" if tunnel["rtt_s"] is None else f"{tunnel['rtt_s'] * 1000:.1f} ms"
    lanes = f"{tunnel['lanes']} lane{'s' * (tunnel['lanes'] != 1)}"
    cluster = f"{stats['cluster']}{_named(stats['name'])}, namespace {stats['namespace']}"
    lines = [
        f"connected to {cluster}, for {_span(stats['connected_s'])} (since {stats['since']})",
        f"shadow pod {stats['pod']}{_agent_text(stats['agent'])}",
        f"tunnel {lanes} of form {tunnel['carrier']}, round trip {rtt}, "
        f"{size(tunnel['octets_sent'])} sent, {size(tunnel['octets_received'])} received",
        f"device {stats['device']}, routes {', '.join(stats['routes'])}",
        f"names by {stats['resolver']} ({stats['names_by']}): {' '.join(stats['cluster_domains'])} and {stats['namespaces']} namespaces; "
        f"search {' '.join(stats['search'])}",
        f"{stats['flows_open']} flows open, {stats['flows_total']} in all",
    ]
    for flow in stats["flows"][:MOST_FLOWS]:
        state = f" {flow['state']}" if flow["state"] else ""
        lines.append(
            f"  {flow['protocol']} {flow['source']} -> {flow['destination']}{state} "
            f"up {size(flow['octets_up'])} down {size(flow['octets_down'])}"
        )
    if len(stats["flows"]) > MOST_FLOWS:
        lines.append(f"  and {len(stats['flows']) - MOST_FLOWS} more")
    return "\n".join(lines)


def _named(name: str) -> str:
    from kt_net.session.home import DEFAULT_NAME

    return "" if name in ("", DEFAULT_NAME) else f" as {name}"


def _agent_text(agent: Mapping[str, Any] | None) -> str:
    if agent is None:
        return ""
    ping = f"ping {' '.join(agent['ping'])}" if agent["ping"] else "no ping"
    return f": agent {agent['version']}, {' '.join(agent['families'])}, {ping}"


def size(octets: int) -> str:
    """Octets in the unit that leaves a small number (IEC 80000-13)."""
    number, unit = float(octets), "B"
    for larger in _SIZES:
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{octets} B" if unit == "B" else f"{number:.1f} {unit}"


def _span(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
