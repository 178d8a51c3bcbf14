"""The lanes of one session: opened when wanted, dialled, dialled again when a carrier is lost, closed when idle.

One thread dials, one lane after the other; everything else happens on the loop.

Not here: what a lane is (kt_net.tunnel.lane), which stream goes by which (kt_net.relay.streams), the shadow pod (engine.py).
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from kt_net.drivers.changes import Changes
from kt_net.drivers.clock import monotonic
from kt_net.drivers.lane import LaneDriver
from kt_net.drivers.loop import Loop
from kt_net.errors import (
    AdmissionRefused,
    AlreadyThere,
    ApiUnreachable,
    ImageUnavailable,
    KtError,
    ObjectMissing,
    ShadowFailed,
    TunnelLost,
)
from kt_net.kube.carrier import Carrier
from kt_net.relay.streams import CONTROL_LANE, Switchboard
from kt_net.tunnel.hello import INBOUND, SESSION_OCTETS, Hello
from kt_net.tunnel.mux import Role
from kt_net.tunnel.session import Tunnel, TunnelCounters

logger = logging.getLogger(__name__)

#: Lanes that are kept whatever there is to carry: control, and two, so that small messages have one without a bulk transfer.
KEPT_LANES: Final = 3
MAX_LANES: Final = 6
#: A lane beyond those without a stream is closed after so many seconds.
IDLE_SECONDS: Final = 60.0
#: The agent listens some tenths of a second after its container runs.
LISTEN_SECONDS: Final = 15.0
#: Between two attempts: at first and at most; at most after the first two minutes; and for one attempt.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.5
LATER_PAUSE: Final = 15.0
PATIENT_SECONDS: Final = 120.0
ATTEMPT_SECONDS: Final = 2.0
FIRST_SECONDS: Final = 10.0
#: For the thread that dials, when everything ends: it may be starting a shadow pod, which is then to be removed.
CLOSE_SECONDS: Final = 15.0


@dataclass(slots=True, eq=False)
class _Lane:
    number: int
    tunnel: Tunnel
    driver: LaneDriver
    #: The last carrier reached the agent.
    attached: bool = False
    attached_at: float | None = None
    idle_since: float = field(default_factory=monotonic)


class Lanes:
    """All of them. A part of the loop.

    Args:
        dial: a carrier to the agent, within so many seconds; KtError when there is none.
        look: sees to it that there is an agent, starting another one when it is gone.
        report: what a hello of ours tells.
        failed: ends the session.
        progress: told what users should know, a line each.
    """

    def __init__(
        self,
        loop: Loop,
        switchboard: Switchboard,
        *,
        dial: Callable[[float], Carrier],
        look: Callable[[], None],
        report: dict[str, str],
        failed: Callable[[KtError], None],
        progress: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._switchboard = switchboard
        self._dial = dial
        self._look = look
        self._report = report
        self._failed = failed
        self._progress = progress
        self._session = os.urandom(SESSION_OCTETS)
        self._lanes: dict[int, _Lane] = {}
        self._waiting: deque[_Lane] = deque()  # for a carrier
        self._wake = threading.Condition()
        self._closing = threading.Event()
        self._looking = threading.Lock()  # held by who may be making objects in the cluster
        self._thread = threading.Thread(target=self._dial_all, name="ktctl-dial", daemon=True)
        self._changes = Changes(loop, self.probe)
        self._idle_at: float | None = None
        self._began = False  # the agent has said hello once
        #: Told as well when this machine's links or routes have changed, or it has slept.
        self.changed: Callable[[str], None] = lambda why: None
        #: Why the last carrier was of no use.
        self.trouble = ""
        self._anew = False  # users were told that the agent has begun anew
        self._broken = False  # users were told that the way is cut, and not yet that it is whole

    # -- for the engine

    def start(self) -> None:
        """Open the first lane; the others follow when it works."""
        self._open(CONTROL_LANE)
        self._loop.add(self)
        self._thread.start()

    def close(self) -> None:
        """Dial no more; then, on the loop, say goodbye on every lane.

        A shadow pod that is being brought up is waited for, which takes it back. A dial is not: nothing comes of it.
        """
        self._closing.set()
        with self._wake:
            self._wake.notify()
        if self._looking.acquire(timeout=CLOSE_SECONDS):
            self._looking.release()
        self._loop.call_soon(self._go_away)

    def probe(self, why: str) -> None:
        """The way to the agent may be another one: ask now, and do not wait long for the answers."""
        logger.debug("%s: probing", why)
        self.changed(why)
        for lane in self._lanes.values():
            lane.tunnel.probe(now=self._loop.now())

    def close_carriers(self) -> None:
        """Once the loop has ended."""
        self._changes.close()
        for lane in self._lanes.values():
            lane.driver.close_carrier()

    def stats(self) -> TunnelCounters:
        """Of all lanes together; the round trip is the control lane's."""
        counters = [lane.tunnel.stats() for lane in list(self._lanes.values())]
        return TunnelCounters(
            sum(counter.streams for counter in counters),
            sum(counter.octets_sent for counter in counters),
            sum(counter.octets_received for counter in counters),
            counters[0].rtt_s if counters else None,
        )

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._lanes)

    # -- events of lanes, on the loop

    def greeted(self, number: int) -> None:
        """A lane has begun: its agent has said hello."""
        self._works(self._lanes[number])
        for other in range(KEPT_LANES):
            if other not in self._lanes:
                self._open(other)

    def gone_on(self, number: int) -> None:
        """A lane goes on over another carrier."""
        self._works(self._lanes[number])

    def _works(self, lane: _Lane) -> None:
        lane.attached = self._began = True
        if self._broken and all(other.attached for other in self._lanes.values()):
            self._broken = self._anew = False
            self._progress("connected again")

    def silent(self, number: int) -> None:
        """Nothing comes on a lane any more."""
        self._lanes[number].driver.give_up(TunnelLost("nothing comes through the tunnel any more"))

    def forgotten(self, number: int) -> None:
        """The agent knows nothing of a lane any more: its streams are over, and it begins anew."""
        if not self._anew:
            self._anew = True
            self._progress("the agent has begun anew; reconnecting")
        self._begin_anew(self._lanes[number])

    def begin_anew(self) -> None:
        """There is another agent: all streams are over."""
        self._session = os.urandom(SESSION_OCTETS)
        for lane in self._lanes.values():
            self._begin_anew(lane)

    def _begin_anew(self, lane: _Lane) -> None:
        lane.driver.begin_anew(self._hello(lane.number))
        lane.attached, self._broken = False, True
        self._want(lane)

    def _hello(self, number: int) -> Hello:
        # Callers go by the lanes that are kept: the others may be closed while one is on its way.
        report = {**self._report, INBOUND: True} if CONTROL_LANE < number < KEPT_LANES else self._report
        return Hello(session=self._session, lane=number, report=report)

    def _open(self, number: int) -> None:
        tunnel = Tunnel(role=Role.CLIENT, hello=self._hello(number))
        lane = _Lane(number, tunnel, LaneDriver(self._loop, tunnel, partial(self._lost, number)))
        self._lanes[number] = lane
        self._switchboard.add(number, tunnel)
        self._want(lane)

    def _lost(self, number: int, why: TunnelLost) -> None:
        lane = self._lanes[number]
        self.trouble = str(why)
        if lane.attached and not self._broken and not self._closing.is_set():
            self._broken = True
            self._progress(f"{why}; reconnecting")
        lane.attached = False
        self._want(lane)

    def _go_away(self) -> None:
        for lane in self._lanes.values():
            lane.tunnel.go_away(now=self._loop.now())

    # -- a part of the loop

    def pump(self, *, now: float) -> None:
        """Another lane, when streams have to share one that has much to carry."""
        if self._switchboard.crowded:
            self._switchboard.crowded = False
            free = [number for number in range(MAX_LANES) if number not in self._lanes]
            if free and all(lane.attached for lane in self._lanes.values()):
                self._open(free[0])
                self._idle_at = now + IDLE_SECONDS

    def next_timer(self) -> float | None:
        """See `Part`."""
        return self._idle_at

    def handle_timer(self, *, now: float) -> None:
        """Close lanes that have had nothing to do for long."""
        if self._idle_at is None or now < self._idle_at:
            return
        for lane in list(self._lanes.values()):
            if lane.number < KEPT_LANES:
                continue
            if lane.tunnel.streams:
                lane.idle_since = now
            elif now - lane.idle_since >= IDLE_SECONDS and lane.attached:
                self._shut(lane, now=now)
        self._idle_at = now + IDLE_SECONDS / 4 if len(self._lanes) > KEPT_LANES else None

    def _shut(self, lane: _Lane, *, now: float) -> None:
        self._switchboard.remove(lane.number)
        del self._lanes[lane.number]
        lane.tunnel.go_away(now=now)
        lane.driver.pump(now=now)
        lane.driver.detach()

    # -- the thread that dials

    def _want(self, lane: _Lane) -> None:
        with self._wake:
            if lane not in self._waiting:
                self._waiting.append(lane)
            self._wake.notify()

    def _dial_all(self) -> None:
        while not self._closing.is_set():
            with self._wake:
                while not self._waiting and not self._closing.is_set():
                    self._wake.wait()
                if self._closing.is_set():
                    return
                lane = self._waiting[0]
            try:
                self._dial_one(lane)
            except KtError as error:
                self._failed(error)
                return

    def _dial_one(self, lane: _Lane) -> None:
        """A carrier for `lane`, however long it takes.

        Raises:
            KtError: there will be none.
        """
        started, pause, before = monotonic(), FIRST_PAUSE, lane.attached_at
        if before is not None and started - before < LISTEN_SECONDS:
            self._closing.wait(FIRST_PAUSE)  # the last one did not live long: perhaps nobody listens yet
        while not self._closing.is_set():
            try:
                if before is not None:
                    with self._looking:
                        if self._closing.is_set():
                            return
                        self._look()
                carrier = self._dial(ATTEMPT_SECONDS if self._began else FIRST_SECONDS)
                if self._closing.is_set():
                    carrier.close()
                    return
            except KtError as error:
                if self._final(error, monotonic() - started):
                    raise
                self.trouble = str(error)
                logger.debug("dialling lane %d: %s", lane.number, error)
            else:
                with self._wake:
                    self._waiting.remove(lane)
                self._loop.call_soon(partial(self._attach, lane, carrier))
                if self._closing.is_set() and not self._loop.running:
                    carrier.close()
                return
            longest = LONGEST_PAUSE if monotonic() - started < PATIENT_SECONDS else LATER_PAUSE
            self._closing.wait(pause * (0.5 + int.from_bytes(os.urandom(1), "big") / 255))
            pause, before = min(2 * pause, longest), started

    def _final(self, error: KtError, tried: float) -> bool:
        """Whether another attempt makes no sense. An API server that has just started refuses what it will allow in a moment."""
        if isinstance(error, ShadowFailed | ImageUnavailable | AdmissionRefused | AlreadyThere):
            return True
        if not self._began:
            return not isinstance(error, TunnelLost | ObjectMissing) or tried > LISTEN_SECONDS
        return not isinstance(error, ApiUnreachable) and tried > PATIENT_SECONDS

    def _attach(self, lane: _Lane, carrier: Carrier) -> None:
        if self._lanes.get(lane.number) is not lane:
            carrier.close()  # closed in the meantime
            return
        lane.attached_at = monotonic()
        lane.driver.attach(carrier)
