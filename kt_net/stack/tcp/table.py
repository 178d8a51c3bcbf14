"""All connections: which one a segment is for, who may open one, whose timer is due, who has something to send.

Not here: what a segment does to a connection (connection.py).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator

from kt_net.addr import TCP
from kt_net.errors import LimitExceeded, StreamClosed
from kt_net.stack.config import Counters, StackConfig
from kt_net.stack.egress import Egress
from kt_net.stack.events import FlowAddress, FlowRequested, StackEvent
from kt_net.stack.path import Path
from kt_net.stack.tcp.connection import Connection
from kt_net.stack.tcp.states import State
from kt_net.wire.tcp import ACK, FIN, RST, SYN, TcpHeader, parse_tcp

_CLOSED = State.CLOSED  # looked up once: see connection.py
_OPENING = (State.PENDING, State.SYN_SENT, State.SYN_RECEIVED)


class _Entry:
    """A connection in the table. `cause`: its SYN, for an ICMP error to quote, until it is answered."""

    __slots__ = ("cause", "connection", "key", "opening", "timer")

    def __init__(self, connection: Connection, key: bytes, cause: bytes) -> None:
        self.connection = connection
        self.key = key
        self.cause = cause
        self.opening = True
        self.timer: float | None = None  # its entry in the heap


class Connections:
    """TCP of one device.

    Args:
        numbers: gives out flow numbers.
        entropy: like os.urandom.
    """

    def __init__(
        self,
        *,
        egress: Egress,
        events: deque[StackEvent],
        counters: Counters,
        config: StackConfig,
        entropy: Callable[[int], bytes],
        numbers: Iterator[int],
    ) -> None:
        self._egress = egress
        self._events = events
        self._counters = counters
        self._config = config
        self._entropy = entropy
        self._numbers = numbers
        self._by_key: dict[bytes, _Entry] = {}  # by program's and far end, as the program's packets have them
        self._by_flow: dict[int, _Entry] = {}
        self._opening = 0
        self._dirty: dict[int, Connection] = {}
        # Lazily: entries of dead timers are passed over, of re-armed ones moved when they surface.
        self._timers: list[tuple[float, int]] = []
        self._challenges = (0.0, 0)  # start of the second, how many in it

    def __len__(self) -> int:
        return len(self._by_flow)

    def __contains__(self, flow: int) -> bool:
        return flow in self._by_flow

    def connections(self) -> list[Connection]:
        """All of them, at once: another thread may ask."""
        return [entry.connection for entry in list(self._by_flow.values())]

    def get(self, flow: int) -> Connection | None:
        """The connection of that flow."""
        entry = self._by_flow.get(flow)
        return None if entry is None else entry.connection

    # -- segments in

    def receive(self, source: bytes, destination: bytes, data: memoryview, cause: memoryview, *, now: float) -> None:
        """A segment whose checksum is right.

        Raises:
            MalformedPacket: it is none.
        """
        header = parse_tcp(data)
        key = b"".join((source, destination, data[:4]))
        entry = self._by_key.get(key)
        if header.flags & (SYN | ACK | RST) == SYN and entry is not None and entry.connection.state is State.TIME_WAIT:
            # RFC 9293 section 3.6.1: a new connection may follow at once; the program's kernel chose its number.
            entry.connection.drop()
            self._forget(entry)
            entry = None
        if entry is not None:
            connection = entry.connection
            connection.receive(header, data[header.header_octets :], self._egress, now=now)
            if connection.state is _CLOSED:
                self._forget(entry)  # its ends may be another connection's with the next packet
            else:
                self._dirty[connection.flow] = connection
            return
        path = Path(FlowAddress(destination, header.destination_port), FlowAddress(source, header.source_port))
        if header.flags & (SYN | ACK | RST) != SYN:
            self._no_such_connection(path, header, len(data) - header.header_octets)
            return
        if self._opening >= self._config.pending_flows or len(self._by_flow) >= self._config.tcp_flows:
            self._counters.overflow += 1
            return
        connection = self._new(key, path, bytes(cause), now=now)
        connection.adopt(header, now=now)
        self._events.append(FlowRequested(connection.flow, TCP, path.program, path.far))

    def _new(self, key: bytes, path: Path, cause: bytes, *, now: float) -> Connection:
        chance = self._entropy(8)
        connection = Connection(
            next(self._numbers),
            path,
            initial=int.from_bytes(chance[:4], "big"),
            clock_offset=int.from_bytes(chance[4:], "big"),
            mss=self._egress.mss(v6=path.v6),
            largest=self._egress.largest(v6=path.v6),
            config=self._config,
            emit=self._events.append,
            challenge=self._may_challenge,
            now=now,
        )
        entry = _Entry(connection, key, cause)
        self._by_key[key] = self._by_flow[connection.flow] = entry
        self._opening += 1
        return connection

    def _no_such_connection(self, path: Path, header: TcpHeader, octets: int) -> None:
        """RFC 9293 section 3.10.7.1: a segment for no connection is answered with a reset."""
        if header.flags & RST:
            return
        if header.flags & ACK:
            self._egress.segment(path, 1, header.acknowledgement, 0, RST, 0, b"", [], 0)
        else:
            behind = header.sequence + octets + (1 if header.flags & FIN else 0)
            self._egress.segment(path, 1, 0, behind & 0xFFFFFFFF, RST | ACK, 0, b"", [], 0)

    def _may_challenge(self, now: float) -> bool:
        """RFC 5961 section 7: so many challenges a second, over all connections."""
        start, count = self._challenges
        if now - start >= 1.0:
            start, count = now, 0
        self._challenges = (start, count + 1)
        return count < self._config.challenge_acks

    # -- segments out

    def transmit(self, *, now: float) -> None:
        """Let everybody send who was touched since the last time."""
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            for connection in dirty.values():
                entry = self._by_flow.get(connection.flow)
                if entry is not None:
                    connection.transmit(self._egress, now=now)
                    self._settle(entry)

    # -- time

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called."""
        while self._timers:
            at, flow = self._timers[0]
            entry = self._by_flow.get(flow)
            if entry is None or entry.timer != at:
                heapq.heappop(self._timers)
                continue
            wanted = entry.connection.timer_at
            if wanted is not None and wanted <= at:
                return at
            heapq.heappop(self._timers)
            entry.timer = wanted
            if wanted is not None:
                heapq.heappush(self._timers, (wanted, flow))
        return None

    def handle_timer(self, *, now: float) -> None:
        """Retransmissions, probes, delayed acknowledgements, ends."""
        while (at := self.next_timer()) is not None and at <= now:
            _, flow = heapq.heappop(self._timers)
            entry = self._by_flow[flow]
            entry.timer = None
            entry.connection.handle_timer(self._egress, now=now)
            self._dirty[flow] = entry.connection
            self._settle(entry)

    def _settle(self, entry: _Entry) -> None:
        """Keep tables and timers right after anything happened to a connection."""
        connection = entry.connection
        state = connection.state
        if state is _CLOSED:
            self._forget(entry)
            return
        if entry.opening and state not in _OPENING:
            entry.opening = False
            self._opening -= 1
        at = connection.timer_at
        if at is not None and (entry.timer is None or at < entry.timer):
            entry.timer = at
            heapq.heappush(self._timers, (at, connection.flow))
            if len(self._timers) > 2 * len(self._by_flow) + 1024:
                self._sweep()

    def _sweep(self) -> None:
        """Drop the timers of connections that are gone, before there are more of them than of others."""
        self._timers = [
            (at, flow)
            for at, flow in self._timers
            if (entry := self._by_flow.get(flow)) is not None and entry.timer == at
        ]
        heapq.heapify(self._timers)

    # -- verbs

    def open(self, far: FlowAddress, program: FlowAddress, *, window: int, now: float) -> int:
        """Connect to a program from `far`.

        Raises:
            LimitExceeded: too many connections, or this very one exists.
        """
        key = b"".join((program.address, far.address, program.port.to_bytes(2, "big"), far.port.to_bytes(2, "big")))
        if key in self._by_key or len(self._by_flow) >= self._config.tcp_flows:
            raise LimitExceeded("no room for another connection between these ends")
        connection = self._new(key, Path(far, program), b"", now=now)
        connection.open(window, now=now)
        self._dirty[connection.flow] = connection
        return connection.flow

    def accept(self, flow: int, *, window: int) -> None:
        """See `Stack.accept`."""
        entry = self._entry(flow)
        entry.connection.accept(window)
        entry.cause = b""
        self._dirty[flow] = entry.connection

    def refuse(self, flow: int) -> None:
        """See `Stack.refuse`."""
        entry = self._entry(flow)
        entry.connection.refuse(self._egress)
        self._forget(entry)

    def withdraw(self, flow: int) -> tuple[Path, bytes]:
        """Forget a flow without a word; gives back what an ICMP error about it needs."""
        entry = self._entry(flow)
        entry.connection.drop()
        self._forget(entry)
        return entry.connection.path, entry.cause

    def grant(self, flow: int, octets: int) -> None:
        """See `Stack.grant`."""
        connection = self._entry(flow).connection
        if connection.grant(octets):
            self._dirty[flow] = connection

    def send(self, flow: int, data: bytes | memoryview) -> None:
        """See `Stack.send`."""
        connection = self._entry(flow).connection
        if connection.waiting + len(data) > self._config.send_buffer:
            raise LimitExceeded(f"flow {flow} has {connection.waiting} octets waiting for its program")
        connection.send(data)
        self._dirty[flow] = connection

    def finish(self, flow: int) -> None:
        """See `Stack.finish`."""
        entry = self._by_flow.get(flow)
        if entry is not None:
            entry.connection.finish()
            self._dirty[flow] = entry.connection

    def reset(self, flow: int) -> None:
        """See `Stack.reset`."""
        entry = self._by_flow.get(flow)
        if entry is not None:
            entry.connection.abort(self._egress)
            self._forget(entry)

    def _entry(self, flow: int) -> _Entry:
        entry = self._by_flow.get(flow)
        if entry is None:
            raise StreamClosed(f"flow {flow} is gone")
        return entry

    def _forget(self, entry: _Entry) -> None:
        flow = entry.connection.flow
        if self._by_flow.pop(flow, None) is None:
            return
        if entry.opening:
            self._opening -= 1
        del self._by_key[entry.key]
        self._dirty.pop(flow, None)
