"""`ktctl preview`.

Not here: previewing (kt_net.session.preview).
"""

from __future__ import annotations

from typing import Annotated

import typer

from kt_cli import flags
from kt_cli.output import Printer
from kt_cli.running import StopSwitch, guarded, hold


def preview(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the Service that is made")],
    expose: Annotated[
        list[str],
        typer.Option(
            "--expose", metavar="[HOST:]LOCAL[:REMOTE][/udp]", help="a port here, and the Service's (default: the same)"
        ),
    ],
    external: Annotated[bool, typer.Option("--external", help="reachable from outside: type LoadBalancer")] = False,
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
    """Ports of this machine as a new Service of the cluster, until Ctrl-C. Needs no root."""
    given = flags.of(context).merged(
        kubeconfig=kubeconfig, context=kube_context, namespace=namespace, image=image, output=output, debug=debug
    )
    given.set_up_logging()
    printer = Printer("preview", given.form)
    asked = flags.Session(pod_creation_timeout, idle_exit, carrier)
    # KT Connect takes several behind one flag, with commas.
    exposes = tuple(word for text in expose for word in flags.words(text))
    raise typer.Exit(
        guarded(
            printer,
            given.debug,
            lambda: _preview(given, printer, name, exposes, asked, external=external, proxy_protocol=proxy_protocol),
        )
    )


def _preview(
    given: flags.Globals,
    printer: Printer,
    name: str,
    exposes: tuple[str, ...],
    asked: flags.Session,
    *,
    external: bool,
    proxy_protocol: bool,
) -> int:
    from kt_cli.connect import session_options
    from kt_net.session.preview import PreviewSession, PreviewWish

    with StopSwitch().installed() as switch:
        wish = PreviewWish(name, exposes, external=external, proxy_protocol=proxy_protocol)
        session = PreviewSession(session_options(given, asked), printer.step, wish)

        def ready() -> None:
            printer.result(
                f"{session.where} leads here; end with Ctrl-C",
                state="ready",
                service=session.where,
                addresses=session.addresses,
                ports=session.ports,
            )

        code = hold(switch, session, printer, ready)
        printer.result("", state="ended")
        return code
