"""`ktctl forward`.

Not here: forwarding (kt_net.session.forward).
"""

from __future__ import annotations

from typing import Annotated

import typer

from kt_cli import flags
from kt_cli.output import Printer
from kt_cli.running import StopSwitch, guarded, hold


def forward(
    context: typer.Context,
    pod: Annotated[str, typer.Argument(metavar="POD", help="name of a pod")],
    port: Annotated[str, typer.Argument(metavar="PORT", help="LOCAL[:REMOTE]; a local port of 0 takes any free one")],
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
    """One local port for one port of a pod, until Ctrl-C. Needs no root."""
    given = flags.of(context).merged(
        kubeconfig=kubeconfig, context=kube_context, namespace=namespace, image=image, output=output, debug=debug
    )
    given.set_up_logging()
    printer = Printer("forward", given.form)
    raise typer.Exit(
        guarded(
            printer,
            given.debug,
            lambda: _forward(given, printer, pod, port, flags.Session(pod_creation_timeout, idle_exit, carrier)),
        )
    )


def _forward(given: flags.Globals, printer: Printer, pod: str, port: str, asked: flags.Session) -> int:
    from kt_cli.connect import session_options
    from kt_net.session.forward import LOCAL_HOST, ForwardSession

    with StopSwitch().installed() as switch:
        session = ForwardSession(session_options(given, asked), printer.step, pod, port)

        def ready() -> None:
            printer.result(
                f"forwarding {LOCAL_HOST}:{session.port} to {pod}; end with Ctrl-C",
                state="ready",
                host=LOCAL_HOST,
                port=session.port,
            )

        code = hold(switch, session, printer, ready)
        printer.result("", state="ended")
        return code
