"""Local ports as a Service of the cluster; no root.

Order up: the shadow pod, the tunnel, the agent listens, the Service. Down: the Service, then the shadow pod.

Not here: callers (inbound.py), what the Service is made of (kt_net.choreography.preview).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from kt_net.choreography.expose import parse_exposes, pod_ports
from kt_net.choreography.names import ROLE_PREVIEW, check_namespace, preview_prefix
from kt_net.choreography.preview import (
    SERVICE,
    PreviewOptions,
    beat_step,
    check_service_name,
    external_address,
    move_step,
    preview_steps,
    whose,
)
from kt_net.choreography.shadow import JOB
from kt_net.choreography.steps import Sequence
from kt_net.errors import AlreadyThere, KtError, ObjectMissing
from kt_net.kube.api import HttpKubeApi, Object, WatchEnd
from kt_net.kube.config import load_cluster
from kt_net.kube.permissions import PREVIEW_NEEDS, require
from kt_net.kube.run import run_sequence, run_step, undo_sequence
from kt_net.kube.shadow import Shadow
from kt_net.session.engine import Engine, Progress, SessionOptions
from kt_net.session.inbound import Inbound, check_listens, find_target

logger = logging.getLogger(__name__)

#: Between two signs of life of the Service: KT Connect's own habit.
BEAT_EVERY: Final = 120.0
#: One watch for the external address, and the pause after one that broke.
WATCH_SECONDS: Final = 300.0
WATCH_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class PreviewWish:
    """What is asked for.

    Attributes:
        name: of the Service.
        exposes: as `--expose` has them.
        external: a LoadBalancer.
        proxy_protocol: TCP to local programs begins with the caller's address.
    """

    name: str
    exposes: tuple[str, ...]
    external: bool = False
    proxy_protocol: bool = False


class PreviewSession:
    """One preview. `start` brings it up, `close` undoes it."""

    def __init__(self, options: SessionOptions, progress: Progress, wish: PreviewWish) -> None:
        self._options = options
        self._progress = progress
        self._wish = replace(wish, name=check_service_name(wish.name))
        self._ports = pod_ports(parse_exposes(wish.exposes))
        self._engine: Engine | None = None
        self._inbound: Inbound | None = None
        self._service: _Service | None = None

    @property
    def ports(self) -> list[dict[str, object]]:
        """What leads where, for people and scripts."""
        return [{"port": expose.remote, "protocol": expose.protocol, "target": expose.target} for expose in self._ports]

    @property
    def where(self) -> str:
        """The Service and its namespace."""
        namespace = self._engine.cluster.namespace if self._engine is not None else ""
        return f"{self._wish.name}.{namespace}"

    @property
    def addresses(self) -> list[str]:
        """Of the Service."""
        return self._service.addresses if self._service is not None else []

    def start(self) -> None:
        """Bring it up.

        Raises:
            KtError: whatever was in the way; `close` undoes what was done.
        """
        options, name = self._options, self._wish.name
        targets = {expose: find_target(expose) for expose in self._ports}
        cluster = load_cluster(kubeconfig=options.kubeconfig, context=options.context, namespace=options.namespace)
        api = HttpKubeApi(cluster)
        self._engine = engine = Engine(cluster, api, options, role=ROLE_PREVIEW, prefix=preview_prefix(name))
        engine.progress = self._progress
        require(api, check_namespace(cluster.namespace), carrier=options.carrier, besides=PREVIEW_NEEDS)
        self._progress(f"cluster {cluster.name} at {cluster.server}, namespace {cluster.namespace}")
        refuse_existing(api, cluster.namespace, name)
        self._inbound = inbound = Inbound(
            engine.loop,
            engine.switchboard,
            self._ports,
            targets,
            proxy_protocol=self._wish.proxy_protocol,
            progress=self._progress,
        )
        shadow = engine.start_shadow()
        self._progress(f"shadow pod {shadow.pod}")
        report = engine.connect(lambda: {"preview": name, "callers": inbound.callers})
        self._progress(f"tunnel to agent {report.get('agent', '?')}")
        check_listens(report, self._ports)
        inbound.start()
        inbound.wait_listening(engine.check)
        self._service = service = _Service(engine, self._options_of, self._progress)
        service.create()

    def _options_of(self, shadow: Shadow) -> PreviewOptions:
        return PreviewOptions(
            name=self._wish.name,
            namespace=shadow.options.namespace,
            ports=self._ports,
            user=shadow.options.user,
            target=shadow.options.target,
            shadow=shadow.options.name,
            job_uid=shadow.sequence.uid(JOB),
            now_unix=shadow.options.now_unix,
            external=self._wish.external,
        )

    def wait(self, stop: threading.Event) -> None:
        """Until `stop` is set.

        Raises:
            KtError: the connection ended by itself.
        """
        if self._engine is not None:
            self._engine.wait(stop)

    def close(self) -> list[str]:
        """Undo everything; what could not be, in words."""
        failed: list[KtError] = []
        if self._service is not None:
            failed += self._service.close()
        if self._engine is not None:
            failed += self._engine.close()
        if self._inbound is not None:
            self._inbound.close()
        return [f"cluster: {error}" for error in failed]


def refuse_existing(api: HttpKubeApi, namespace: str, name: str) -> None:
    """Nothing, when there is no Service of that name.

    Raises:
        AlreadyThere: there is; whose, and since when.
    """
    try:
        found = api.get("Service", namespace, name)
    except ObjectMissing:
        return
    raise AlreadyThere(f"there is a Service {name} in namespace {namespace}", why=whose(found))


class _Service:
    """The Service in the cluster, from its creation to its end; follows the session from one shadow pod to the next."""

    def __init__(self, engine: Engine, options_of: Callable[[Shadow], PreviewOptions], progress: Progress) -> None:
        self._engine = engine
        self._api = engine.api
        self._options_of = options_of
        self._progress = progress
        self._options = options_of(engine.up())
        self._sequence = Sequence([])
        self._there = False
        self._lock = threading.Lock()  # whoever changes the Service: the dial thread may while the main one ends
        self._ended = threading.Event()
        self._watch_end = WatchEnd()
        #: Inside of the cluster.
        self.addresses: list[str] = []

    def create(self) -> None:
        """Make it, and see to it from now on.

        Raises:
            AlreadyThere: somebody was quicker.
            KtError: the refusals of kt_net.kube.
        """
        self._engine.moved = self._moved
        with self._lock:
            self._options = options = self._options_of(self._engine.up())  # from now on whoever replaces it tells us
            self._sequence = Sequence(preview_steps(options))
            try:
                run_sequence(self._api, self._sequence)
            except AlreadyThere:
                refuse_existing(self._api, options.namespace, options.name)
                raise
            self._there = True
            self._look()
        ports = ", ".join(f"{expose.remote} to {expose.target}" for expose in options.ports)
        self._progress(f"service {options.name} at {', '.join(self.addresses)}: {ports}")
        threading.Thread(target=self._beat, name="ktctl-service", daemon=True).start()
        if options.external:
            self._progress("no external address yet: the cluster is to give one")
            threading.Thread(target=self._watch, name="ktctl-external", daemon=True).start()

    def _look(self) -> None:
        spec = self._api.get("Service", self._options.namespace, self._options.name).get("spec") or {}
        self.addresses = [str(address) for address in spec.get("clusterIPs") or [] if address != "None"]

    def _moved(self, shadow: Shadow) -> None:
        """There is another shadow pod: the Service leads there, and belongs to its Job.

        Raises:
            KtError: not yet.
        """
        with self._lock:
            if self._ended.is_set() or not self._there:
                return
            self._options = self._options_of(shadow)
            try:
                run_step(self._api, move_step(self._options, self._sequence.uid(SERVICE)))
            except ObjectMissing:
                # Whoever has deleted the Job has deleted what belonged to it.
                self._sequence = Sequence(preview_steps(self._options))
                run_sequence(self._api, self._sequence)
                self._look()
                self._progress(
                    f"service {self._options.name} was gone; it is there again, at {', '.join(self.addresses)}"
                )

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_EVERY):
            try:
                with self._lock:
                    step = beat_step(self._options, self._sequence.uid(SERVICE), int(self._api.server_time()))
                    run_step(self._api, step)
            except ObjectMissing:
                self._progress(f"service {self._options.name} is gone: somebody has deleted it")
                return
            except KtError as error:
                logger.warning("no sign of life of the Service: %s", error)

    def _watch(self) -> None:
        """Say the external address, whenever there is another one."""
        said = ""
        while not self._ended.is_set():
            try:
                for _, found in self._api.watch(
                    "Service",
                    self._options.namespace,
                    selector=f"kt-target={self._options.target}",
                    seconds=WATCH_SECONDS,
                    opened=self._watch_end.opened,
                ):
                    said = self._say_external(found, said)
            except KtError as error:
                logger.warning("the external address is not watched: %s", error)
            except Exception as error:  # noqa: BLE001 - a response that is closed raises what it likes
                if not self._ended.is_set():
                    logger.warning("the external address is not watched: %s", error)
            self._ended.wait(WATCH_PAUSE)

    def _say_external(self, found: Object, said: str) -> str:
        address = external_address(found)
        if address and address != said:
            self._progress(f"service {self._options.name} is reached from outside at {address}")
        return address or said

    def close(self) -> list[KtError]:
        """Delete it; what could not be."""
        self._ended.set()
        self._watch_end.end()
        with self._lock:
            return undo_sequence(self._api, self._sequence)
