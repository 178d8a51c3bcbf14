"""`ktctl connect`.

Not here: connecting (kt_net.session.connect).
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Annotated

import typer

from kt_cli import flags
from kt_cli.output import Printer
from kt_cli.running import StopSwitch, guarded, hold


def connect(
    context: typer.Context,
    kubeconfig: flags.Kubeconfig = None,
    kube_context: flags.Context = None,
    namespace: flags.Namespace = None,
    image: flags.Image = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
    pod_creation_timeout: flags.PodTimeout = None,
    idle_exit: flags.IdleExit = None,
    carrier: flags.Carrier = flags.CarrierForm.auto,
    state_dir: Annotated[
        str | None,
        typer.Option("--state-dir", metavar="DIR", help="where the host helper keeps its undo journal", hidden=True),
    ] = None,
) -> None:
    """Reach pods, Services and names of the cluster from this machine, until Ctrl-C. Needs root for its helper (by sudo)."""
    given = flags.of(context).merged(
        kubeconfig=kubeconfig, context=kube_context, namespace=namespace, image=image, output=output, debug=debug
    )
    given.set_up_logging()
    printer = Printer("connect", given.form)
    raise typer.Exit(
        guarded(
            printer,
            given.debug,
            lambda: _connect(given, printer, flags.Session(pod_creation_timeout, idle_exit, carrier), state_dir),
        )
    )


def _connect(given: flags.Globals, printer: Printer, asked: flags.Session, state_dir: str | None) -> int:
    from kt_net.host.client import DEFAULT_STATE, HostHelper
    from kt_net.host.privilege import become_invoker
    from kt_net.session.control import ControlServer
    from kt_net.session.home import Claim

    state_dir = state_dir or os.environ.get("KT_STATE_DIR") or DEFAULT_STATE
    with StopSwitch().installed() as switch:
        helper = HostHelper.start(state_dir)
        try:
            for name in become_invoker():
                if given.debug:
                    print(
                        f"note: {name} is not set here; sudo may have dropped it (sudo --preserve-env={name})",
                        file=sys.stderr,
                    )
            claim = Claim()
        except BaseException:
            helper.close()
            raise
        session = _session(given, printer, asked, state_dir, helper)
        control = ControlServer(
            {
                "status": lambda: _status(session),
                "disconnect": lambda: _stop(switch),
            }
        )

        def ready() -> None:
            stats = session.stats()
            printer.result(
                "connected; end with Ctrl-C or ktctl disconnect",
                state="connected",
                **(dataclasses.asdict(stats) if stats else {}),
            )

        try:
            code = hold(switch, session, printer, ready)
        finally:
            control.close()
            claim.release()
        printer.result("disconnected", state="disconnected")
        return code


def _session(  # type: ignore[no-untyped-def]  # ConnectSession is imported late
    given: flags.Globals,
    printer: Printer,
    asked: flags.Session,
    state_dir: str,
    helper,
):
    from kt_net.session.connect import ConnectOptions, ConnectSession

    options = ConnectOptions(session=session_options(given, asked), state_folder=state_dir)
    return ConnectSession(options, printer.step, helper)


def session_options(given: flags.Globals, asked: flags.Session):  # type: ignore[no-untyped-def]
    """`SessionOptions` from flags; imported late."""
    from kt_net.choreography.shadow import DEFAULT_IMAGE, IDLE_EXIT
    from kt_net.host.privilege import user_name
    from kt_net.session.engine import SessionOptions
    from shadow_image.bundle import build_zipapp

    return SessionOptions(
        agent=build_zipapp(),
        user=user_name(),
        kubeconfig=given.kubeconfig,
        context=given.context,
        namespace=given.namespace,
        image=given.image or DEFAULT_IMAGE,
        pod_seconds=asked.pod_seconds or 60.0,
        idle_exit=IDLE_EXIT if asked.idle_exit is None else asked.idle_exit,
        carrier="" if asked.carrier is flags.CarrierForm.auto else asked.carrier.value,
    )


def _status(session) -> dict[str, object]:  # type: ignore[no-untyped-def]
    stats = session.stats()
    return {"pid": os.getpid(), "stats": dataclasses.asdict(stats) if stats is not None else None}


def _stop(switch: StopSwitch) -> dict[str, object]:
    import signal

    # As a signal, so that it also interrupts a connection that is only being brought up.
    os.kill(os.getpid(), signal.SIGTERM)
    return {"pid": os.getpid()}
