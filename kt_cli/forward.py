"""`ktctl forward`.

Not here: forwarding (kt_net.session.forward).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kt_cli import flags
from kt_cli.output import Printer
from kt_cli.running import StopSwitch, guarded, hold
from kt_net.addr import Endpoint

if TYPE_CHECKING:
    from kt_net.session.forward import ForwardSession


def forward(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="svc/X, pod/X, deployment/X, statefulset/X, X (a Service, else a pod), an address or name the cluster reaches, host/X",
        ),
    ],
    ports: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LOCAL[:REMOTE][/udp]]...",
            help="none: all that it has; a local port of 0 takes any free one; REMOTE may be a port's name",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="ADDRESS,...", help="to listen on (default: 127.0.0.1 and ::1)"),
    ] = None,
    balance: Annotated[
        bool, typer.Option("--balance", help="a Service's ready pods in turn, not its cluster address")
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
    """Local ports for those of a Service, pod, workload or host of the cluster, until Ctrl-C. Needs no root."""
    given = flags.of(context).merged(
        kubeconfig=kubeconfig, context=kube_context, namespace=namespace, image=image, output=output, debug=debug
    )
    given.set_up_logging()
    printer = Printer("forward", given.form)

    def run() -> int:
        from kt_cli.connect import session_options
        from kt_net.session.forward import ForwardSession

        session = ForwardSession(
            session_options(given, flags.Session(pod_creation_timeout, idle_exit, carrier)),
            printer.step,
            target,
            ports or (),
            addresses=flags.words(address or ""),
            balance=balance,
        )
        return _held(session, printer)

    raise typer.Exit(guarded(printer, given.debug, run))


def _held(session: ForwardSession, printer: Printer) -> int:
    def ready() -> None:
        lines, forwards = [], []
        for one in session.listening:
            where = " and ".join(str(Endpoint(address, one.port)) for address in one.addresses)
            lines.append(f"{where} -> {session.title} port {one.forward.shown}")
            forwards.append(
                {
                    "addresses": list(one.addresses),
                    "port": one.port,
                    "protocol": one.forward.protocol,
                    "remote": one.forward.shown,
                }
            )
        text = "\n".join((*lines, "forwarding; end with Ctrl-C"))
        printer.result(text, state="ready", target=session.title, forwards=forwards, port=session.listening[0].port)

    with StopSwitch().installed() as switch:
        code = hold(switch, session, printer, ready)
        printer.result("", state="ended")
        return code
