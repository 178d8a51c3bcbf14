"""A tunnel to a shadow pod on a loop of its own: what every kind of session runs on.

Not here: what the streams are for.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kt_net.choreography.names import ROLE_CONNECT, SHADOW_PREFIX, shadow_name
from kt_net.choreography.shadow import DEFAULT_IMAGE, IDLE_EXIT, ShadowOptions
from kt_net.drivers.clock import monotonic
from kt_net.drivers.loop import Loop
from kt_net.errors import (
    KtError,
    ObjectMissing,
    ShadowFailed,
    TunnelLost,
)
from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.carrier import WebsocketCarrier
from kt_net.kube.config import Cluster
from kt_net.kube.dial import Dialler
from kt_net.kube.run import undo_sequence
from kt_net.kube.shadow import Shadow, start_shadow
from kt_net.kube.waiting import Patience
from kt_net.relay.streams import SessionEvent, Switchboard
from kt_net.session.heartbeat import Heartbeat, micro_time
from kt_net.session.home import remember_carrier, remembered_carrier
from kt_net.session.lanes import Lanes
from kt_net.session.predecessors import Predecessors
from kt_net.tunnel.events import Forgotten, GoneOn, HelloReceived, PeerSilent

VERSION = "0.1.0.dev0"
HELLO_SECONDS = 15.0

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]


class BringUp(Protocol):
    """See `kt_net.kube.shadow.start_shadow`."""

    def __call__(self, api: HttpKubeApi, options: ShadowOptions, patience: Patience) -> Shadow:
        """An agent that runs."""
        ...


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What every session is told.

    Attributes:
        agent: the zipapp that the shadow pod runs.
        user: who this is, for others to see.
        pod_seconds: for the shadow pod to run.
        carrier: the form of carriers (kt_net.kube.dial); "" to try.
        idle_exit: seconds without a client after which the agent ends.
    """

    agent: bytes
    user: str
    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    image: str = DEFAULT_IMAGE
    pod_seconds: float = 60.0
    idle_exit: float = IDLE_EXIT
    carrier: str = ""


class Engine:
    """A shadow pod, a tunnel to it, and the loop that drives it.

    Args:
        role: what its shadow pods are for, in KT Connect's words.
        prefix: what their names begin with.
        equip: adds to its shadow pods what this session needs.
        bring_up: has an agent there, in a shadow pod unless told otherwise.
        gone: why an agent in a pod that runs leads nowhere any more; "" when it may.
    """

    def __init__(
        self,
        cluster: Cluster,
        api: HttpKubeApi,
        options: SessionOptions,
        *,
        role: str = ROLE_CONNECT,
        prefix: str = SHADOW_PREFIX,
        equip: Callable[[ShadowOptions], ShadowOptions] = lambda options: options,
        bring_up: BringUp = start_shadow,
        gone: Callable[[Object, Shadow], str] = lambda pod, shadow: "",
    ) -> None:
        self.cluster = cluster
        self.api = api
        self._options = options
        self.loop = Loop()
        self.switchboard = Switchboard()
        self._dialler = Dialler(
            cluster,
            cluster.namespace,
            form=options.carrier,
            likely=remembered_carrier(cluster.server),
            works=self._carrier_found,
        )
        self.lanes = Lanes(
            self.loop,
            self.switchboard,
            dial=self._dial,
            look=self._look,
            report={"client": VERSION},
            failed=self._fail,
            progress=lambda line: self.progress(line),
        )
        self._role = role
        self._prefix = prefix
        self._equip = equip
        self._bring_up = bring_up
        self._gone_inside = gone
        #: The session's mark on every object of its own, KT Connect's `kt-target`.
        self.target = os.urandom(10).hex()
        self.shadow: Shadow | None = None
        self._predecessors = Predecessors(api)
        self._given_up = threading.Event()
        self._closing = threading.Lock()
        #: Told of another shadow pod that runs, before the objects of the last one go: what belongs to those is to belong to this one.
        #: May raise KtError; then it is told again.
        self.moved: Callable[[Shadow], None] = lambda shadow: None
        #: What the agent reported; set with `_greeted`.
        self.report: Mapping[str, Any] = {}
        self._greeted = threading.Event()
        self._summary: Callable[[], Mapping[str, Any]] = dict
        #: Told what users should know while it runs, a line each.
        self.progress: Progress = lambda line: None
        self._heartbeat: Heartbeat | None = None
        #: Moves what stands on the tunnel; a session with a stack puts its relay's here.
        self.pump: Callable[[float], None] = self._pump_switchboard

    # -- up

    def start_shadow(self) -> Shadow:
        """Create the shadow pod's objects and wait until it runs.

        Raises:
            KtError: the refusals of kt_net.kube; then nothing is left behind.
        """
        now = self.api.server_time()
        options = ShadowOptions(
            name=shadow_name(os.urandom(5), self._prefix),
            namespace=self.cluster.namespace,
            image=self._options.image,
            agent=self._options.agent,
            user=self._options.user,
            target=self.target,
            role=self._role,
            now_rfc3339=micro_time(now),
            now_unix=int(now),
            idle_exit=self._options.idle_exit,
        )
        patience = Patience(self._options.pod_seconds, monotonic, self._given_up)
        self.shadow = self._bring_up(self.api, self._equip(options), patience)
        return self.shadow

    def connect(self, summary: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Open the tunnel; what the agent reports.

        Raises:
            KtError: no port-forward, or nobody answers there.
        """
        shadow = self.up()
        self.lanes.start()
        self.loop.add_mover(lambda now: self.pump(now))
        self.loop.start("ktctl-loop")
        limit = monotonic() + HELLO_SECONDS
        while not self._greeted.wait(0.05):
            self.check()
            if monotonic() > limit:
                raise ShadowFailed("the agent in the shadow pod does not answer", why=self.lanes.trouble)
        self._summary = summary
        self._beat(shadow)
        return self.report

    def _beat(self, shadow: Shadow) -> None:
        """Renew the Lease of `shadow` from now on."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._heartbeat = Heartbeat(
            self.api, self.cluster.namespace, shadow.options.name, self._summary, beaten=self._leave_old
        )
        self._heartbeat.start()

    def _dial(self, seconds: float) -> WebsocketCarrier:
        return self._dialler.dial(self.up().pod, self.up().options.agent_port, seconds=seconds)

    @property
    def carrier(self) -> str:
        """The form of carriers that works; "" before one did."""
        return self._dialler.form

    def _carrier_found(self, form: str) -> None:
        self.progress(f"carriers of form {form}")
        remember_carrier(self.cluster.server, form)

    def _look(self) -> None:
        """Another shadow pod when this one leads nowhere any more."""
        gone = self._gone()
        if gone:
            self._replace_shadow(gone)
        self._leave_old()

    def _leave_old(self) -> None:
        """Remove what belongs to shadow pods that lead nowhere any more; what cannot be removed now is tried again later.

        Raises:
            KtError: what `moved` raises.
        """
        self._predecessors.remove(lambda: self.moved(self.up()))

    def _gone(self) -> str:
        """Why the shadow pod leads nowhere any more; nothing when it may.

        Raises:
            ApiUnreachable: nobody knows.
        """
        pod = self.up().pod
        try:
            found = self.api.get("Pod", self.cluster.namespace, pod)
        except ObjectMissing:
            return f"the shadow pod {pod} is gone"
        phase = found.get("status", {}).get("phase")
        if found.get("metadata", {}).get("deletionTimestamp"):
            return f"the shadow pod {pod} is being deleted"
        if phase not in ("Running", "Pending"):
            return f"the shadow pod {pod} has ended ({phase})"
        return self._gone_inside(found, self.up())

    def _replace_shadow(self, why: str) -> None:
        """Another shadow pod, with objects of its own; the old one's go next. Programs' flows through the old one end at once."""
        self.progress(f"{why}; starting another one")
        self.loop.call_soon(self.lanes.begin_anew)
        old = self.up()
        shadow = self.start_shadow()
        self._predecessors.add(old)
        self.progress(f"shadow pod {shadow.pod}")
        self._beat(shadow)

    def _fail(self, error: KtError) -> None:
        """End the loop with `error`."""

        def fail() -> None:
            raise error

        self.loop.call_soon(fail)

    # -- while it runs

    def _pump_switchboard(self, now: float) -> None:
        self.switchboard.pump(now=now)
        while (event := self.switchboard.next_event()) is not None:
            self.session_event(event)

    def session_event(self, happened: SessionEvent) -> None:
        """What a lane said about itself.

        Raises:
            TunnelLost: that the session is over; ends the loop.
        """
        lane, event = happened.lane, happened.event
        if isinstance(event, HelloReceived):
            self.report = event.hello.report
            self.lanes.greeted(lane)
            self._greeted.set()
        elif isinstance(event, GoneOn):
            self.lanes.gone_on(lane)
        elif isinstance(event, PeerSilent):
            self.lanes.silent(lane)
        elif isinstance(event, Forgotten):
            self.lanes.forgotten(lane)
        else:
            raise TunnelLost("the agent in the shadow pod is gone", why=type(event).__name__)

    def wait(self, stop: threading.Event, check: Callable[[], None] = lambda: None) -> None:
        """Until `stop` is set; `check` is called ten times a second and may raise.

        Raises:
            KtError: the connection ended by itself.
        """
        while not stop.wait(0.1):
            check()  # first: what it finds may be why the loop has ended
            self.check()

    def check(self) -> None:
        """Nothing, while the session lives.

        Raises:
            KtError: why it does not.
        """
        if self._given_up.is_set():
            raise TunnelLost("the connection is not wanted any more")
        if not self.loop.running:
            raise self.failure()

    def failure(self) -> KtError:
        """Why the loop ended."""
        failure = self.loop.failure
        if isinstance(failure, KtError):
            return failure
        return TunnelLost("the connection ended", why=repr(failure) if failure else "")

    # -- down

    def give_up(self) -> None:
        """Wait for nothing any more; what another thread is bringing up is taken back there."""
        self._given_up.set()

    def close(self) -> list[KtError]:
        """Undo: the tunnel, then the cluster's objects. What could not be removed. One thread at a time."""
        self.give_up()
        with self._closing:
            return self._close()

    def _close(self) -> list[KtError]:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self.lanes.close()
        if self.loop.running:
            time.sleep(0.02)
        self.loop.stop()
        self.lanes.close_carriers()
        failed = self._predecessors.remove()
        if self.shadow is not None:
            failed += undo_sequence(self.api, self.shadow.sequence)
        self.shadow = None
        self.api.close()
        return failed

    def up(self) -> Shadow:
        """The shadow pod.

        Raises:
            ShadowFailed: there is none.
        """
        if self.shadow is None:
            raise ShadowFailed("there is no shadow pod")
        return self.shadow
