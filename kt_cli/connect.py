"""`ktctl connect`.

Not here: connecting (kt_net.session.connect).
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from kt_cli import flags
from kt_cli.background import in_background
from kt_cli.output import Printer
from kt_cli.running import StopSwitch, guarded, hold


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """The flags of this command alone, as given."""

    session: flags.Session
    dns_mode: str
    cluster_domains: str
    domains: str
    longest_kept: float | None
    ingress: str
    included: str
    excluded: str
    pods: bool
    routed: bool


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
    dns_mode: Annotated[
        str,
        typer.Option(
            "--dns-mode",
            "--dnsMode",
            metavar="MODE",
            help="localDNS[:ORDER]: names that may be the cluster's or not, in ORDER cluster,upstream or upstream,cluster; "
            "podDNS: the cluster is asked for every name; hosts[:NAMESPACES]: Services in the hosts file, no resolver",
        ),
    ] = "localDNS",
    cluster_domain: Annotated[
        str,
        typer.Option(
            "--cluster-domain",
            "--clusterDomain",
            metavar="NAMES",
            help="of the cluster's names (default: as pods have it)",
        ),
    ] = "",
    include_domains: Annotated[
        str,
        typer.Option(
            "--include-domains",
            "--includeDomains",
            metavar="NAMES",
            help="domains whose names the cluster is asked as well",
        ),
    ] = "",
    dns_cache_ttl: Annotated[
        float | None,
        typer.Option(
            "--dns-cache-ttl",
            "--dnsCacheTtl",
            metavar="SECONDS",
            min=0,
            help="the cluster's answers are kept at most (default 60)",
        ),
    ] = None,
    ingress_ip: Annotated[
        str,
        typer.Option(
            "--ingress-ip", "--ingressIp", metavar="ADDRESSES", help="where the hosts of Ingress objects are reached"
        ),
    ] = "",
    include_ips: Annotated[
        str,
        typer.Option("--include-ips", "--includeIps", metavar="CIDRS", help="reached through the cluster as well"),
    ] = "",
    exclude_ips: Annotated[
        str,
        typer.Option(
            "--exclude-ips", "--excludeIps", metavar="CIDRS", help="left alone, also inside of the cluster's ranges"
        ),
    ] = "",
    disable_pod_ip: Annotated[
        bool,
        typer.Option("--disable-pod-ip", "--disablePodIp", help="reach Services only, not pods by their addresses"),
    ] = False,
    disable_tun_route: Annotated[
        bool,
        typer.Option(
            "--disable-tun-route", "--disableTunRoute", help="make the device and no routes but the resolver's"
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="of this connection, for one beside another (default: default)"),
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="end when connected, and stay connected; see status, logs, disconnect")
    ] = False,
    state_dir: flags.StateDir = None,
) -> None:
    """Reach pods, Services and names of the cluster from this machine, until Ctrl-C. Needs root for its helper (by sudo)."""
    given = flags.of(context).merged(
        kubeconfig=kubeconfig, context=kube_context, namespace=namespace, image=image, output=output, debug=debug
    )
    given.set_up_logging()
    printer = Printer("connect", given.form)
    asked = _Asked(
        flags.Session(pod_creation_timeout, idle_exit, carrier),
        dns_mode,
        cluster_domain,
        include_domains,
        dns_cache_ttl,
        ingress_ip,
        include_ips,
        exclude_ips,
        not disable_pod_ip,
        not disable_tun_route,
    )

    def run(detach: Callable[[], None] | None) -> int:
        return guarded(printer, given.debug, lambda: _connect(given, printer, asked, state_dir, name, detach))

    raise typer.Exit(in_background(run, name) if background else run(None))


def _connect(
    given: flags.Globals,
    printer: Printer,
    asked: _Asked,
    state_dir: str | None,
    name: str | None,
    detach: Callable[[], None] | None,
) -> int:
    from kt_net.host.client import HostHelper
    from kt_net.host.privilege import become_invoker
    from kt_net.session.connect import ConnectOptions, ConnectSession
    from kt_net.session.control import ControlServer
    from kt_net.session.home import DEFAULT_NAME, Claim, check_name

    name = check_name(DEFAULT_NAME if name is None else name)
    state_dir = flags.state_folder(state_dir)
    names, ranges = _chosen(asked)
    with StopSwitch().installed() as switch:
        helper = HostHelper.start(state_dir, printer.step)
        try:
            for lacking in become_invoker():
                if given.debug:
                    print(
                        f"note: {lacking} is not set here; sudo may have dropped it (sudo --preserve-env={lacking})",
                        file=sys.stderr,
                    )
            claim = Claim(name)
        except BaseException:
            helper.close()
            raise
        options = ConnectOptions(session_options(given, asked.session), names, ranges, state_dir, name)
        session = ConnectSession(options, printer.step, helper, claim.tell)
        control = ControlServer(
            {
                "status": lambda request: _status(session),
                "disconnect": lambda request: _stop(switch),
                "capture": session.capture,
                "dns": lambda request: _dns(session, str(request.get("name", "")), str(request.get("kind", ""))),
            },
            name,
        )

        def ready() -> None:
            stats = session.stats()
            this = "" if name == DEFAULT_NAME else f" --name {name}"
            end = f"in the background; see ktctl logs{this}, end with" if detach else "end with Ctrl-C or"
            printer.result(
                f"connected; {end} ktctl disconnect{this}",
                state="connected",
                **(dataclasses.asdict(stats) if stats else {}),
            )
            if detach is not None:
                detach()
                printer.stamp()

        try:
            code = hold(switch, session, printer, ready)
        finally:
            control.close()
            claim.release()
        printer.result("disconnected", state="disconnected")
        return code


def _chosen(asked: _Asked):  # type: ignore[no-untyped-def]
    """`NameOptions` and `RangeChoice` from flags; imported late.

    Raises:
        UsageFault: a flag makes no sense.
    """
    from kt_net.dns.resolver import LONGEST_KEPT
    from kt_net.dns.routing import mode_of
    from kt_net.kube.ranges import RangeChoice, parse_addresses, parse_prefixes
    from kt_net.session.names import NameOptions

    names = NameOptions(
        mode=mode_of(asked.dns_mode),
        cluster_domains=flags.words(asked.cluster_domains),
        domains=flags.words(asked.domains),
        longest_kept=LONGEST_KEPT if asked.longest_kept is None else asked.longest_kept,
        ingress=parse_addresses(flags.words(asked.ingress), "--ingress-ip"),
    )
    ranges = RangeChoice(
        included=parse_prefixes(flags.words(asked.included), "--include-ips"),
        excluded=parse_prefixes(flags.words(asked.excluded), "--exclude-ips"),
        pods=asked.pods,
        routed=asked.routed,
    )
    return names, ranges


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
    return {
        "pid": os.getpid(),
        "stats": dataclasses.asdict(stats) if stats is not None else None,
    }


def _dns(session, name: str, kind: str) -> dict[str, object]:  # type: ignore[no-untyped-def]
    from kt_net.errors import MalformedMessage

    try:
        return {"steps": session.explain(name, kind)}
    except MalformedMessage as error:
        return {"error": error.why or error.what}


def _stop(switch: StopSwitch) -> dict[str, object]:
    import signal

    # As a signal, so that it also interrupts a connection that is only being brought up.
    os.kill(os.getpid(), signal.SIGTERM)
    return {"pid": os.getpid()}
