"""`ktctl capture`.

Flags are tcpdump's where it has them.

Not here: packets (kt_net.tun), how they come here (kt_net.session.capture).
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, BinaryIO, Protocol

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import Stopped, StopSwitch, guarded

if TYPE_CHECKING:
    from kt_net.session.capture import Capture
    from kt_net.tun.captured import Captured

#: Between two looks at whether a signal has come.
LOOK_SECONDS = 0.2
#: For the connection to say how many packets were dropped, at the end.
END_SECONDS = 1.0
STANDARD_OUTPUT = "-"


def capture(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", metavar="ADDR", help="from or to this address or range")] = "",
    port: Annotated[str, typer.Option("--port", metavar="N", help="from or to this port of TCP or UDP")] = "",
    protocol: Annotated[str, typer.Option("--protocol", metavar="tcp|udp|icmp", help="of this protocol only")] = "",
    count: Annotated[int | None, typer.Option("--count", metavar="N", min=1, help="end after N packets")] = None,
    write: Annotated[
        str,
        typer.Option("--write", "-w", metavar="FILE", help="a pcap file instead of lines; - is standard output"),
    ] = "",
    also_print: Annotated[bool, typer.Option("--print", help="lines besides --write FILE")] = False,
    name: flags.Name = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
) -> None:
    """Show the packets between this machine's programs and a running connection, until Ctrl-C."""
    given = flags.of(context).merged(output=output, debug=debug)
    given.set_up_logging()
    printer = Printer("capture", given.form)
    words = {"host": host, "port": port, "protocol": protocol}
    raise typer.Exit(guarded(printer, given.debug, lambda: _capture(printer, name, words, count, write, also_print)))


class _Switch(StopSwitch):
    """The first signal means "enough"; a second one, when whoever reads our lines has stopped reading, "now"."""

    def _handle(self, number: int, frame: object) -> None:
        if self.stop.is_set():
            raise Stopped
        super()._handle(number, frame)


def _capture(
    printer: Printer, name: str | None, words: dict[str, str], count: int | None, write: str, also_print: bool
) -> int:
    from kt_net.session.capture import Capture
    from kt_net.session.home import meant

    with _Switch().installed() as switch, contextlib.ExitStack() as opened:
        captured = Capture(meant(name), **words)
        opened.callback(captured.close)
        takers = list[_Taker]()
        if write:
            takers.append(_File(opened.enter_context(_open(printer, write, also_print))))
        if also_print or not write:
            takers.append(_Lines(printer))
        switch.started()
        if not printer.is_json:
            print("capturing what passes the device of the connection; end with Ctrl-C", file=sys.stderr, flush=True)
        came = _follow(captured, takers, switch.stop, count)
    if not printer.is_json:
        why = "the connection has ended; " if came.ended else ""
        print(f"{why}{came.taken} packets captured, {came.dropped} dropped", file=sys.stderr, flush=True)
    elif write != STANDARD_OUTPUT:
        printer.result("", captured=came.taken, dropped=came.dropped, ended=came.ended)
    return OK


@dataclass(slots=True)
class _Came:
    """What has come.

    Attributes:
        dropped: packets that passed while this process read too slowly.
        ended: by the connection.
    """

    taken: int = 0
    dropped: int = 0
    ended: bool = False


def _follow(captured: Capture, takers: list[_Taker], stop: threading.Event, count: int | None) -> _Came:
    """Until it is enough, or nothing more comes. What was on its way when a signal came still counts."""
    from kt_net.tun.captured import Captured

    came, limit = _Came(), None
    while limit is None or time.monotonic() < limit:
        if limit is None and (stop.is_set() or came.taken == count):
            captured.finish()
            limit = time.monotonic() + END_SECONDS
        records = captured.receive(LOOK_SECONDS)
        if records is None:
            came.ended = limit is None
            return came
        for record in records:
            came.dropped = record.dropped
            if not isinstance(record, Captured):
                return came
            if came.taken != count:
                came.taken += 1
                for taker in takers:
                    taker.take(record)
        for taker in takers:
            taker.flush()
    return came


# -- where packets go


class _Taker(Protocol):
    def take(self, packet: Captured) -> None:
        """One packet."""

    def flush(self) -> None:
        """Nothing more is there now."""


class _Lines:
    """On the screen, or as objects."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def take(self, packet: Captured) -> None:
        from kt_net.tun.dissect import in_fields
        from kt_net.tun.tracer import trace_line

        if self._printer.is_json:
            fields = in_fields(packet.data, offload=packet.offload)
            self._printer.packet(time=packet.at, direction=packet.direction.value, lost=packet.lost, **fields)
            return
        seconds, rest = divmod(round(packet.at * 1e6), 1_000_000)
        when = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest:06}"
        print(trace_line(when, packet.data, packet.direction, offload=packet.offload, lost=packet.lost))

    def flush(self) -> None:
        sys.stdout.flush()


class _File:
    """A pcap file."""

    def __init__(self, file: BinaryIO) -> None:
        from kt_net.tun.pcap import file_header

        self._file = file
        self._write(file_header())
        self.flush()

    def take(self, packet: Captured) -> None:
        from kt_net.tun.pcap import packet_record

        self._write(packet_record(packet.data, packet.at, offload=packet.offload))

    def flush(self) -> None:
        self._translated(self._file.flush)

    def _write(self, data: bytes) -> None:
        self._translated(lambda: self._file.write(data))

    def _translated(self, call: Callable[[], object]) -> None:
        from kt_net.errors import HostRefused

        try:
            call()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise HostRefused("cannot write the packets", why=str(error), next_step="name another file") from error


@contextlib.contextmanager
def _open(printer: Printer, name: str, also_print: bool) -> Iterator[BinaryIO]:
    """The file for packets.

    Raises:
        UsageFault: standard output is for something else.
        HostRefused: it cannot be opened.
    """
    from kt_net.errors import HostRefused, UsageFault

    if name == STANDARD_OUTPUT:
        if also_print or printer.is_json:
            raise UsageFault("--write - fills standard output: no room for lines", next_step="write to a file")
        if sys.stdout.isatty():
            raise UsageFault(
                "--write - would write octets to a terminal", next_step="ktctl capture -w - | tcpdump -r -"
            )
        yield sys.stdout.buffer
        return
    try:
        file = open(name, "wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise HostRefused(
            f"cannot write to {name}", why=error.strerror or str(error), next_step="name another file"
        ) from (error)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # a full disk was said already
            file.close()
