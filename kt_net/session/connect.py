"""This machine becomes part of the cluster.

Order of start: helper (it may ask for a password), cluster and permissions, shadow pod beside the questions about ranges, tunnel, host
plan and stack beside the first probes. Order of undo: this machine's DNS and routes first, then the tunnel, then the cluster's objects.

Not here: printing; `progress` is told each step's result in words.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kt_net.addr import IPAddress, IPPrefix
from kt_net.dns.resolver import Resolver
from kt_net.drivers.beats import Beats
from kt_net.drivers.clock import monotonic, wall
from kt_net.drivers.device import DeviceDriver
from kt_net.drivers.names import MachineNames
from kt_net.drivers.tap import Taps
from kt_net.errors import HostChanged, HostRefused, KtError, ObjectMissing
from kt_net.host.client import DEFAULT_STATE, Applied, HostHelper, replay_leftovers
from kt_net.host.neighbours import MOST, free_interface
from kt_net.host.plan import RESOLVER_CANDIDATES, HostPlan, free_address, plan_host
from kt_net.host.reroute import Range, Situation
from kt_net.host.resolvconf import ResolvConf, parse_resolv_conf
from kt_net.host.routes import Route, read_routes
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.config import Cluster, load_cluster
from kt_net.kube.permissions import require
from kt_net.kube.ranges import ClusterRanges, RangeChoice, detect_ranges, namespace_names
from kt_net.relay.relay import MachineQuestion, Relay
from kt_net.session.capture import Captures
from kt_net.session.cluster_hosts import ClusterHosts
from kt_net.session.control import Answer
from kt_net.session.control import Stream as ControlStream
from kt_net.session.engine import Engine, Progress, SessionOptions
from kt_net.session.growth import PODS, SERVICES, Growth
from kt_net.session.home import DEFAULT_NAME, devices
from kt_net.session.names import NameOptions, Names
from kt_net.session.probes import FirstProbes, kubernetes_service, targets
from kt_net.session.route_keeper import RouteKeeper
from kt_net.stack import Stack, StackConfig
from kt_net.stats import AgentStats, SessionStats, TunnelStats
from kt_net.tun.linux import TunDevice

logger = logging.getLogger(__name__)

#: Of the device: what the way to the cluster's own links usually has; programs see segments as they would on a network.
MTU = 1500
#: Between two signs of life for the helper, which waits for three seconds.
BEAT_SECONDS = 1.0
#: For the loop to begin with what stands on it.
LOOP_SECONDS = 10.0
#: Looks at a machine that another connection, or another program, is changing at the same moment; and seconds between two.
MOST_LOOKS = 5
AGAIN_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """See `SessionOptions`; where the helper keeps its journal; and what this user calls the connection."""

    session: SessionOptions
    names: NameOptions
    ranges: RangeChoice
    state_folder: str = DEFAULT_STATE
    name: str = DEFAULT_NAME


class ConnectSession:
    """One connection. `start` brings it up, `close` undoes all of it; both in the thread that made it.

    Args:
        has_device: told which device it has, before it is there.
    """

    def __init__(
        self,
        options: ConnectOptions,
        progress: Progress,
        helper: HostHelper,
        has_device: Callable[[str], None] = lambda interface: None,
    ) -> None:
        self._options = options
        self._progress = progress
        self._helper = helper
        self._has_device = has_device
        self._engine: Engine | None = None
        self._stack: Stack | None = None
        self._driver: DeviceDriver | None = None
        self._plan: HostPlan | None = None
        self._names: Names | None = None
        self._hosts: ClusterHosts | None = None
        self._started = monotonic()
        self._since = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(wall()))
        self._captures: Captures | None = None
        self._route_keeper: RouteKeeper | None = None
        self._growth: Growth | None = None
        self._closing = threading.Lock()
        self._closed = False

    # -- up

    def start(self) -> None:
        """Bring everything up.

        Raises:
            KtError: whatever was in the way; `close` undoes what was done.
        """
        options = self._options.session
        for line in self._helper.replay():
            self._progress(f"left by an earlier run: {line}")
        cluster = load_cluster(kubeconfig=options.kubeconfig, context=options.context, namespace=options.namespace)
        api = HttpKubeApi(cluster)
        self._engine = engine = Engine(cluster, api, options)
        engine.progress = self._progress
        require(api, cluster.namespace, carrier=options.carrier)
        self._progress(f"cluster {cluster.name} at {cluster.server}, namespace {cluster.namespace}")
        self._hosts = self._options.names.followed_hosts(api, cluster.namespace)
        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="ktctl-start") as pool:
            asked: Future[ClusterRanges] = pool.submit(detect_ranges, api, cluster.namespace)
            names = pool.submit(namespace_names, api, cluster.namespace)
            service = pool.submit(kubernetes_service, api)
            self._check_namespace(api, cluster)
            shadow = engine.start_shadow()
            ranges = asked.result()
            self._progress(f"pod CIDR {_words(ranges.pods)} (from {ranges.pods_from})")
            self._progress(f"service CIDR {_words(ranges.services)} (from {ranges.services_from})")
            self._progress(f"shadow pod {shadow.pod}")
            for lost in shadow.lost:
                self._progress(f"without {lost}")
            report = engine.connect(self._summary)
            self._progress(f"tunnel to agent {report.get('agent', '?')}")
            pod_dns = parse_resolv_conf(str(report.get("resolv_conf", "")))
            probes = FirstProbes(engine.loop, engine.switchboard, self._progress)
            probes.start(targets(pod_dns.nameservers, self._options.names.domains_of(pod_dns)[0], service.result()))
            self._join(engine, ranges, names.result(), pod_dns)
            probes.say()

    @staticmethod
    def _check_namespace(api: HttpKubeApi, cluster: Cluster) -> None:
        """A namespace that is not there gets a better answer than "cannot create Job"."""
        try:
            api.get("Namespace", "", cluster.namespace)
        except ObjectMissing as error:
            raise ObjectMissing(
                f"there is no namespace {cluster.namespace}", next_step="name another with --namespace"
            ) from error
        except KtError:
            pass  # reading it may be forbidden; creating the Job will tell

    def _join(self, engine: Engine, ranges: ClusterRanges, namespaces: list[str], pod_dns: ResolvConf) -> None:
        """Plan this machine's part, have the helper do it, and put the stack between device and tunnel."""
        for look in range(MOST_LOOKS):
            try:
                routes, names, plan, applied = self._apply(engine, ranges, namespaces, pod_dns)
                break
            except HostChanged:
                if look == MOST_LOOKS - 1:
                    raise
                time.sleep(AGAIN_SECONDS)
        self._names, self._plan = names, plan
        device = TunDevice(applied.descriptor, name=plan.interface, mtu=MTU, offload=True)
        for route in applied.skipped:
            self._progress(f"without route {route}: this machine has IPv6 switched off")
        names.start(self._put_together(engine, device, names, pod_dns))
        self._keep_routes(engine, ranges, names, routes, {4} if applied.skipped else {4, 6})
        self._progress(f"device {plan.interface}, {len(plan.routes)} routes")
        names.say()

    def _apply(
        self, engine: Engine, ranges: ClusterRanges, namespaces: list[str], pod_dns: ResolvConf
    ) -> tuple[list[Route], Names, HostPlan, Applied]:
        """One look at this machine, and the plan that came of it in force.

        Raises:
            HostChanged: it was another machine by then.
        """
        chosen = self._options.ranges
        prefixes, routes = chosen.of(ranges), read_routes()
        interface = free_interface(name for _, name in socket.if_nameindex())
        if not interface:
            raise HostRefused(
                f"{MOST} connections are there already", next_step="end one: ktctl disconnect --name NAME"
            )
        resolver = free_address(RESOLVER_CANDIDATES, prefixes, routes)
        names = Names(
            engine,
            self._helper,
            self._options.names,
            self._progress,
            ranges=ranges,
            namespaces=namespaces,
            pod_dns=pod_dns,
            interface=interface,
            address=resolver,
            routes=routes,
            hosts=self._hosts,
            own_changed=self._resolvers_changed,
        )
        plan = plan_host(
            interface=interface,
            mtu=MTU,
            offload=True,
            prefixes=prefixes,
            excluded=chosen.excluded,
            routed=chosen.routed,
            holes=_holes(engine.cluster.addresses(), names.own_resolvers, routes),
            routes=routes,
            resolver=resolver,
            names=names.way(),
            owners=devices(),
        )
        self._has_device(interface)
        return routes, names, plan, self._helper.apply(plan)

    def _resolvers_changed(self) -> None:
        if self._route_keeper is not None:
            self._route_keeper.look("other resolvers")

    def _keep_routes(
        self,
        engine: Engine,
        ranges: ClusterRanges,
        names: Names,
        routes: list[Route],
        versions: set[int],
    ) -> None:
        """Follow the cluster's ranges and this machine's routes from now on."""
        chosen, api_server = self._options.ranges, engine.cluster.addresses()
        reached = [Range(SERVICES, one) for one in ranges.services]
        reached += [Range("included", one) for one in chosen.included]
        reached += [Range(PODS, one) for one in ranges.pods] if chosen.pods else []
        keeper = RouteKeeper(
            self._helper,
            Situation(
                ranges=tuple(reached if chosen.routed else ()),
                excluded=chosen.excluded,
                resolver=ipaddress.ip_address(names.address),
                holes=frozenset(_holes(api_server, names.own_resolvers, routes)),
                routes=tuple(routes),
                versions=frozenset(versions),
            ),
            interface=names.interface,
            holes=lambda now: _holes(api_server, names.own_resolvers, now),
            progress=self._progress,
        )
        known = ranges.all()

        def grown(kind: str, prefixes: list[IPPrefix]) -> None:
            keeper.grow(kind, prefixes)
            known.extend(prefixes)
            engine.loop.call_soon(lambda: names.ranges_are(known))

        self._route_keeper = keeper
        keeper.start()

        def changed(why: str) -> None:
            keeper.look(why)
            names.look()

        engine.lanes.changed = changed
        if chosen.routed:
            self._growth = Growth(engine.api, engine.cluster.namespace, ranges, pods=chosen.pods, grown=grown)

    def _put_together(self, engine: Engine, device: TunDevice, names: Names, pod_dns: ResolvConf) -> MachineNames:
        config, address = StackConfig(), ipaddress.ip_address(names.address)
        if address.version == 4:
            config = dataclasses.replace(config, hop_v4=address.packed)
        stack = Stack(entropy=os.urandom, mtu=MTU, offload=True, config=config)
        relay = Relay(
            stack=stack,
            switchboard=engine.switchboard,
            resolver=names.resolver,
            resolver_address=address.packed,
        )
        relay.use_cluster_dns(pod_dns.nameservers)
        done = threading.Event()
        machines: list[MachineNames] = []

        def on_loop() -> None:
            loop = engine.loop
            machine = MachineNames(
                loop, names.own_resolvers, lambda ask, data: relay.receive_outcome(ask, data, now=loop.now())
            )
            machines.append(machine)

            def pump(now: float) -> None:
                relay.pump(now=now)
                while (event := relay.next_event()) is not None:
                    if isinstance(event, MachineQuestion):
                        machine.ask(event, now=now)
                    else:
                        engine.session_event(event)

            engine.pump = pump
            _QuietTimers(loop, names.resolver)
            _QuietTimers(loop, relay)
            Beats(loop, self._helper.beat, seconds=BEAT_SECONDS)
            self._driver = DeviceDriver(loop, device, stack)
            self._captures = Captures(loop, Taps(loop, self._driver, wall))
            done.set()

        self._stack = stack
        engine.loop.call_soon(on_loop)
        if not done.wait(LOOP_SECONDS):
            raise engine.failure()
        return machines[0]

    # -- while it runs

    def wait(self, stop: threading.Event) -> None:
        """Until `stop` is set.

        Raises:
            KtError: the connection ended by itself.
        """
        if self._engine is not None:
            self._engine.wait(stop, self._check_helper)

    def _check_helper(self) -> None:
        if not self._helper.alive:
            raise HostRefused("the host helper was killed")

    def stats(self) -> SessionStats | None:
        """A snapshot; None before it is up. From any thread: a moment's inexactness does not matter."""
        engine, stack, plan, names = self._engine, self._stack, self._plan, self._names
        if engine is None or stack is None or plan is None or names is None or engine.shadow is None:
            return None
        now = engine.loop.now()
        counters = engine.lanes.stats()
        flows = stack.flow_stats(now=now)
        return SessionStats(
            cluster=engine.cluster.name,
            namespace=engine.cluster.namespace,
            pod=engine.shadow.pod,
            device=plan.interface,
            routes=tuple(map(str, plan.routes if self._route_keeper is None else self._route_keeper.routed())),
            resolver=names.address,
            names_by=names.by,
            search=names.search,
            connected_s=now - self._started,
            flows_open=len(flows),
            flows_total=engine.switchboard.opened_total,
            tunnel=TunnelStats(
                counters.streams,
                counters.octets_sent,
                counters.octets_received,
                counters.rtt_s,
                engine.lanes.count,
                engine.carrier,
            ),
            flows=flows,
            since=self._since,
            cluster_domains=names.domains,
            namespaces=len(names.resolver.namespaces),
            agent=_agent(engine.report),
            name=self._options.name,
            server=engine.cluster.server,
        )

    def explain(self, name: str, kind: str) -> list[dict[str, Any]]:
        """See `Names.explain`; nothing before it is up. Not on the loop's thread.

        Raises:
            MalformedMessage: this cannot be asked.
        """
        return [] if self._names is None else self._names.explain(name, kind)

    def capture(self, request: Mapping[str, Any]) -> Answer | ControlStream:
        """See `Captures.ask`."""
        return {"state": "starting"} if self._captures is None else self._captures.ask(request)

    def _summary(self) -> Mapping[str, Any]:
        stats = self.stats()
        if stats is None:
            return {}
        return {
            "flows": stats.flows_open,
            "sent": stats.tunnel.octets_sent,
            "received": stats.tunnel.octets_received,
            "since_s": int(stats.connected_s),
        }

    # -- down

    def close(self) -> list[str]:
        """Undo everything; what was undone, and what could not be, in words. A second call does nothing."""
        with self._closing:
            if self._closed:
                return []
            self._closed = True
        said: list[str] = []
        for part in (self._captures, self._growth, self._route_keeper, self._names or self._hosts):
            if part is not None:
                part.close()
        if self._engine is not None and self._driver is not None:
            self._engine.loop.call_soon(self._driver.detach)
        said += self._restore_machine()
        if self._engine is not None:
            said += [f"cluster: {error}" for error in self._engine.close()]
        self._helper.close()
        return said

    def _restore_machine(self) -> list[str]:
        try:
            return self._helper.undo()
        except KtError as error:
            failed = error
        try:
            return replay_leftovers(
                self._options.state_folder, may_ask=False
            )  # the helper is dead, but not its journal
        except KtError:
            return [f"this machine: {failed}; run: sudo ktctl disconnect"]


class _QuietTimers:
    """The timers of a quiet part on the loop; its events are moved by the relay's pump."""

    def __init__(self, loop: Any, quiet: Resolver | Relay) -> None:
        self._quiet = quiet
        loop.add(self)

    def pump(self, *, now: float) -> None:
        """Nothing of its own."""

    def next_timer(self) -> float | None:
        """See `Part`."""
        return self._quiet.next_timer()

    def handle_timer(self, *, now: float) -> None:
        """See `Part`."""
        self._quiet.handle_timer(now=now)


def _agent(report: Mapping[str, Any]) -> AgentStats:
    """What the agent's hello tells; what it does not tell, or not in our words, is left out."""
    families, ping = report.get("families"), report.get("ping")
    return AgentStats(
        version=str(report.get("agent", "")),
        families=tuple(str(family) for family in families) if isinstance(families, list) else (),
        ping=tuple(sorted(str(family) for family, works in ping.items() if works)) if isinstance(ping, dict) else (),
    )


def _holes(api_server: list[IPAddress], nameservers: tuple[str, ...], routes: list[Route]) -> list[IPAddress]:
    """What must stay reached as it is: the API server, this machine's resolvers, its gateways."""
    holes = set(api_server)
    holes |= {ipaddress.ip_address(server.partition("%")[0]) for server in nameservers}
    holes |= {route.gateway for route in routes if route.gateway is not None}
    return sorted(holes, key=lambda address: (address.version, int(address)))


def _words(prefixes: tuple[IPPrefix, ...]) -> str:
    return ", ".join(map(str, prefixes)) or "unknown; name it with --include-ips"
