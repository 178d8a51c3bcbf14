"""A Service's callers reach a program here, for as long as this lasts; no root.

Order up: the shadow pod, the tunnel, the agent listens, then the one object of the user's is changed, so that callers come. Down: it is
given back, callers who are here are waited for, then the shadow pod goes. What is done to the object is an edit
(kt_net.choreography.edits): whoever finds it half done can bring it back.

Not here: callers (inbound.py), what is exchanged (exchange_target.py), the object (exchange_held.py), who gives it back when this program
cannot (nets.py).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from kt_net.choreography.edits import refuse_anothers
from kt_net.choreography.exchange import Plan, pooled, ports_of
from kt_net.choreography.names import CONTROL_BY, CONTROL_BY_KT, ROLE_EXCHANGE, check_namespace, exchange_prefix
from kt_net.choreography.owners import owners_of
from kt_net.choreography.records import name_of, record_of
from kt_net.choreography.scale import join_step, leave_step, template_labels
from kt_net.choreography.shadow import ShadowOptions, labels
from kt_net.drivers.clock import monotonic
from kt_net.errors import KtError, ObjectMissing, UsageFault
from kt_net.forward.targets import Kind, parse_target
from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.config import load_cluster
from kt_net.kube.environment import Environment
from kt_net.kube.permissions import EXCHANGE_NEEDS, SCALE_NEEDS, require
from kt_net.kube.policies import closed_to_callers
from kt_net.kube.run import run_step
from kt_net.kube.shadow import Shadow
from kt_net.session.engine import Engine, Progress, SessionOptions
from kt_net.session.exchange_guests import GuestsSession
from kt_net.session.exchange_held import Held
from kt_net.session.exchange_target import Found, find
from kt_net.session.exchange_wish import ExchangeWish, Mode
from kt_net.session.forward_target import SLICE_SERVICE
from kt_net.session.inbound import Inbound, check_listens, find_target
from kt_net.session.nets import Nets
from kt_net.session.program import read_environment

logger = logging.getLogger(__name__)

#: For EndpointSlices to name the shadow pod, to name nobody else, and to name it no more.
LEADS_SECONDS: Final = 15.0
ALONE_SECONDS: Final = 60.0
LEFT_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.1
#: kube-proxy learns of EndpointSlices when we do, and writes its rules a moment later.
RULES_SECONDS: Final = 0.5
#: Nobody came for so long: callers may have connections of before.
QUIET_SECONDS: Final = 30.0


class ExchangeSession:
    """One exchange. `start` brings it up, `close` undoes it.

    Args:
        stop: set: nothing is waited for any more.
    """

    def __init__(self, options: SessionOptions, progress: Progress, wish: ExchangeWish, stop: threading.Event) -> None:
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
        self._found: Found | None = None
        self._engine: Engine | None = None
        self._inbound: Inbound | None = None
        self._held: Held | None = None
        self._nets: Nets | None = None
        self._stop = stop
        self._quiet_until = 0.0
        #: Of an original container, when it was asked for.
        self.environment = Environment()

    @property
    def where(self) -> str:
        """The Services and their namespace."""
        if self._found is None or self._engine is None:
            return self._wish.target
        return ", ".join(f"{name}.{self._engine.cluster.namespace}" for name in self._found.services)

    @property
    def ports(self) -> list[dict[str, object]]:
        """What leads where, for people and scripts."""
        return self._plan.listed

    @property
    def nets(self) -> list[str]:
        """Who brings it back, in order: "client", "watchdog", "agent"."""
        return self._nets.active if self._nets is not None else []

    # -- up

    def start(self) -> None:
        """Bring it up.

        Raises:
            KtError: whatever was in the way; `close` undoes what was done.
        """
        options, wish = self._options, self._wish
        cluster = load_cluster(kubeconfig=options.kubeconfig, context=options.context, namespace=options.namespace)
        api = HttpKubeApi(cluster)
        namespace = check_namespace(cluster.namespace)
        besides = SCALE_NEEDS if wish.mode is Mode.SCALE else EXCHANGE_NEEDS
        require(api, namespace, carrier=options.carrier, besides=besides)
        self._progress(f"cluster {cluster.name} at {cluster.server}, namespace {namespace}")
        prefix = exchange_prefix(self._target.name)
        self._engine = engine = Engine(cluster, api, options, role=ROLE_EXCHANGE, prefix=prefix, equip=self._equip)
        engine.progress = self._progress
        self._found = found = find(api, namespace, self._target, wish.exposes, wish.mode)
        refuse_anothers(found.live, record_of(found.live), engine.target)
        self._plan = planned = found.plan
        targets = {expose: find_target(expose) for expose in planned.ports}
        if wish.environment:
            self._read_environment(api, namespace, found)
        for note in planned.notes:
            self._progress(f"{name_of(found.live)}: {note}")
        self._refuse_closed(api, namespace, found)
        for line in owners_of(found.live, self._autoscalers(api, namespace)):
            self._progress(line)
        self._nets = nets = Nets(engine, options, ((found.kind, found.name),))
        self._inbound = inbound = Inbound(
            engine.loop,
            engine.switchboard,
            planned.ports,
            targets,
            proxy_protocol=wish.proxy_protocol,
            progress=self._progress,
        )
        shadow = engine.start_shadow()
        nets.shadow(shadow)
        engine.moved = self._moved
        self._progress(f"shadow pod {shadow.pod}")
        report = engine.connect(lambda: {"exchange": found.name, "callers": inbound.callers})
        self._progress(f"tunnel to agent {report.get('agent', '?')}")
        check_listens(report, planned.ports)
        inbound.start()
        inbound.wait_listening(engine.check)
        if self._stop.is_set():
            return  # nobody reads any more what it says: nothing of the user's is changed
        self._held = held = Held(engine, found.live, self._progress)
        nets.hold()
        if wish.mode is Mode.SCALE:
            self._join(shadow)
            self._wait(self._leads_here, LEADS_SECONDS, "no EndpointSlice names the shadow pod")
            if self._stop.is_set():
                return
        held.take()
        self._wait(self._leads_here, LEADS_SECONDS, "no EndpointSlice names the shadow pod")
        if wish.mode is Mode.SCALE:
            self._wait(self._alone, ALONE_SECONDS, "some of the original pods take callers still")
        self._say_ready(found, nets)

    def _refuse_closed(self, api: HttpKubeApi, namespace: str, found: Found) -> None:
        """Nothing, when callers may come to the shadow pod.

        Raises:
            UsageFault: NetworkPolicies keep them away; which.
        """
        try:
            policies = list(api.list("NetworkPolicy", namespace))
        except KtError as error:
            logger.debug("no policies: %s", error)
            return
        pod = labels(self._up.target, ROLE_EXCHANGE)
        if self._wish.mode is Mode.SCALE:
            pod |= template_labels(found.live)
        named = {port.number: port.name for port in found.plan.named}
        ports = [(expose.protocol, at, named.get(at, "")) for expose, at in found.plan.ports.items()]
        closed = closed_to_callers(policies, pod, ports)
        if closed:
            raise UsageFault(
                "NetworkPolicies keep callers from the shadow pod",
                why=f"nobody may come to port {', '.join(closed)} of a pod labelled {CONTROL_BY}={CONTROL_BY_KT}",
                next_step=f"have ingress to those ports allowed for pods labelled {CONTROL_BY}={CONTROL_BY_KT}"
                + (
                    ""
                    if self._wish.mode is Mode.SCALE
                    else ", or use --mode scale, in which it has the originals' labels"
                ),
            )

    def _autoscalers(self, api: HttpKubeApi, namespace: str) -> list[Object]:
        if self._wish.mode is not Mode.SCALE:
            return []
        try:
            return list(api.list("HorizontalPodAutoscaler", namespace))
        except KtError as error:
            logger.debug("no autoscalers: %s", error)
            return []

    def _read_environment(self, api: HttpKubeApi, namespace: str, found: Found) -> None:
        """While there are original pods."""
        labels_of = template_labels(found.live) if self._wish.mode is Mode.SCALE else found.live["spec"]["selector"]
        numbers = {expose.remote for expose in self._plan.ports}
        port = next((one.target for one in ports_of(found.ports) if one.number in numbers), 0)
        self.environment = read_environment(api, namespace, labels_of, container=self._wish.container, port=port)
        for line in self.environment.missing:
            self._progress(f"not in the environment: {line}")

    def _say_ready(self, found: Found, nets: Nets) -> None:
        self._progress(f"service {', '.join(found.services)} leads here: {self._plan.words}")
        self._progress(nets.words)
        if self._wish.mode is Mode.SCALE:
            return  # the pods that callers had connections to are gone
        numbers = {expose.remote for expose in self._plan.ports}
        kept = pooled(port for port in ports_of(found.ports) if port.number in numbers)
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

    def _moved(self, shadow: Shadow) -> None:
        """There is another shadow pod.

        Raises:
            KtError: it does not stand in for the workload's pods yet.
        """
        if self._nets is not None:
            self._nets.shadow(shadow)
        if self._wish.mode is Mode.SCALE:
            self._join(shadow)

    def _join(self, shadow: Shadow) -> None:
        if self._found is not None:
            run_step(self._up.api, join_step(self._found.live, self._up.cluster.namespace, shadow.pod))

    def _wait(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Until it is so, or for so long: then it is said. Or until the stop is set.

        Raises:
            KtError: the session is over.
        """
        limit = monotonic() + seconds
        while not condition():
            self._up.check()
            if self._held is not None:
                self._held.check()
            if monotonic() > limit:
                self._progress(f"{otherwise} after {seconds:g} s")
                return
            if self._stop.wait(LOOK_SECONDS):
                return

    def _ends(self) -> Iterable[tuple[str, str]]:
        """(Service, pod) of all that are ready, as EndpointSlices say it."""
        for name in self._found.services if self._found is not None else ():
            selector = f"{SLICE_SERVICE}={name}"
            for one in self._up.api.list("EndpointSlice", self._up.cluster.namespace, selector=selector):
                for end in one.get("endpoints") or ():
                    if (end.get("conditions") or {}).get("ready") is not False:
                        yield name, str((end.get("targetRef") or {}).get("name"))

    def _leads_here(self) -> bool:
        pod, services = self._up.up().pod, set(self._found.services if self._found is not None else ())
        try:
            return services <= {name for name, there in self._ends() if there == pod}
        except KtError:
            return False

    def _alone(self) -> bool:
        pod = self._up.up().pod
        try:
            return all(there == pod for _, there in self._ends())
        except KtError:
            return False

    @property
    def _up(self) -> Engine:
        if self._engine is None:
            raise UsageFault("the exchange has not been started")
        return self._engine

    def _say_pooled(self, what: str) -> None:
        self._progress(
            f"{what}: connections that callers have already stay with the original pods, for Kubernetes does not move them; "
            "new ones come here. Restart the callers if that has to be at once, or use --mode scale"
        )

    # -- while it runs

    def wait(self, stop: threading.Event) -> None:
        """Until `stop` is set.

        Raises:
            GivenBack: somebody else has given it back.
            KtError: the connection ended by itself.
        """
        if self._engine is None or self._held is None:
            return
        try:
            self._engine.wait(stop, self._check)
        except KtError:
            # Whoever gives it back ends the shadow pod as well: that is the news, not the tunnel.
            self._held.look()
            raise

    def _check(self) -> None:
        if self._held is not None:
            self._held.check()
        if self._quiet_until and self._inbound is not None:
            if self._inbound.ever:
                self._quiet_until = 0.0
            elif monotonic() > self._quiet_until:
                self._quiet_until = 0.0
                self._say_pooled(f"nobody has come for {QUIET_SECONDS:.0f} s")

    # -- down

    def close(self) -> list[str]:
        """Undo everything; what could not be, in words. Callers who are here have `drain` seconds, unless the stop is set (again)."""
        failed: list[KtError] = []
        if self._held is not None:
            failed += self._held.give_back()
            if not failed:
                self._see_off()
        if self._engine is not None:
            failed += self._engine.close()
        if self._inbound is not None:
            self._inbound.close()
        if self._nets is not None:
            self._nets.close(whole=not failed)
        return [f"cluster: {error}" for error in failed]

    def _see_off(self) -> None:
        """Callers go to the originals again, and those who are here may finish."""
        engine, inbound = self._engine, self._inbound
        if engine is None or inbound is None or not engine.loop.running:
            return
        if self._wish.mode is Mode.SCALE:
            self._leave(engine)
        # Whoever still knows the old way is taken until others know the new one.
        self._wait_quietly(lambda: not self._leads_here(), LEFT_SECONDS)
        self._stop.wait(RULES_SECONDS)
        inbound.stop()
        if inbound.callers:
            self._progress(f"{inbound.callers} callers are here; they have {self._wish.drain:g} s to finish")
        self._wait_quietly(lambda: not inbound.callers, self._wish.drain)

    def _leave(self, engine: Engine) -> None:
        """When the workload's pods are ready again the shadow pod stands in for them no more."""
        if self._found is None:
            return
        if not self._wait_quietly(self._pods_ready, self._wish.recover_wait):
            self._progress(f"{name_of(self._found.live)} is not ready again yet")
        shadow = engine.up()
        try:
            step = leave_step(
                self._found.live, engine.cluster.namespace, shadow.pod, labels(shadow.options.target, ROLE_EXCHANGE)
            )
            run_step(engine.api, step)
        except KtError as error:
            logger.warning("the shadow pod's labels: %s", error)

    def _pods_ready(self) -> bool:
        if self._found is None:
            return True
        try:
            live: Any = self._up.api.get(self._found.kind, self._up.cluster.namespace, self._found.name)
        except ObjectMissing:
            return True
        except KtError:
            return False
        wanted = (live.get("spec") or {}).get("replicas", 1)
        return bool((live.get("status") or {}).get("readyReplicas", 0) >= wanted)

    def _wait_quietly(self, condition: Callable[[], bool], seconds: float) -> bool:
        limit = monotonic() + seconds
        while not condition():
            if monotonic() > limit or not self._up.loop.running or self._stop.wait(LOOK_SECONDS):
                return False
        return True


def session_for(
    options: SessionOptions, progress: Progress, wish: ExchangeWish, stop: threading.Event
) -> ExchangeSession | GuestsSession:
    """By its mode.

    Args:
        stop: what ends it, and then what its end waits for.

    Raises:
        UsageFault: the target makes no sense.
    """
    target = parse_target(wish.target)
    if wish.mode is Mode.EPHEMERAL and target.kind is not Kind.HOST:
        return GuestsSession(options, progress, wish, target, stop)
    return ExchangeSession(options, progress, wish, stop)


class Exchanges:
    """Several, which begin and end together."""

    def __init__(self, sessions: list[ExchangeSession | GuestsSession]) -> None:
        self._sessions = sessions

    @property
    def sessions(self) -> list[ExchangeSession | GuestsSession]:
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
        ended: list[BaseException] = []
        over = threading.Event()

        def wait(session: ExchangeSession | GuestsSession) -> None:
            try:
                session.wait(stop)
            except BaseException as error:  # noqa: BLE001 - top frame of the thread; raised again below
                ended.append(error)
            finally:
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
    targets: list[str], exposes: list[str], make: Callable[[str, tuple[str, ...]], ExchangeSession | GuestsSession]
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
