"""An exchange inside of the running pods (mode ephemeral): an agent is their guest, and the pods' kernels redirect callers to it.

No object of the user's is changed but the pods, by a container that nothing restarts, so there is nothing to be brought back: without the
client the redirection ends in seconds, without the agent at once, and in any case in the kernel. One tunnel for each pod; pods that come
are taken as well.

Not here: what a guest is (kt_net.choreography.guest), the redirection itself (shadow_image.redirect).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Final

from kt_net.choreography.exchange import Plan, plan, pooled, ports_of
from kt_net.choreography.guest import PREFIX, refuse_host_network
from kt_net.choreography.names import ROLE_EXCHANGE, check_namespace
from kt_net.choreography.records import Object
from kt_net.choreography.scale import all_ports
from kt_net.choreography.shadow import ShadowOptions
from kt_net.drivers.clock import monotonic
from kt_net.errors import GivenBack, KtError, ObjectMissing, PermissionMissing, ShadowFailed, UsageFault
from kt_net.forward.places import selector_text
from kt_net.forward.targets import Kind, Target
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.config import Cluster, load_cluster
from kt_net.kube.environment import Environment
from kt_net.kube.follow import Followed, Key
from kt_net.kube.guest import bring_guest, guest_gone
from kt_net.kube.permissions import EPHEMERAL_NEEDS, require
from kt_net.kube.shadow import Shadow
from kt_net.kube.waiting import Patience
from kt_net.session.engine import Engine, Progress, SessionOptions
from kt_net.session.exchange_target import numbers_of
from kt_net.session.exchange_wish import ExchangeWish
from kt_net.session.inbound import Inbound, check_listens, find_target
from kt_net.session.program import read_environment
from kt_net.tunnel.hello import REDIRECT

logger = logging.getLogger(__name__)

#: Each pod is a tunnel, with a loop of its own.
MAX_PODS: Final = 16
_AT_ONCE: Final = 4
LOOK_SECONDS: Final = 0.1
#: For a guest that was being brought up when all is undone.
TAKEN_BACK_SECONDS: Final = 5.0
#: Where the agent listens on the pod's loopback, among the ports that nobody is likely to have.
_FIRST_PORT, _PORTS = 40000, 5000


class GuestsSession:
    """One exchange, in all pods of a target. `start` brings it up, `close` undoes it.

    Args:
        stop: set: nothing is waited for any more.
    """

    def __init__(
        self,
        options: SessionOptions,
        progress: Progress,
        wish: ExchangeWish,
        target: Target,
        stop: threading.Event,
    ) -> None:
        if options.carrier == "exec":
            raise UsageFault("--carrier exec makes no sense with --mode ephemeral", why="a guest has no bridge")
        self._options = options
        self._progress = progress
        self._wish = wish
        self._target = target
        self._where = wish.target
        self._plan = Plan({})
        self._pods: dict[str, _Guest] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._followed: Followed[bool] | None = None
        self._cluster: Cluster | None = None
        self._api: HttpKubeApi | None = None
        self._failure: KtError | None = None
        self._stop = stop
        self.environment = Environment()

    @property
    def where(self) -> str:
        """The target and its namespace."""
        return self._where

    @property
    def ports(self) -> list[dict[str, object]]:
        """What leads where, for people and scripts."""
        return self._plan.listed

    @property
    def nets(self) -> list[str]:
        """Who brings it back, in order."""
        return ["client", "agent", "kernel"]

    def start(self) -> None:
        """Bring it up in the pods that there are.

        Raises:
            KtError: whatever was in the way; `close` undoes what was done.
        """
        options = self._options
        self._cluster = cluster = load_cluster(
            kubeconfig=options.kubeconfig, context=options.context, namespace=options.namespace
        )
        self._api = api = HttpKubeApi(cluster)
        namespace = check_namespace(cluster.namespace)
        require(api, namespace, carrier=options.carrier, besides=EPHEMERAL_NEEDS)
        self._progress(f"cluster {cluster.name} at {cluster.server}, namespace {namespace}")
        ports, selector, fields = self._find(api, namespace)
        self._where = f"{ports['metadata']['name']}.{namespace}"
        pods = [pod for pod in api.list("Pod", namespace, selector=selector) if _runs(pod) and _is(pod, fields)]
        if not pods:
            raise ObjectMissing(f"no pod of {self._target} runs", next_step="use --mode selector, which needs none")
        if len(pods) > MAX_PODS:
            raise UsageFault(
                f"{self._target} has {len(pods)} pods",
                why=f"{MAX_PODS} are possible in mode ephemeral",
                next_step="use --mode selector",
            )
        for pod in pods:
            refuse_host_network(pod)
        self._plan = plan(ports, self._wish.exposes, numbers=numbers_of(pods[:1]), guest=True)
        if self._wish.environment:
            self._read_environment(api, namespace, pods[0], ports)
        self._begin_all(sorted(str(pod["metadata"]["name"]) for pod in pods))
        self._followed = Followed(api, "Pod", namespace, self._changed, keep=_runs, selector=selector, fields=fields)
        self._progress(f"callers of {len(pods)} pods come here: {self._plan.words}")
        self._progress(
            "given back by this program at its end, by the agents 1 s after it is away, and by the pods' kernels at the latest; "
            "the container's entry stays in each pod until the pod goes"
        )
        kept = pooled(port for port in ports_of(ports) if any(port.number == e.remote for e in self._plan.ports))
        if kept:
            self._progress(
                f"port {', '.join(kept)}: connections that callers have already stay with the pods' programs"
            )

    def _find(self, api: HttpKubeApi, namespace: str) -> tuple[Object, str, str]:
        """What has the ports, and which pods: a selector on labels, and one on fields."""
        target = self._target
        if target.kind is Kind.POD:
            pod = api.get("Pod", namespace, target.name)
            template = {"spec": {"template": {"metadata": pod["metadata"], "spec": pod["spec"]}}}
            ports = all_ports({"kind": "Pod", "metadata": pod["metadata"], **template}, ())
            return ports, "", f"metadata.name={target.name}"
        if target.kind in (Kind.DEPLOYMENT, Kind.STATEFUL_SET):
            workload = {**api.get(str(target.kind), namespace, target.name), "kind": str(target.kind)}
            return all_ports(workload, ()), selector_text(workload["spec"].get("selector") or {}), ""
        service = {**api.get("Service", namespace, target.name), "kind": "Service"}
        selector = (service.get("spec") or {}).get("selector") or {}
        if not selector:
            raise UsageFault(
                f"{target} has no selector: nobody knows its pods",
                next_step="name pod/X, deployment/X or statefulset/X",
            )
        return service, selector_text({"matchLabels": selector}), ""

    def _read_environment(self, api: HttpKubeApi, namespace: str, pod: Object, ports: Object) -> None:
        numbers = {expose.remote for expose in self._plan.ports}
        port = next((one.target for one in ports_of(ports) if one.number in numbers), 0)
        labels = pod["metadata"].get("labels") or {}
        self.environment = read_environment(api, namespace, labels, container=self._wish.container, port=port)
        for line in self.environment.missing:
            self._progress(f"not in the environment: {line}")

    # -- pods

    def _begin_all(self, pods: list[str]) -> None:
        """The first one alone: of two who want the same pods one is told there, and the other one gets them all.

        Raises:
            KtError: one could not be begun; then none is begun any more.
        """
        with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="ktctl-guest") as pool:
            try:
                self._begin(pods[0])
                begun = [pool.submit(self._begin, name) for name in pods[1:]]
                wait(begun, return_when=FIRST_EXCEPTION)
                for one in begun:
                    if one.done():
                        one.result()
            except BaseException:
                self._give_up()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _give_up(self) -> None:
        """Begin none any more; those that are being begun are taken back by whoever begins them."""
        self._ended.set()
        with self._lock:
            guests = list(self._pods.values())
        for guest in guests:
            guest.give_up()

    def _begin(self, pod: str) -> None:
        """A guest in that pod.

        Raises:
            KtError: not there.
        """
        if self._cluster is None:
            return
        guest = _Guest(self._cluster, self._options, self._wish, self._plan, pod, self._progress, self._fail)
        with self._lock:
            if self._ended.is_set() or self._stop.is_set() or pod in self._pods:
                return
            self._pods[pod] = guest
        try:
            guest.start()
        except BaseException:
            with self._lock:
                self._pods.pop(pod, None)
            guest.close()
            raise
        self._progress(f"pod {pod}: callers come here")

    def _changed(self, found: Mapping[Key, bool]) -> None:
        """Pods have come or gone; on the watch's thread."""
        running = {name for (_, name), runs in found.items() if runs}
        with self._lock:
            left = {name: self._pods.pop(name) for name in list(self._pods) if name not in running}
            new = sorted(running - self._pods.keys())[: MAX_PODS - len(self._pods)]
        for name, guest in left.items():
            self._progress(f"pod {name} is gone")
            guest.close()
        for name in new:
            if self._ended.is_set():
                return
            try:
                self._begin(name)
            except KtError as error:
                self._progress(f"pod {name}: {error}" + (f" ({error.why})" if error.why else ""))

    def _fail(self, error: KtError) -> None:
        self._failure = self._failure or error

    # -- while it runs, and down

    def wait(self, stop: threading.Event) -> None:
        """Until `stop` is set.

        Raises:
            GivenBack: an agent has ended while we were away.
            KtError: the connection to a pod that is there ended by itself.
        """
        while not stop.wait(LOOK_SECONDS):
            if self._failure is not None:
                raise self._failure
            with self._lock:
                guests = dict(self._pods)
            for name, guest in guests.items():
                try:
                    guest.check()
                except KtError:
                    with self._lock:
                        if self._pods.get(name) is guest:
                            raise  # else its pod has gone meanwhile

    def close(self) -> list[str]:
        """Undo everything; what could not be, in words. Callers who are here have `drain` seconds, unless the stop is set (again)."""
        self._ended.set()
        if self._followed is not None:
            self._followed.close()
        with self._lock:
            guests, self._pods = dict(self._pods), {}
        for guest in guests.values():
            if not guest.begun:
                guest.give_up()
        for guest in guests.values():
            guest.stop()
        limit = monotonic() + self._wish.drain
        callers = sum(guest.callers for guest in guests.values())
        if callers:
            self._progress(f"{callers} callers are here; they have {self._wish.drain:g} s to finish")
        while any(guest.callers for guest in guests.values()) and monotonic() < limit:
            if self._stop.wait(LOOK_SECONDS):
                break
        with ThreadPoolExecutor(max_workers=MAX_PODS, thread_name_prefix="ktctl-guest") as pool:
            failed = [line for lines in pool.map(_Guest.close, guests.values()) for line in lines]
        if self._followed is not None:
            self._followed.thread.join(TAKEN_BACK_SECONDS)
        if self._api is not None:
            self._api.close()
        return failed


class _Guest:
    """One pod's."""

    def __init__(
        self,
        cluster: Cluster,
        options: SessionOptions,
        wish: ExchangeWish,
        planned: Plan,
        pod: str,
        progress: Progress,
        fail: Callable[[KtError], None],
    ) -> None:
        self._pod = pod
        self._fail = fail
        self._brought = False
        self.begun = False
        self._engine = Engine(
            cluster,
            HttpKubeApi(cluster),
            options,
            role=ROLE_EXCHANGE,
            prefix=PREFIX,
            bring_up=self._bring,
            gone=lambda found, shadow: guest_gone(found, shadow.options.name),
        )
        self._engine.progress = lambda line: logger.info("%s: %s", pod, line)
        targets = {expose: find_target(expose) for expose in planned.ports}
        self._inbound = Inbound(
            self._engine.loop,
            self._engine.switchboard,
            planned.ports,
            targets,
            proxy_protocol=wish.proxy_protocol,
            progress=progress,
        )
        self._planned = planned

    @property
    def callers(self) -> int:
        """How many are here."""
        return self._inbound.callers

    def _bring(self, api: HttpKubeApi, options: ShadowOptions, patience: Patience) -> Shadow:
        if self._brought:
            if not _runs(api.get("Pod", options.namespace, self._pod)):
                raise ShadowFailed(f"pod {self._pod} is going")
            error = GivenBack(
                f"callers of pod {self._pod} reach its own program again",
                why="the agent in it has ended: its client, or the pod's container, was away for too long",
            )
            self._fail(error)
            raise error
        self._brought = True
        port = _FIRST_PORT + int.from_bytes(os.urandom(2), "big") % _PORTS
        return bring_guest(api, self._pod, replace(options, agent_port=port), patience)

    def start(self) -> None:
        """Have callers come here.

        Raises:
            KtError: they cannot.
        """
        self._engine.start_shadow()
        report = self._engine.connect(lambda: {"exchange": self._pod, "callers": self._inbound.callers})
        check_listens(report, self._planned.ports)
        refused = report.get(REDIRECT)
        if refused:
            raise PermissionMissing(
                f"the kernel of pod {self._pod} redirects nothing for us",
                why=str(refused),
                next_step="use --mode selector, which needs no privilege",
            )
        if refused is None:
            raise ShadowFailed("the agent does not say whether it redirects", why=f"version {report.get('agent', '?')}")
        self._inbound.start()
        self._inbound.wait_listening(self._engine.check)
        self.begun = True

    def check(self) -> None:
        """Nothing, while it lives, or is being brought up.

        Raises:
            KtError: why it does not.
        """
        if self.begun:
            self._engine.check()

    def give_up(self) -> None:
        """Whoever is bringing it up is to stop, and to take it back."""
        self._engine.give_up()

    def stop(self) -> None:
        """No more callers; those who are here stay."""
        self._inbound.stop()

    def close(self) -> list[str]:
        """Undo it; what could not be, in words."""
        failed = [f"cluster: {error}" for error in self._engine.close()]
        self._inbound.close()
        return failed


def _runs(pod: Object) -> bool:
    """Whether it runs and is to go on."""
    return (pod.get("status") or {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def _is(pod: Object, fields: str) -> bool:
    return not fields or fields == f"metadata.name={pod['metadata']['name']}"
