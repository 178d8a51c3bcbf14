"""A Service's callers reach a program here, for as long as this lasts; no root.

Order up: the shadow pod, the tunnel, the agent listens, the Service leads there. Down: the Service leads back, callers who are here are
waited for, then the shadow pod goes. What is done to the Service is an edit (kt_net.choreography.edits): whoever finds it half done
can bring it back, and it is taken again when somebody deploys it anew.

Not here: callers (inbound.py), ports and shapes (kt_net.choreography.exchange), whoever brings it back when this program cannot.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from kt_net.choreography.edits import GiveBack, Standing, TakeSelector, refuse_anothers, standing
from kt_net.choreography.exchange import Plan, matching, plan, pooled, ports_of, refuse_shape
from kt_net.choreography.names import ROLE_EXCHANGE, check_namespace, exchange_prefix
from kt_net.choreography.records import Selector, name_of, record_of
from kt_net.choreography.shadow import ShadowOptions
from kt_net.drivers.clock import monotonic
from kt_net.errors import GivenBack, KtError, ObjectMissing, UsageFault
from kt_net.forward.places import container_ports
from kt_net.forward.targets import Kind, Target, parse_target
from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.config import load_cluster
from kt_net.kube.follow import Followed, Key
from kt_net.kube.permissions import EXCHANGE_NEEDS, require
from kt_net.kube.run import run_edit
from kt_net.session.engine import Engine, Progress, SessionOptions
from kt_net.session.forward_target import SLICE_SERVICE
from kt_net.session.inbound import Inbound, check_listens, find_target
from kt_net.session.nets import Nets

logger = logging.getLogger(__name__)

#: For the Service's EndpointSlices to name the shadow pod, and to name it no more.
LEADS_SECONDS: Final = 15.0
LEFT_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.1
#: kube-proxy learns of EndpointSlices when we do, and writes its rules a moment later.
RULES_SECONDS: Final = 0.5
#: Nobody came for so long: callers may have connections of before.
QUIET_SECONDS: Final = 30.0
#: Before a Service that somebody has just written is written again.
AGAIN_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ExchangeWish:
    """What is asked for.

    Attributes:
        target: as written.
        exposes: as `--expose` has them.
        drain: seconds for callers to finish, at the end.
        proxy_protocol: TCP to local programs begins with the caller's address.
    """

    target: str
    exposes: tuple[str, ...]
    drain: float = DRAIN_SECONDS
    proxy_protocol: bool = False


class ExchangeSession:
    """One exchange. `start` brings it up, `close` undoes it."""

    def __init__(self, options: SessionOptions, progress: Progress, wish: ExchangeWish) -> None:
        self._options = options
        self._progress = progress
        self._wish = wish
        self._target = parse_target(wish.target)
        if self._target.kind in (Kind.HOST, Kind.POD):
            raise UsageFault(
                f"{wish.target} cannot be exchanged",
                why="only what a Service leads to can",
                next_step="name svc/X, deployment/X, statefulset/X or a plain name",
            )
        self._plan = Plan({})
        self._engine: Engine | None = None
        self._inbound: Inbound | None = None
        self._service: _Service | None = None
        self._nets: Nets | None = None
        self._stop = threading.Event()
        self._quiet_until = 0.0

    @property
    def where(self) -> str:
        """The Service and its namespace."""
        if self._service is None or self._engine is None:
            return self._wish.target
        return f"{self._service.name}.{self._engine.cluster.namespace}"

    @property
    def ports(self) -> list[dict[str, object]]:
        """What leads where, for people and scripts."""
        return [
            {"port": expose.remote, "protocol": expose.protocol, "target": expose.target} for expose in self._plan.ports
        ]

    @property
    def nets(self) -> list[str]:
        """Who brings it back, in order: "client", "watchdog", "agent"."""
        return self._nets.active if self._nets is not None else []

    def start(self) -> None:
        """Bring it up.

        Raises:
            KtError: whatever was in the way; `close` undoes what was done.
        """
        options = self._options
        cluster = load_cluster(kubeconfig=options.kubeconfig, context=options.context, namespace=options.namespace)
        api = HttpKubeApi(cluster)
        namespace = check_namespace(cluster.namespace)
        require(api, namespace, carrier=options.carrier, besides=EXCHANGE_NEEDS)
        self._progress(f"cluster {cluster.name} at {cluster.server}, namespace {namespace}")
        service = find_service(api, namespace, self._target)
        name = str(service["metadata"]["name"])
        self._engine = engine = Engine(
            cluster, api, options, role=ROLE_EXCHANGE, prefix=exchange_prefix(name), equip=self._equip
        )
        engine.progress = self._progress
        refuse_anothers(service, record_of(service), engine.target)
        self._plan = planned = plan_exchange(api, namespace, service, self._wish.exposes)
        targets = {expose: find_target(expose) for expose in planned.ports}
        for note in planned.notes:
            self._progress(f"service {name}: {note}")
        self._nets = nets = Nets(engine, options, (("Service", name),))
        engine.moved = nets.shadow
        self._inbound = inbound = Inbound(
            engine.loop,
            engine.switchboard,
            planned.ports,
            targets,
            proxy_protocol=self._wish.proxy_protocol,
            progress=self._progress,
        )
        shadow = engine.start_shadow()
        nets.shadow(shadow)
        self._progress(f"shadow pod {shadow.pod}")
        report = engine.connect(lambda: {"exchange": name, "callers": inbound.callers})
        self._progress(f"tunnel to agent {report.get('agent', '?')}")
        check_listens(report, planned.ports)
        inbound.start()
        inbound.wait_listening(engine.check)
        self._service = _Service(engine, service, self._progress)
        nets.hold()
        self._service.take()
        self._service.wait_leads_here()
        ports = ", ".join(f"{expose.remote} to {expose.target}" for expose in planned.ports)
        self._progress(f"service {name} leads here: {ports}")
        self._progress(nets.words)
        kept = pooled(port for port in ports_of(service) if any(port.number == e.remote for e in planned.ports))
        if kept:
            self._say_pooled(f"port {', '.join(kept)}")
        self._quiet_until = monotonic() + QUIET_SECONDS

    def _equip(self, options: ShadowOptions) -> ShadowOptions:
        planned = self._plan
        return replace(
            options,
            ports=planned.named,
            agent_port=planned.agent_port,
            low_ports=planned.low,
            nodes=planned.nodes,
            account=self._nets.account if self._nets is not None else None,
        )

    def _say_pooled(self, what: str) -> None:
        self._progress(
            f"{what}: connections that callers have already stay with the original pods, for Kubernetes does not move them; "
            "new ones come here. Restart the callers, if that has to be at once"
        )

    def wait(self, stop: threading.Event) -> None:
        """Until `stop` is set.

        Raises:
            GivenBack: somebody else has given the Service back.
            KtError: the connection ended by itself.
        """
        self._stop = stop
        if self._engine is None or self._service is None:
            return
        try:
            self._engine.wait(stop, self._check)
        except KtError:
            # Whoever gives the Service back ends the shadow pod as well: that is the news, not the tunnel.
            self._service.look()
            raise

    def _check(self) -> None:
        if self._service is not None:
            self._service.check()
        if self._quiet_until and self._inbound is not None:
            if self._inbound.ever:
                self._quiet_until = 0.0
            elif monotonic() > self._quiet_until:
                self._quiet_until = 0.0
                self._say_pooled(f"nobody has come for {QUIET_SECONDS:.0f} s")

    def close(self) -> list[str]:
        """Undo everything; what could not be, in words. Callers who are here have `drain` seconds; another signal ends that."""
        failed: list[KtError] = []
        self._stop.clear()
        if self._service is not None:
            failed += self._service.give_back()
            self._drain()
        if self._engine is not None:
            failed += self._engine.close()
        if self._inbound is not None:
            self._inbound.close()
        if self._nets is not None:
            self._nets.close(whole=not failed)
        return [f"cluster: {error}" for error in failed]

    def _drain(self) -> None:
        engine, inbound, service = self._engine, self._inbound, self._service
        if engine is None or inbound is None or service is None or not engine.loop.running:
            return
        # Whoever still knows the old way is taken until others know the new one.
        limit = monotonic() + LEFT_SECONDS
        while service.leads_here() and monotonic() < limit and not self._stop.wait(LOOK_SECONDS):
            pass
        self._stop.wait(RULES_SECONDS)
        inbound.stop()
        limit = monotonic() + self._wish.drain
        if inbound.callers:
            self._progress(f"{inbound.callers} callers are here; they have {self._wish.drain:g} s to finish")
        while inbound.callers and engine.loop.running and monotonic() < limit and not self._stop.wait(LOOK_SECONDS):
            pass


def find_service(api: HttpKubeApi, namespace: str, target: Target) -> Object:
    """The Service that is meant.

    Raises:
        ObjectMissing: there is no such thing.
        UsageFault: none, or several, lead to that workload.
    """
    if target.kind in (Kind.ANY, Kind.SERVICE):
        return {**api.get("Service", namespace, target.name), "kind": "Service"}
    workload = api.get(str(target.kind), namespace, target.name)
    template = (workload.get("spec") or {}).get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    found = matching(api.list("Service", namespace), labels)
    names = ", ".join(f"svc/{service['metadata']['name']}" for service in found)
    if len(found) != 1:
        raise UsageFault(
            f"{target} is behind {f'{len(found)} Services: {names}' if found else 'no Service'}",
            why="an exchange changes where one Service leads",
            next_step="name one of them" if found else "preview a Service of another name instead",
        )
    return {**found[0], "kind": "Service"}


def plan_exchange(api: HttpKubeApi, namespace: str, service: Object, exposes: tuple[str, ...]) -> Plan:
    """What is done, from the Service and what is behind it.

    Raises:
        UsageFault: it cannot be; see `kt_net.choreography.exchange.plan`.
    """
    refuse_shape(service)
    spec, name = service["spec"], str(service["metadata"]["name"])
    numbers: dict[str, int] = {}
    nodes: dict[str, None] = {}
    selector = ",".join(f"{key}={value}" for key, value in spec["selector"].items())
    for pod in api.list("Pod", namespace, selector=selector):
        for port in container_ports(pod.get("spec") or {}):
            numbers.setdefault(port.name, port.number)
        if (pod.get("status") or {}).get("phase") == "Running":
            nodes[str((pod.get("spec") or {}).get("nodeName"))] = None
    planned = plan(service, exposes, numbers=numbers)
    if "Local" in (spec.get("internalTrafficPolicy"), spec.get("externalTrafficPolicy")):
        planned = replace(planned, nodes=tuple(nodes))
    others = [
        str(other["metadata"]["name"])
        for other in api.list("Service", namespace)
        if other["metadata"]["name"] != name and (other.get("spec") or {}).get("selector") == spec["selector"]
    ]
    if others:
        note = f"the same pods are behind {', '.join(others)}, which still lead there"
        planned = replace(planned, notes=(*planned.notes, note))
    return planned


class _Service:
    """The Service in the cluster, from when it is taken to when it is given back."""

    def __init__(self, engine: Engine, service: Object, progress: Progress) -> None:
        self._engine = engine
        self._api = engine.api
        self._progress = progress
        self._namespace = engine.cluster.namespace
        self.name = str(service["metadata"]["name"])
        self._uid = str(service["metadata"]["uid"])
        self._was: Selector = service["spec"]["selector"]
        self._begun = False
        self._lock = threading.Lock()
        self._seen = threading.Event()
        self._followed: Followed[str] | None = None
        self._ended = threading.Event()
        self._failure: KtError | None = None
        self._thread = threading.Thread(target=self._keep, name="ktctl-service", daemon=True)

    def take(self) -> None:
        """It leads here, from now on whatever others do to it.

        Raises:
            Exchanged: somebody was quicker.
            KtError: the refusals of kt_net.kube.
        """
        with self._lock:
            self._begun = True
            self._take()
        self._followed = Followed(
            self._api,
            "Service",
            self._namespace,
            self._changed,
            keep=lambda found: str(found["metadata"]["resourceVersion"]),
            fields=f"metadata.name={self.name}",
        )
        self._thread.start()

    def _take(self, known: Selector | None = None) -> None:
        options = self._engine.up().options
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._api.server_time()))
        edit = TakeSelector(self._engine.target, options.user, since, known=known)
        taken = run_edit(self._api, "Service", self._namespace, self.name, edit)
        self._uid = str(taken["metadata"]["uid"])
        record = record_of(taken)
        if record is not None and isinstance(record.was, Mapping):
            self._was = record.was

    def wait_leads_here(self) -> None:
        """Until the cluster knows.

        Raises:
            KtError: the session is over.
        """
        limit = monotonic() + LEADS_SECONDS
        while not self.leads_here():
            self._engine.check()
            self.check()
            if monotonic() > limit:
                self._progress(
                    f"service {self.name}: its EndpointSlices do not name the shadow pod after {LEADS_SECONDS:g} s"
                )
                return
            self._ended.wait(LOOK_SECONDS)

    def leads_here(self) -> bool:
        """Whether an EndpointSlice of the Service names the shadow pod as ready."""
        pod = self._engine.up().pod
        try:
            slices = list(self._api.list("EndpointSlice", self._namespace, selector=f"{SLICE_SERVICE}={self.name}"))
        except KtError:
            return False
        return any(
            (end.get("targetRef") or {}).get("name") == pod and (end.get("conditions") or {}).get("ready") is not False
            for one in slices
            for end in one.get("endpoints") or ()
        )

    def check(self) -> None:
        """Nothing, while it is ours.

        Raises:
            KtError: it is not any more.
        """
        if self._failure is not None:
            raise self._failure

    # -- on threads

    def _changed(self, found: Mapping[Key, str]) -> None:
        self._seen.set()

    def _keep(self) -> None:
        """Look at it whenever it has changed, and take it again when somebody has deployed it anew."""
        gone = False
        while not self._ended.is_set():
            self._seen.wait()
            self._seen.clear()
            if self._ended.is_set():
                return
            try:
                live = self._live()
                state = standing(live, self._engine.target, self._uid)
                if state is Standing.CHANGED:
                    if self._ended.wait(AGAIN_SECONDS):
                        return
                    self._take_again()
                elif state in (Standing.GIVEN_BACK, Standing.ANOTHERS):
                    self._fail(self._given_back(state, live))
                elif state is Standing.GONE and not gone:
                    self._progress(f"service {self.name} is gone; it is taken again when somebody makes it anew")
                gone = state is Standing.GONE
            except KtError as error:
                if isinstance(error, GivenBack):
                    self._fail(error)
                    return
                logger.warning("service %s: %s", self.name, error)
                self._ended.wait(AGAIN_SECONDS)
                self._seen.set()

    def look(self) -> None:
        """Nothing, when it is ours as far as anybody knows.

        Raises:
            GivenBack: it is not any more.
        """
        self.check()
        try:
            live = self._live()
            state = standing(live, self._engine.target, self._uid)
        except KtError:
            return
        if state in (Standing.GIVEN_BACK, Standing.ANOTHERS):
            raise self._given_back(state, live)

    def _live(self) -> Object | None:
        try:
            return {**self._api.get("Service", self._namespace, self.name), "kind": "Service"}
        except ObjectMissing:
            return None

    def _take_again(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            before = self._was
            self._take(known=before)
        what = "with the same selector" if self._was == before else f"its selector is now {dict(self._was)}"
        self._progress(
            f"service {self.name} was deployed anew, {what}: that is what will be given back; it leads here again"
        )

    def _given_back(self, state: Standing, live: Object | None) -> GivenBack:
        if state is Standing.ANOTHERS and live is not None:
            record = record_of(live)
            return GivenBack(f"service {self.name} has been taken by {record.user if record else 'somebody'}")
        return GivenBack(
            f"service {self.name} has been given back",
            why="by ktctl recover, by whoever took this program for dead, or by writing it anew without our annotation",
        )

    def _fail(self, error: KtError) -> None:
        self._failure = error
        self._ended.set()

    # -- down

    def give_back(self) -> list[KtError]:
        """As it was; what could not be."""
        self._ended.set()
        self._seen.set()
        if self._followed is not None:
            self._followed.close()
        if not self._begun:
            return []
        with self._lock:
            try:
                edit = GiveBack(self._engine.target)
                given: Mapping[str, Any] = run_edit(self._api, "Service", self._namespace, self.name, edit)
            except KtError as error:
                return [error]
        if given:
            self._progress(f"{name_of(given)} leads to {dict((given.get('spec') or {}).get('selector') or {})} again")
        return []


class Exchanges:
    """Several, which begin and end together."""

    def __init__(self, sessions: list[ExchangeSession]) -> None:
        self._sessions = sessions

    @property
    def sessions(self) -> list[ExchangeSession]:
        """All of them."""
        return self._sessions

    def start(self) -> None:
        """One after the other.

        Raises:
            KtError: the first one's that could not be; `close` undoes all.
        """
        for session in self._sessions:
            session.start()

    def wait(self, stop: threading.Event) -> None:
        """Until `stop` is set.

        Raises:
            KtError: one has ended by itself.
        """
        ended: list[KtError] = []
        over = threading.Event()

        def wait(session: ExchangeSession) -> None:
            try:
                session.wait(stop)
            except KtError as error:
                ended.append(error)
            over.set()

        threads = [threading.Thread(target=wait, args=(session,), daemon=True) for session in self._sessions]
        for thread in threads:
            thread.start()
        over.wait()
        if ended:
            raise ended[0]

    def close(self) -> list[str]:
        """All of them, at the same time: each waits for its callers."""
        said: list[str] = []
        threads = [
            threading.Thread(target=lambda one=session: said.extend(one.close()), daemon=True)
            for session in self._sessions
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return said


def sessions_of(
    targets: list[str], exposes: list[str], make: Callable[[str, tuple[str, ...]], ExchangeSession]
) -> Exchanges:
    """One session for each target, with its own `--expose`s: TARGET=PORTS where there are several.

    Raises:
        UsageFault: an `--expose` of no target, or a target without one.
    """
    by_target: dict[str, list[str]] = {target: [] for target in targets}
    if len(by_target) < len(targets):
        raise UsageFault("one target is there twice")
    for text in exposes:
        target, equals, ports = text.rpartition("=")
        if not equals and len(targets) > 1:
            raise UsageFault(
                f"--expose {text}: of which target?", next_step=f"write --expose {targets[0]}={text}, for each of them"
            )
        if equals and target not in by_target:
            raise UsageFault(
                f"--expose {text}: {target} is not exchanged", next_step=f"name one of {', '.join(targets)}"
            )
        by_target[target or targets[0]].append(ports)
    for target, ports_given in by_target.items():
        if not ports_given:
            raise UsageFault(f"nothing is exposed for {target}", next_step="add --expose PORT")
    return Exchanges([make(target, tuple(ports_given)) for target, ports_given in by_target.items()])
