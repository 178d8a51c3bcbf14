"""`ktctl dns`.

Not here: asking (kt_net.session.explain).
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import guarded


def dns(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="as a program would say it; with a final dot: as it is")],
    kind: Annotated[str, typer.Argument(metavar="[TYPE]", help="A, AAAA, SRV, PTR, ...")] = "A",
    connection: flags.Name = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
) -> None:
    """Explain where a name goes while connected: who is asked, who answers."""
    given = flags.of(context).merged(output=output, debug=debug)
    given.set_up_logging()
    printer = Printer("dns", given.form)
    raise typer.Exit(guarded(printer, given.debug, lambda: _dns(printer, name, kind, connection)))


def _dns(printer: Printer, name: str, kind: str, connection: str | None) -> int:
    from kt_net.errors import NotConnected, ObjectMissing, UsageFault
    from kt_net.session.control import ask
    from kt_net.session.home import meant

    answer = ask("dns", meant(connection), name=name, kind=kind)
    if "error" in answer:
        raise UsageFault(f"{name} {kind} cannot be asked for", why=str(answer["error"]))
    steps = answer.get("steps")
    if not isinstance(steps, list) or not steps:
        raise NotConnected("the connection is only being brought up", next_step="ask again when it is there")
    last = steps[-1]
    if not printer.is_json:
        print(_text(steps, kind.upper()), flush=True)
    if not last["records"]:
        raise ObjectMissing(
            f"{name} has no {kind.upper()} record",
            why=f"the last answer was {last['code']}",
            next_step="look above who was asked; names of Services are NAME.NAMESPACE",
        )
    printer.result("", name=name, type=kind.upper(), steps=steps)
    return OK


def _text(steps: list[dict[str, Any]], kind: str) -> str:
    lines = []
    for step in steps:
        lines.append(f"{step['name']} {kind}")
        if step["kept"]:
            lines.append("  kept from an earlier question")
        for asked in step["trail"]:
            lines.append(
                f"  {asked['who']} ({asked['server']}) asked for {asked['name']}: {asked['outcome']}, "
                f"{asked['records']} records, {asked['seconds'] * 1000:.1f} ms"
            )
        lines += [f"  -> {record}" for record in step["records"]] or [f"  -> {step['code']}"]
    return "\n".join(lines)
