"""The names of one connection: the resolver, the way that programs come to it, and what follows cluster and machine while it lasts.

Not here: where a name goes (kt_net.dns), which way there is on this machine (kt_net.host.naming), sockets (kt_net.drivers.names).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from kt_net.addr import IPAddress, IPPrefix
from kt_net.dns.resolver import Resolver
from kt_net.dns.routing import Mode, Order, Routing, Upstream
from kt_net.drivers.names import MachineNames
from kt_net.host.client import HostHelper
from kt_net.host.naming import MOST_DOMAINS, Hook, Way
from kt_net.host.neighbours import neighbours_of
from kt_net.host.plan import RESOLVER_CANDIDATES
from kt_net.host.resolvconf import ResolvConf
from kt_net.host.routes import Route
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.ranges import ClusterRanges
from kt_net.session.cluster_hosts import ClusterHosts, Hosts
from kt_net.session.directory import Directory
from kt_net.session.engine import Engine, Progress
from kt_net.session.explain import Explainer
from kt_net.session.name_keeper import NameKeeper, Resolvers, Wanted, begin

DEFAULT_DOMAIN: Final = "cluster.local"
#: For the names of Services to be known before "connected" is said, in hosts mode.
HOSTS_SECONDS: Final = 5.0
#: Addresses that a resolver of ours may have; never one to pass questions on to.
OUR_RESOLVERS: Final = tuple(map(str, RESOLVER_CANDIDATES))


@dataclass(frozen=True, slots=True)
class NameOptions:
    """How names are resolved.

    Attributes:
        cluster_domains: empty for the one that the pod's resolv.conf names.
        domains: more whose names the cluster's DNS is asked.
        longest_kept: seconds that an answer of the cluster is kept at most.
        ingress: where the hosts of Ingress objects are; nowhere when empty.
    """

    mode: Mode
    cluster_domains: tuple[str, ...]
    domains: tuple[str, ...]
    longest_kept: float
    ingress: tuple[IPAddress, ...] = ()

    def domains_of(self, pod_dns: ResolvConf) -> tuple[str, ...]:
        """The cluster's own."""
        return self.cluster_domains or (cluster_domain(pod_dns),)

    def followed_hosts(self, api: HttpKubeApi, namespace: str) -> ClusterHosts | None:
        """What a hosts file needs, followed from now on; None in other modes."""
        return None if self.mode.hosts is None else ClusterHosts(api, self.mode.hosts or (namespace,), own=namespace)


class Names:
    """See the module. Made before the plan, which needs `way`; at work from `start` until `close`.

    Args:
        pod_dns: resolv.conf of the shadow pod.
        interface: the device.
        address: of the resolver.
        routes: of this machine, which tell of other connections.
        hosts: see `NameOptions.followed_hosts`.
        own_changed: told that `own_resolvers` are others now; on a thread.

    Raises:
        HostRefused: names of this machine cannot come here; `HostChanged` when they may a moment later.
    """

    def __init__(
        self,
        engine: Engine,
        helper: HostHelper,
        options: NameOptions,
        progress: Progress,
        *,
        ranges: ClusterRanges,
        namespaces: list[str],
        pod_dns: ResolvConf,
        interface: str,
        address: IPAddress,
        routes: list[Route],
        hosts: ClusterHosts | None,
        own_changed: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._options = options
        self._progress = progress
        self._pod_dns = pod_dns
        self._hosts = hosts
        self._own_changed = own_changed
        self.interface = interface
        self.address = str(address)
        self.domains = options.domains_of(pod_dns)
        namespace = engine.cluster.namespace
        search = (f"{namespace}.svc.{self.domains[0]}", f"svc.{self.domains[0]}", self.domains[0])
        self._routing = Routing(
            cluster_domains=self.domains,
            namespace=namespace,
            namespaces=namespaces,
            prefixes=ranges.all(),
            domains=options.domains,
            order=options.mode.order,
        )
        self.resolver = Resolver(
            routing=self._routing,
            entropy=os.urandom,
            longest_kept=options.longest_kept,
            ingress=tuple(map(str, options.ingress)),
        )
        self.naming, leader = begin(
            helper, neighbours_of(routes, interface), hosts=options.mode.hosts is not None, ours=OUR_RESOLVERS
        )
        #: Of this machine, for what is not the cluster's.
        self.own_resolvers = self.naming.own.nameservers
        #: Of the cluster, for programs that search.
        self.search = () if self.naming.hook is Hook.HOSTS else search
        self._keeper = NameKeeper(
            helper,
            self.naming,
            Wanted(
                self.address,
                search,
                domains=self.resolver.routed,
                everything=options.mode.order is Order.CLUSTER_ONLY,
                hosts=self._known_hosts(),
            ),
            interface=interface,
            leader=leader,
            ours=OUR_RESOLVERS,
            resolvers=self._resolvers_are,
            progress=progress,
        )
        self._machine: MachineNames | None = None
        self._directory: Directory | None = None
        self._explainer: Explainer | None = None

    def way(self) -> Way | None:
        """How programs come to the resolver, for the plan; None when another connection asks it for them."""
        return self._keeper.way()

    def start(self, machine: MachineNames) -> None:
        """The plan is in force; `machine` asks this machine's own resolvers."""
        self._machine = machine
        own = self.naming.own
        self._explainer = Explainer(
            self._engine.loop,
            self.resolver,
            dataclasses.replace(own, search=(*self.search, *(one for one in own.search if one not in self.search))),
            {
                Upstream.CLUSTER: " ".join(self._pod_dns.nameservers),
                Upstream.MACHINE: " ".join(own.nameservers),
                Upstream.INGRESS: "--ingress-ip",
            },
        )
        self._keeper.start()
        self._directory = Directory(
            self._engine.loop,
            self._engine.api,
            self.resolver,
            namespace=self._engine.cluster.namespace,
            ingress=bool(self._options.ingress),
            changed=lambda: self._keeper.want(domains=self.resolver.routed),
        )
        hosts = self._hosts
        if hosts is not None:
            hosts.tell(lambda: self._keeper.want(hosts=hosts.now(self.domains[0])))

    def ranges_are(self, prefixes: list[IPPrefix]) -> None:
        """The cluster's ranges are these now; on the loop's thread."""
        self._routing.update_prefixes(prefixes)
        self._keeper.want(domains=self.resolver.routed)

    def look(self) -> None:
        """See `NameKeeper.look`."""
        self._keeper.look()

    @property
    def by(self) -> str:
        """By what names come here."""
        leader = self._keeper.leader
        return f"{self.naming.hook.value}, by the connection of {leader}" if leader else self.naming.hook.value

    def say(self) -> None:
        """In a line how names come to the resolver."""
        if self.naming.hook is Hook.HOSTS:
            self._progress("names of Services in the hosts file; resolvers are left alone")
            return
        if self._keeper.leader:
            self._progress(
                f"names by the connection of {self._keeper.leader}, which asks this one ({self.address}) too"
            )
            return
        self._progress(f"names by {self.address} ({self.naming.hook.value}), search {' '.join(self.search)}")
        more = len(self.resolver.routed) - MOST_DOMAINS
        if self.naming.hook is Hook.RESOLVED and more > 0:
            self._progress(f"{more} namespaces are more than systemd-resolved takes: their names need the search list")

    def explain(self, name: str, kind: str) -> list[dict[str, Any]]:
        """See `Explainer`; nothing before `start`. Not on the loop's thread.

        Raises:
            MalformedMessage: this cannot be asked.
        """
        return [] if self._explainer is None else self._explainer.explain(name, kind)

    def close(self) -> None:
        """Change nothing any more; before the plan is undone."""
        for part in (self._directory, self._hosts, self._keeper):
            if part is not None:
                part.close()

    def _known_hosts(self) -> Hosts:
        if self._hosts is None:
            return {}
        for lacking in self._hosts.wait(HOSTS_SECONDS):
            self._progress(f"without {lacking}: their names are not in the hosts file")
        return self._hosts.now(self.domains[0])

    def _resolvers_are(self, resolvers: Resolvers) -> None:
        if self.own_resolvers != resolvers.own:
            self.own_resolvers = resolvers.own
            self._own_changed()
        self._engine.loop.call_soon(partial(self._use, resolvers))

    def _use(self, resolvers: Resolvers) -> None:
        self.resolver.pass_on(bool(resolvers.neighbour))
        if self._machine is not None:
            self._machine.use(resolvers.own, resolvers.neighbour)
        if self._explainer is not None:
            servers = (f"{resolvers.neighbour} of another connection, then",) if resolvers.neighbour else ()
            self._explainer.servers[Upstream.MACHINE] = " ".join((*servers, *resolvers.own))


def cluster_domain(pod_dns: ResolvConf) -> str:
    """As the search list of a pod has it: svc.DOMAIN is in it."""
    for domain in pod_dns.search:
        if domain.startswith("svc."):
            return domain.removeprefix("svc.").rstrip(".")
    return DEFAULT_DOMAIN
