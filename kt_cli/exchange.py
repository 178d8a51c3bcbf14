"""`ktctl exchange`.

Not here: exchanging (kt_net.session.exchange).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from kt_cli import flags
from kt_cli.output import Printer
from kt_cli.running import StopSwitch, guarded, hold

#: Where the words behind `--` are kept.
PROGRAM = "ktctl.program"


class WithProgram(TyperCommand):
    """`ktctl exchange TARGET ... -- PROGRAM WORDS...`: what stands behind `--` is not ours to understand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without the program."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[PROGRAM] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


class Mode(StrEnum):
    """How callers come here."""

    selector = "selector"
    scale = "scale"
    ephemeral = "ephemeral"


def exchange(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help="svc/X, a plain name, deployment/X, statefulset/X; pod/X (ephemeral)"),
    ],
    expose: Annotated[
        list[str],
        typer.Option(
            "--expose",
            metavar="[HOST:]LOCAL[:REMOTE][/udp]",
            help="a port here, and the Service's by number, name or target port (default: the same); "
            "TARGET=LOCAL:REMOTE where there are several targets",
        ),
    ],
    mode: Annotated[Mode, typer.Option("--mode", help="how callers come here")] = Mode.selector,
    recover_wait: Annotated[
        float,
        typer.Option(
            "--recover-wait-time",
            "--recoverWaitTime",
            metavar="SECONDS",
            min=0,
            max=3600,
            help="with --mode scale: for the original pods to be ready, at the end",
        ),
    ] = 120.0,
    drain: Annotated[
        float, typer.Option("--drain", metavar="SECONDS", min=0, max=3600, help="for callers to finish, at the end")
    ] = 10.0,
    proxy_protocol: Annotated[
        bool, typer.Option("--proxy-protocol", help="TCP begins with the caller's address (PROXY protocol v2)")
    ] = False,
    env_file: Annotated[
        str | None,
        typer.Option("--env-file", metavar="FILE", help="write the original's environment, NAME=VALUE a line"),
    ] = None,
    env_json: Annotated[
        str | None, typer.Option("--env-json", metavar="FILE", help="write the original's environment as JSON")
    ] = None,
    container: Annotated[
        str, typer.Option("--container", metavar="NAME", help="whose environment (default: the one with the port)")
    ] = "",
    kubeconfig: flags.Kubeconfig = None,
    kube_context: flags.Context = None,
    namespace: flags.Namespace = None,
    image: flags.Image = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
    pod_creation_timeout: flags.PodTimeout = None,
    idle_exit: flags.IdleExit = None,
    carrier: flags.Carrier = flags.CarrierForm.auto,
) -> None:
    """Callers of a Service reach a program of this machine instead, until Ctrl-C. Needs no root.

    A program behind `--` is run with the original container's environment; when it ends the exchange does, with its exit code.
    """
    given = flags.of(context).merged(
        kubeconfig=kubeconfig, context=kube_context, namespace=namespace, image=image, output=output, debug=debug
    )
    given.set_up_logging()
    printer = Printer("exchange", given.form)
    asked = flags.Session(pod_creation_timeout, idle_exit, carrier)
    # KT Connect takes several behind one flag, with commas.
    exposes = [word for text in expose for word in flags.words(text)]
    raise typer.Exit(
        guarded(
            printer,
            given.debug,
            lambda: _exchange(
                given,
                printer,
                targets,
                exposes,
                asked,
                mode=mode.value,
                drain=drain,
                program=context.meta.get(PROGRAM),
                env_file=env_file,
                env_json=env_json,
                recover_wait=recover_wait,
                proxy_protocol=proxy_protocol,
                container=container,
            ),
        )
    )


def _exchange(
    given: flags.Globals,
    printer: Printer,
    targets: list[str],
    exposes: list[str],
    asked: flags.Session,
    *,
    mode: str,
    program: list[str] | None,
    env_file: str | None,
    env_json: str | None,
    **wishes: Any,
) -> int:
    from kt_cli.connect import session_options
    from kt_net.errors import UsageFault
    from kt_net.session import exchange_wish
    from kt_net.session.exchange import ExchangeSession, session_for, sessions_of
    from kt_net.session.exchange_guests import GuestsSession
    from kt_net.session.program import ProgramSession, write_files

    wanted = program is not None or env_file is not None or env_json is not None
    if wanted and len(targets) > 1:
        raise UsageFault("an environment is that of one target", why=f"there are {len(targets)}")
    if program == []:
        raise UsageFault("there is no program behind --")

    with StopSwitch().installed() as switch:
        options = session_options(given, asked)

        def make(target: str, ports: tuple[str, ...]) -> ExchangeSession | GuestsSession:
            mode_of = exchange_wish.Mode(mode)
            wish = exchange_wish.ExchangeWish(target, ports, mode=mode_of, environment=wanted, **wishes)
            return session_for(options, printer.step, wish, switch.stop)

        exchanges = sessions_of(targets, exposes, make)
        first = exchanges.sessions[0]
        running = None if program is None else ProgramSession(exchanges, program, lambda: first.environment.values)

        def ready() -> None:
            for line in write_files(first.environment, plain=env_file, as_json=env_json):
                printer.step(line)
            services = [{"service": one.where, "ports": one.ports, "nets": one.nets} for one in exchanges.sessions]
            names = " and ".join(one.where for one in exchanges.sessions)
            leads = "leads" if len(services) == 1 else "lead"
            end = "Ctrl-C" if program is None else f"the end of {program[0]}"
            printer.result(f"{names} {leads} here; ends with {end}", state="ready", services=services)

        code = hold(switch, running or exchanges, printer, ready)
        if running is not None and running.code is not None:
            code = running.code
        printer.result("", state="ended", **({} if running is None else {"code": code}))
        return code
