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
from functools import partial
from typing import Any

from kt_net.choreography.names import shadow_name
from kt_net.choreography.shadow import AGENT_PORT, DEFAULT_IMAGE, IDLE_EXIT, ShadowOptions
from kt_net.drivers.clock import monotonic
from kt_net.drivers.lane import LaneDriver
from kt_net.drivers.loop import Loop
from kt_net.errors import (
    AdmissionRefused,
    ApiUnreachable,
    ImageUnavailable,
    KtError,
    ObjectMissing,
    ShadowFailed,
    TunnelLost,
)
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.carrier import WebsocketCarrier
from kt_net.kube.config import Cluster
from kt_net.kube.dial import open_carrier
from kt_net.kube.run import undo_sequence
from kt_net.kube.shadow import Shadow, start_shadow
from kt_net.relay.streams import SessionEvent, Switchboard
from kt_net.session.heartbeat import Heartbeat, micro_time
from kt_net.tunnel.events import Forgotten, GoneOn, HelloReceived, PeerSilent
from kt_net.tunnel.hello import SESSION_OCTETS, Hello
from kt_net.tunnel.mux import Role
from kt_net.tunnel.session import Tunnel

VERSION = "0.1.0.dev0"
#: The agent listens some tenths of a second after its container runs.
LISTEN_SECONDS = 15.0
RETRY_SECONDS = 0.1
HELLO_SECONDS = 10.0
#: Between two attempts to reconnect: at first and at most; at most after the first two minutes; and for one attempt.
FIRST_PAUSE, LONGEST_PAUSE, LATER_PAUSE = 0.1, 1.5, 15.0
PATIENT_SECONDS = 120.0
ATTEMPT_SECONDS = 2.0
#: For a shadow pod that is being started when everything ends.
CLOSE_SECONDS = 15.0

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What every session is told.

    Attributes:
        agent: the zipapp that the shadow pod runs.
        user: who this is, for others to see.
        pod_seconds: for the shadow pod to run.
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


class Engine:
    """A shadow pod, a tunnel to it, and the loop that drives it.

    Args:
        summary: for the Lease, read now and then.
    """

    def __init__(self, cluster: Cluster, api: HttpKubeApi, options: SessionOptions) -> None:
        self.cluster = cluster
        self.api = api
        self._options = options
        self.loop = Loop()
        self.tunnel = Tunnel(role=Role.CLIENT, hello=self._hello())
        self.switchboard = Switchboard(self.tunnel)
        self.shadow: Shadow | None = None
        #: What the agent reported; set with `_greeted`.
        self.report: Mapping[str, Any] = {}
        self._greeted = threading.Event()
        self._closing = threading.Event()
        self._dialling: threading.Thread | None = None
        self._attached_at = 0.0
        self._attached = True  # the last carrier reached the agent
        self._summary: Callable[[], Mapping[str, Any]] = dict
        #: Told what users should know while it runs, a line each.
        self.progress: Progress = lambda line: None
        self._lane: LaneDriver | None = None
        self._heartbeat: Heartbeat | None = None
        #: Moves what stands on the tunnel; a session with a stack puts its relay's here.
        self.pump: Callable[[float], None] = self._pump_switchboard

    @staticmethod
    def _hello() -> Hello:
        return Hello(session=os.urandom(SESSION_OCTETS), report={"client": VERSION})

    # -- up

    def start_shadow(self) -> Shadow:
        """Create the shadow pod's objects and wait until it runs.

        Raises:
            KtError: the refusals of kt_net.kube; then nothing is left behind.
        """
        now = self.api.server_time()
        options = ShadowOptions(
            name=shadow_name(os.urandom(5)),
            namespace=self.cluster.namespace,
            image=self._options.image,
            agent=self._options.agent,
            user=self._options.user,
            target=os.urandom(10).hex(),
            now_rfc3339=micro_time(now),
            now_unix=int(now),
            idle_exit=self._options.idle_exit,
        )
        self.shadow = start_shadow(self.api, options, deadline_s=self._options.pod_seconds, clock=monotonic)
        return self.shadow

    def connect(self, summary: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Open the tunnel; what the agent reports.

        Raises:
            KtError: no port-forward, or nobody answers there.
        """
        shadow = self._up()
        carrier = self._dial(shadow.pod)
        self._lane = LaneDriver(self.loop, carrier, self.tunnel, self._pump, self._carrier_lost)
        self.loop.start("ktctl-loop")
        limit = monotonic() + HELLO_SECONDS
        while not self._greeted.wait(0.05):
            if not self.loop.running:
                raise self.failure()
            if monotonic() > limit:
                raise TunnelLost("the agent does not answer", why=f"no hello within {HELLO_SECONDS:g} s")
        self._summary = summary
        self._beat(shadow)
        return self.report

    def _beat(self, shadow: Shadow) -> None:
        """Renew the Lease of `shadow` from now on."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._heartbeat = Heartbeat(self.api, self.cluster.namespace, shadow.options.name, self._summary)
        self._heartbeat.start()

    def _dial(self, pod: str) -> WebsocketCarrier:
        """A port-forward to the agent's listener. The API server accepts one before anybody listens: try again until the agent does."""
        limit = monotonic() + LISTEN_SECONDS
        while True:
            try:
                carrier = open_carrier(self.cluster, self.cluster.namespace, pod, AGENT_PORT)
                if _answers(carrier, self.tunnel):
                    return carrier
                carrier.close()
                error: KtError = ShadowFailed("the agent in the shadow pod does not listen")
            except (TunnelLost, ObjectMissing) as lost:
                error = lost
            if monotonic() > limit:
                raise error
            time.sleep(RETRY_SECONDS)

    def _carrier_lost(self, why: TunnelLost) -> None:
        """Another carrier, by a thread of its own: dialling waits. On the loop's thread."""
        if self._closing.is_set():
            return
        if self._attached:
            self.progress(f"{why}; reconnecting")
        self._attached = False
        self._in_background(self._reconnect)

    def _in_background(self, run: Callable[[], None]) -> None:
        self._dialling = threading.Thread(target=run, name="ktctl-dial", daemon=True)
        self._dialling.start()

    def _reconnect(self) -> None:
        started, pause = monotonic(), FIRST_PAUSE
        if started - self._attached_at < LISTEN_SECONDS:
            self._closing.wait(2 * FIRST_PAUSE)  # the last one did not live long: perhaps nobody listens yet
        while not self._closing.is_set():
            try:
                gone = self._gone()
                if gone:
                    self._replace_shadow(gone)
                pod = self._up().pod
                carrier = open_carrier(self.cluster, self.cluster.namespace, pod, AGENT_PORT, seconds=ATTEMPT_SECONDS)
            except (ShadowFailed, ImageUnavailable, AdmissionRefused) as error:
                self._fail(error)
                return
            except KtError as error:
                # An API server that has just started refuses what it will allow in a moment.
                if not isinstance(error, ApiUnreachable) and monotonic() - started > PATIENT_SECONDS:
                    self._fail(error)
                    return
                logger.debug("reconnecting: %s", error)
            else:
                self.loop.call_soon(partial(self._attach, carrier))
                return
            longest = LONGEST_PAUSE if monotonic() - started < PATIENT_SECONDS else LATER_PAUSE
            self._closing.wait(pause * (0.5 + int.from_bytes(os.urandom(1), "big") / 255))
            pause = min(2 * pause, longest)

    def _gone(self) -> str:
        """Why the shadow pod leads nowhere any more; nothing when it may.

        Raises:
            ApiUnreachable: nobody knows.
        """
        pod = self._up().pod
        try:
            found = self.api.get("Pod", self.cluster.namespace, pod)
        except ObjectMissing:
            return f"the shadow pod {pod} is gone"
        phase = found.get("status", {}).get("phase")
        if found.get("metadata", {}).get("deletionTimestamp"):
            return f"the shadow pod {pod} is being deleted"
        return "" if phase in ("Running", "Pending") else f"the shadow pod {pod} has ended ({phase})"

    def _replace_shadow(self, why: str) -> None:
        """Another shadow pod, with objects of its own; the old one's go. Programs' flows through the old one end at once."""
        self.progress(f"{why}; starting another one")
        self.loop.call_soon(self._begin_anew)
        old = self._up()
        shadow = self.start_shadow()
        for failed in undo_sequence(self.api, old.sequence):
            logger.warning("of the old shadow pod: %s", failed)
        self.progress(f"shadow pod {shadow.pod}")
        self._beat(shadow)

    def _begin_anew(self) -> None:
        if self._lane is not None:
            self._lane.begin_anew(self._hello())

    def _attach(self, carrier: WebsocketCarrier) -> None:
        if self._lane is not None:
            self._attached_at = monotonic()
            self._lane.attach(carrier)

    def _fail(self, error: KtError) -> None:
        """End the loop with `error`."""

        def fail() -> None:
            raise error

        self.loop.call_soon(fail)

    # -- while it runs

    def _pump(self, now: float) -> None:
        self.pump(now)

    def _pump_switchboard(self, now: float) -> None:
        self.switchboard.pump(now=now)
        while (event := self.switchboard.next_event()) is not None:
            self.session_event(event)

    def session_event(self, event: SessionEvent) -> None:
        """What the tunnel said about the session.

        Raises:
            TunnelLost: that it is over; ends the loop.
        """
        if isinstance(event, HelloReceived):
            self.report = event.hello.report
            self._greeted.set()
        elif isinstance(event, GoneOn):
            self._attached = True
            self.progress("connected again")
        elif isinstance(event, PeerSilent):
            if self._lane is not None:
                self._lane.give_up(TunnelLost("nothing comes through the tunnel any more"))
        elif isinstance(event, Forgotten):
            self.progress("the agent has begun anew; reconnecting")
            self._begin_anew()
            self._in_background(self._reconnect)
        else:
            raise TunnelLost("the agent in the shadow pod is gone", why=type(event).__name__)

    def wait(self, stop: threading.Event, check: Callable[[], None] = lambda: None) -> None:
        """Until `stop` is set; `check` is called ten times a second and may raise.

        Raises:
            KtError: the connection ended by itself.
        """
        while not stop.wait(0.1):
            if not self.loop.running:
                raise self.failure()
            check()

    def failure(self) -> KtError:
        """Why the loop ended."""
        failure = self.loop.failure
        if isinstance(failure, KtError):
            return failure
        return TunnelLost("the connection ended", why=repr(failure) if failure else "")

    # -- down

    def close(self) -> list[KtError]:
        """Undo: the tunnel, then the cluster's objects. What could not be removed."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._closing.set()
        if self._dialling is not None:
            self._dialling.join(CLOSE_SECONDS)  # what it is creating is to be removed, too
        if self.loop.running:
            self.loop.call_soon(lambda: self.tunnel.go_away(now=self.loop.now()))
            time.sleep(0.02)
        self.loop.stop()
        if self._lane is not None:
            self._lane.close_carrier()
        failed: list[KtError] = []
        if self.shadow is not None:
            failed = undo_sequence(self.api, self.shadow.sequence)
            self.shadow = None
        self.api.close()
        return failed

    def _up(self) -> Shadow:
        if self.shadow is None:
            raise ShadowFailed("there is no shadow pod")
        return self.shadow


def _answers(carrier: WebsocketCarrier, tunnel: Tunnel) -> bool:
    """Whether the other end says anything; its hello comes at once when it is there."""
    import select

    limit = monotonic() + HELLO_SECONDS
    while monotonic() < limit:
        if not carrier.pending:
            select.select([carrier.fileno()], [], [], 0.25)
        pieces = carrier.receive()
        for piece in pieces:
            tunnel.receive_data(piece, now=monotonic())
        if pieces:
            return True
    return False
