"""A network in virtual time: two stacks, a bottleneck between them, and what goes wrong on the way. Seeded: a run repeats to the octet.

One stack plays the programs' kernel (it opens the flows), the other one is as in life. Packets are real ones, with real checksums.

Not here: what is expected (test_netsim.py and its table).
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, replace

from kt_net.stack import (
    DataAcknowledged,
    DataReceived,
    FlowAddress,
    FlowRequested,
    Stack,
    StackConfig,
)

MTU = 1500
BLOCK = bytes(16 * 1024)
PROGRAM, FAR = bytes([10, 0, 0, 2]), bytes([10, 96, 0, 10])


@dataclass(frozen=True)
class Scenario:
    """A path and who uses it.

    Attributes:
        rate: octets a second, each way; `delay`: seconds, one way; `queue`: packets that wait before the bottleneck.
        loss, duplicate, reorder: probabilities for each packet, each way; a reordered one takes up to `jitter` longer.
        window: octets that a receiver grants.
        stagger: seconds between the beginnings of two flows.
        seconds: for how long everybody sends as much as it can.
    """

    name: str
    flows: int = 1
    rate: float = 1_250_000.0
    delay: float = 0.010
    queue: int = 64
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    jitter: float = 0.010
    window: int = 256 * 1024
    stagger: float = 0.010
    seconds: float = 4.0
    congestion: str = "cubic"

    def longer(self, times: int) -> Scenario:
        """For `--long`."""
        return replace(self, seconds=self.seconds * times)


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario.

    Attributes:
        used: payload that arrived in order, of what the bottleneck carries, 0..1.
        again: segments sent again, of all with payload, 0..1.
        jain: fairness between flows (Jain, Chiu, Hawe 1984), 1/n..1.
        slowest: octets of the flow that got least.
    """

    used: float
    again: float
    jain: float
    slowest: int


class _Link:
    """One direction."""

    def __init__(self, scenario: Scenario, chance: random.Random) -> None:
        self._scenario = scenario
        self._chance = chance
        self._free_at = 0.0

    def arrivals(self, packet: bytes, now: float) -> list[float]:
        """When the packet arrives: never, once, or twice."""
        scenario, chance = self._scenario, self._chance
        begin = max(now, self._free_at)
        if begin - now > scenario.queue * MTU / scenario.rate:
            return []  # the queue is full
        self._free_at = begin + len(packet) / scenario.rate
        if chance.random() < scenario.loss:
            return []
        copies = 2 if chance.random() < scenario.duplicate else 1
        late = chance.random() * scenario.jitter if chance.random() < scenario.reorder else 0.0
        return [self._free_at + scenario.delay + late] * copies


class Simulation:
    """Runs one scenario."""

    def __init__(self, scenario: Scenario, seed: int = 1) -> None:
        self.scenario = scenario
        config = StackConfig(congestion=scenario.congestion)
        chance = random.Random(seed)
        self.stacks = tuple(Stack(entropy=chance.randbytes, mtu=MTU, offload=False, config=config) for _ in range(2))
        self._links = tuple(_Link(scenario, random.Random(seed + number)) for number in (1, 2))
        self._path: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._opened = 0
        self.now = 0.0
        self.received: dict[int, int] = {}  # by flow of the second stack
        self.segments = 0

    def run(self) -> Outcome:
        """To the end."""
        self._move()
        while (at := self._next()) is not None and at <= self.scenario.seconds:
            assert at >= self.now, "time goes backwards"
            self.now = at
            self._begin()
            while self._path and self._path[0][0] <= at:
                _, _, target, packet = heapq.heappop(self._path)
                self.stacks[target].receive_packet(packet, now=at)
            for stack in self.stacks:
                timer = stack.next_timer()
                if timer is not None and timer <= at:
                    stack.handle_timer(now=at)
            self._move()
        return self._outcome()

    def _begin(self) -> None:
        """Open what is due."""
        scenario, sender = self.scenario, self.stacks[0]
        while self._opened < scenario.flows and self._opened * scenario.stagger <= self.now:
            flow = sender.open(
                FlowAddress(PROGRAM, 1000 + self._opened), FlowAddress(FAR, 80), window=scenario.window, now=self.now
            )
            self._opened += 1
            for _ in range(max(1, 2 * scenario.window // len(BLOCK))):
                sender.send(flow, BLOCK, now=self.now)

    def _next(self) -> float | None:
        times = [self._opened * self.scenario.stagger] if self._opened < self.scenario.flows else []
        times += [timer for stack in self.stacks if (timer := stack.next_timer()) is not None]
        if self._path:
            times.append(self._path[0][0])
        return max(self.now, min(times)) if times else None

    def _move(self) -> None:
        for number, stack in enumerate(self.stacks):
            while (event := stack.next_event()) is not None:
                if isinstance(event, FlowRequested):
                    stack.accept(event.flow, window=self.scenario.window, now=self.now)
                    self.received[event.flow] = 0
                elif isinstance(event, DataReceived):
                    self.received[event.flow] += len(event.data)
                    stack.grant(event.flow, len(event.data), now=self.now)
                elif isinstance(event, DataAcknowledged):
                    self._refill(event.flow, event.octets)
            for buffers in stack.packets_to_send(now=self.now):
                packet = b"".join(buffers)
                self.segments += len(packet) > 100
                for at in self._links[number].arrivals(packet, self.now):
                    self._count += 1
                    heapq.heappush(self._path, (at, self._count, 1 - number, packet))

    def _refill(self, flow: int, octets: int) -> None:
        self.stacks[0].send(flow, bytes(octets), now=self.now)

    def _outcome(self) -> Outcome:
        scenario = self.scenario
        got = list(self.received.values())
        again = sum(flow.retransmits for flow in self.stacks[0].flow_stats(now=self.now))
        return Outcome(
            used=sum(got) / (scenario.rate * scenario.seconds),
            again=again / max(1, self.segments),
            jain=sum(got) ** 2 / (len(got) * sum(value * value for value in got)) if any(got) else 0.0,
            slowest=min(got, default=0),
        )
