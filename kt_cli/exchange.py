"""`ktctl exchange`.

Not here: exchanging (kt_net.session.exchange).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from kt_cli import flags
from kt_cli.output import Printer
from kt_cli.running import StopSwitch, guarded, hold


class Mode(StrEnum):
    """How callers come here."""

    selector = "selector"
    scale = "scale"


def exchange(
    context: typer.Context,
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="svc/X, a plain name, deployment/X or statefulset/X")
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
    """Callers of a Service reach a program of this machine instead, until Ctrl-C. Needs no root."""
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
                recover_wait=recover_wait,
                proxy_protocol=proxy_protocol,
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
    **wishes: Any,
) -> int:
    from kt_cli.connect import session_options
    from kt_net.session import exchange_target
    from kt_net.session.exchange import ExchangeSession, ExchangeWish, sessions_of

    with StopSwitch().installed() as switch:
        options = session_options(given, asked)

        def make(target: str, ports: tuple[str, ...]) -> ExchangeSession:
            wish = ExchangeWish(target, ports, mode=exchange_target.Mode(mode), **wishes)
            return ExchangeSession(options, printer.step, wish)

        exchanges = sessions_of(targets, exposes, make)

        def ready() -> None:
            services = [{"service": one.where, "ports": one.ports, "nets": one.nets} for one in exchanges.sessions]
            names = " and ".join(one.where for one in exchanges.sessions)
            leads = "leads" if len(services) == 1 else "lead"
            printer.result(f"{names} {leads} here; end with Ctrl-C", state="ready", services=services)

        code = hold(switch, exchanges, printer, ready)
        printer.result("", state="ended")
        return code
