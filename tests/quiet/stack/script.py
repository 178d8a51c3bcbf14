"""A send/expect notation for segments between a program's kernel (us, in tests) and the stack.

    script.send(SYN, seq=100)              # the kernel's segment
    script.expect(SYN | ACK, ack=101)      # the stack's next segment
    script.expect_nothing()

A failure prints the whole conversation.

Not here: what TCP should do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from kt_net.addr import TCP
from kt_net.stack import Stack, StackConfig, StackEvent
from kt_net.wire import vnet
from kt_net.wire.checksum import internet_checksum, pseudo_header_sum
from kt_net.wire.ipv4 import IPv4Header, parse_ipv4
from kt_net.wire.ipv6 import IPv6Header, parse_ipv6
from kt_net.wire.tcp import ACK, FIN, PSH, RST, SYN, TcpHeader, parse_tcp

PROGRAM4, FAR4 = bytes([10, 0, 0, 2]), bytes([10, 96, 0, 10])
PROGRAM6, FAR6 = bytes.fromhex("fd00" + "00" * 13 + "02"), bytes.fromhex("fd00" + "00" * 13 + "10")
PORT, FAR_PORT = 40000, 80
#: Our initial sequence number straddles the sign bit, the stack's the wrap.
KERNEL_SEQ = 0x7FFFFFF0
STACK_SEQ = 0xFFFFFFF0
MTU = 1500
MSS = 1460
#: Of the handshake; seconds.
ROUND_TRIP = 0.01

_NAMES = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"))


@dataclass
class Segment:
    """What a test sees of a segment: numbers relative to both initial ones."""

    header: TcpHeader
    payload: bytes
    meta: vnet.VnetHeader

    def __str__(self) -> str:
        flags = "|".join(name for flag, name in _NAMES if self.header.flags & flag)
        head = self.header
        words = [
            f"{flags} seq={head.sequence:#x} ack={head.acknowledgement:#x} win={head.window} len={len(self.payload)}"
        ]
        if head.timestamp is not None:
            words.append(f"ts={head.timestamp}/{head.timestamp_echo}")
        words += [f"sack={left:#x}-{right:#x}" for left, right in head.sacks]
        return " ".join(words)


class Script:
    """One conversation with a stack of its own, on a virtual clock."""

    def __init__(self, *, v6: bool = False, offload: bool = False, config: StackConfig | None = None) -> None:
        self.v6 = v6
        self.offload = offload
        self.now = 1000.0
        self.stack = Stack(
            entropy=lambda count: STACK_SEQ.to_bytes(4, "big")[:count],
            mtu=MTU,
            offload=offload,
            config=config or StackConfig(),
        )
        self.log: list[str] = []
        self.flow = 0
        self._got: list[Segment] = []

    # -- the kernel's side

    def send(
        self,
        flags: int,
        *,
        seq: int = 0,
        ack: int | None = None,
        data: bytes = b"",
        window: int = 0xFFFF,
        mss: int | None = None,
        scale: int | None = None,
        port: int = PORT,
        ts: tuple[int, int] | None = None,
        sacks: tuple[tuple[int, int], ...] = (),
        sack_ok: bool = False,
        urgent: int = 0,
        more: bool = False,
    ) -> None:
        """A segment of the kernel; `seq`, `ack` and `sacks` count from the initial numbers; `ts`: TSval and TSecr as they are; `more`:
        others come in the same turn."""
        header = TcpHeader(
            port,
            FAR_PORT,
            (KERNEL_SEQ + seq) & 0xFFFFFFFF,
            0 if ack is None else (STACK_SEQ + ack) & 0xFFFFFFFF,
            flags,
            window,
            urgent=urgent,
            mss=mss,
            window_scale=scale,
            sack_permitted=sack_ok,
            timestamp=None if ts is None else ts[0],
            timestamp_echo=0 if ts is None else ts[1],
            sacks=tuple(((STACK_SEQ + left) & 0xFFFFFFFF, (STACK_SEQ + right) & 0xFFFFFFFF) for left, right in sacks),
        )
        self.log.append(f"{self.now:9.3f} kernel > {Segment(header, data, vnet.VnetHeader())}")
        self.stack.receive_packet(self.packet(header, data), now=self.now)
        if not more:
            self._collect()

    def packet(self, header: TcpHeader, data: bytes) -> bytes:
        """As the device would give it."""
        source, destination = (PROGRAM6, FAR6) if self.v6 else (PROGRAM4, FAR4)
        plain = header.emit()
        pseudo = pseudo_header_sum(source, destination, TCP, len(plain) + len(data))
        segment = header.emit(internet_checksum(plain + data, pseudo)) + data
        if self.v6:
            ip = IPv6Header(source, destination, TCP, 40, 40 + len(segment)).emit()
        else:
            ip = IPv4Header(source, destination, TCP, 20, 20 + len(segment)).emit()
        return (vnet.PLAIN if self.offload else b"") + ip + segment

    def take(self) -> list[Segment]:
        """All segments of the stack that wait."""
        self._collect()
        got, self._got = self._got, []
        return got

    def expect(
        self,
        flags: int,
        *,
        seq: int | None = None,
        ack: int | None = None,
        data: bytes | None = None,
        window: int | None = None,
        sacks: tuple[tuple[int, int], ...] | None = None,
    ) -> Segment:
        """The stack's next segment, which has to be as said."""
        self._collect()
        if not self._got:
            self.fail("nothing came")
        segment = self._got.pop(0)
        header = segment.header
        if header.flags & ~PSH != flags & ~PSH:
            self.fail(f"flags of {segment}")
        if seq is not None and header.sequence != (STACK_SEQ + seq) & 0xFFFFFFFF:
            self.fail(f"sequence of {segment}, expected {(STACK_SEQ + seq) & 0xFFFFFFFF:#x}")
        if ack is not None and header.acknowledgement != (KERNEL_SEQ + ack) & 0xFFFFFFFF:
            self.fail(f"acknowledgement of {segment}, expected {(KERNEL_SEQ + ack) & 0xFFFFFFFF:#x}")
        if data is not None and segment.payload != data:
            self.fail(f"payload of {segment}, expected {len(data)} octets")
        if window is not None and header.window != window:
            self.fail(f"window of {segment}, expected {window}")
        if sacks is not None:
            wanted = tuple(
                ((KERNEL_SEQ + left) & 0xFFFFFFFF, (KERNEL_SEQ + right) & 0xFFFFFFFF) for left, right in sacks
            )
            if header.sacks != wanted:
                self.fail(f"blocks of {segment}, expected {sacks}")
        return segment

    def expect_nothing(self) -> None:
        """The stack is silent."""
        self._collect()
        if self._got:
            self.fail(f"unexpected {self._got[0]}")

    def elapse(self, seconds: float) -> None:
        """Time passes; every timer that comes due goes off at its time."""
        end = self.now + seconds
        self._collect()
        while (timer := self.stack.next_timer()) is not None and timer <= end:
            self.now = max(self.now, timer)
            self.stack.handle_timer(now=self.now)
            self._collect()
        self.now = end

    # -- the relay's side

    def events(self) -> list[StackEvent]:
        """All that wait."""
        found = []
        while (event := self.stack.next_event()) is not None:
            found.append(event)
        return found

    def received(self) -> bytes:
        """Payload in the events that wait."""
        from kt_net.stack import DataReceived

        return b"".join(bytes(event.data) for event in self.events() if isinstance(event, DataReceived))

    def established(
        self,
        *,
        window: int = 100_000,
        scale: int | None = 7,
        kernel_window: int = 0xFFFF,
        sack_ok: bool = False,
        ts: int | None = None,
        mss: int = MSS,
    ) -> None:
        """A connection: SYN, accept, SYN-ACK, ACK. `ts`: the kernel's clock, when it offers timestamps."""
        from kt_net.stack import FlowRequested

        self.send(SYN, mss=mss, scale=scale, sack_ok=sack_ok, ts=None if ts is None else (ts, 0))
        (event,) = self.events()
        assert isinstance(event, FlowRequested)
        self.flow = event.flow
        self.stack.accept(self.flow, window=window, now=self.now)
        answer = self.expect(SYN | ACK, seq=0, ack=1)
        self.now += ROUND_TRIP
        self.send(
            ACK, seq=1, ack=1, window=kernel_window, ts=None if ts is None else (ts, answer.header.timestamp or 0)
        )
        self.expect_nothing()

    def _collect(self) -> None:
        for buffers in self.stack.packets_to_send(now=self.now):
            segment = self._parse(b"".join(buffers))
            self.log.append(f"{self.now:9.3f} stack  > {segment}")
            self._got.append(segment)

    def _parse(self, packet: bytes) -> Segment:
        meta = vnet.VnetHeader()
        if self.offload:
            meta = vnet.parse_vnet(packet)
            packet = packet[vnet.HEADER_OCTETS :]
        ip = parse_ipv6(packet) if self.v6 else parse_ipv4(packet)
        data = packet[ip.header_octets : ip.total_octets]
        if not self.offload:
            assert not internet_checksum(data, pseudo_header_sum(ip.source, ip.destination, TCP, len(data))), "checksum"
        header = parse_tcp(data)
        return Segment(header, data[header.header_octets :], meta)

    def fail(self, text: str) -> NoReturn:
        """With the conversation so far."""
        raise AssertionError(text + "\n" + "\n".join(self.log))
