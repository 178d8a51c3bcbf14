"""Which ports: `LOCAL[:REMOTE][/udp]` as written, and what it means for a target that offers some.

Not here: taking local ports (kt_net.drivers).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kt_net.errors import UsageFault

#: A Service's port name is a DNS label, a container's an IANA service name: both are of this shape.
_NAME: Final = re.compile(r"(?=[-a-z0-9]*[a-z])[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]{1,5}\Z")
MAX_PORT: Final = 65535
#: Every one of them is a listener.
MAX_FORWARDS: Final = 256


class Protocol(StrEnum):
    """As Kubernetes writes it."""

    TCP = "TCP"
    UDP = "UDP"


@dataclass(frozen=True, slots=True)
class Port:
    """A port that a Service or a container offers; `name` may be "" """

    name: str
    number: int
    protocol: Protocol

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        return f"{self.number}{'/udp' if self.protocol is Protocol.UDP else ''}{name}"


@dataclass(frozen=True, slots=True)
class Pair:
    """As written.

    Attributes:
        local: 0 for any free one, None for the same as the remote one.
        protocol: None when it was not said.
    """

    text: str
    local: int | None
    remote: int | str
    protocol: Protocol | None


@dataclass(frozen=True, slots=True)
class Forward:
    """One local port and what it leads to.

    Attributes:
        wanted: the port's number, or the name under which each place has a number of its own.
        shown: the remote port as users know it.
    """

    local: int
    wanted: int | str
    protocol: Protocol
    shown: str


def parse_pair(text: str) -> Pair:
    """`LOCAL[:REMOTE]`, `:REMOTE`, or the name of a port; `/tcp` or `/udp` behind it.

    Raises:
        UsageFault: anything else.
    """
    ports, slash, last = text.partition("/")
    protocol = Protocol(last.upper()) if last.upper() in list(Protocol) else None
    if slash and protocol is None:
        raise UsageFault(f"{text!r} is no port", why="behind the slash stands tcp or udp")
    local, colon, remote = ports.partition(":")
    if not colon:
        number = _remote(local, text)
        return Pair(text, number if number == 0 else None, number, protocol)
    if local and not _NUMBER.match(local):
        raise UsageFault(f"{text!r} is no port", why="a local port is a number")
    near = int(local or 0)
    far = _remote(remote, text)
    if near > MAX_PORT or far == 0:
        raise UsageFault(
            f"{text!r} is no port", why=f"ports go from 1 to {MAX_PORT}; a local port of 0 takes any free one"
        )
    return Pair(text, near, far, protocol)


def _remote(text: str, whole: str) -> int | str:
    if _NUMBER.match(text):
        if not 0 < int(text) <= MAX_PORT:
            raise UsageFault(
                f"{whole!r} is no port", why=f"ports go from 1 to {MAX_PORT}; any free local one is 0:REMOTE"
            )
        return int(text)
    if not _NAME.match(text):
        raise UsageFault(
            f"{whole!r} is no port", why="a port is LOCAL or LOCAL:REMOTE, REMOTE a number or a port's name"
        )
    return text


def plan(
    pairs: Sequence[Pair], offered: Sequence[Port], target: str, *, unlisted: bool, by_name: bool
) -> tuple[Forward, ...]:
    """What to listen on; without pairs everything that is offered, under the same number.

    Args:
        target: for words.
        unlisted: numbers that are not offered are ports as well.
        by_name: places know their ports by the names of `offered` (a Service's EndpointSlices), not by its numbers.

    Raises:
        UsageFault: no such port, nothing offered, or one local port twice.
    """
    if pairs:
        planned = tuple(_one(pair, offered, target, unlisted=unlisted, by_name=by_name) for pair in pairs)
    else:
        planned = tuple(
            Forward(port.number, port.name if by_name else port.number, port.protocol, str(port))
            for port in dict.fromkeys(offered)
        )
    if not planned:
        raise UsageFault(f"no port to forward to {target}", why="it names none", next_step="give one, e.g. 8080:80")
    if len(planned) > MAX_FORWARDS:
        raise UsageFault(
            f"{len(planned)} ports at once", why=f"{MAX_FORWARDS} are possible", next_step="name those you need"
        )
    taken: set[tuple[int, Protocol]] = set()
    for one in planned:
        if one.local and (one.local, one.protocol) in taken:
            raise UsageFault(
                f"local port {one.local} twice",
                next_step=f"give one of them another, or any free one: 0:{one.shown.partition(' ')[0]}",
            )
        taken.add((one.local, one.protocol))
    return planned


def _one(pair: Pair, offered: Sequence[Port], target: str, *, unlisted: bool, by_name: bool) -> Forward:
    fitting = [
        port
        for port in offered
        if pair.remote in ((port.name,) if isinstance(pair.remote, str) else (port.number,))
        and pair.protocol in (None, port.protocol)
    ]
    # One number may be two ports, of either protocol: TCP is meant unless said.
    fitting.sort(key=lambda port: port.protocol is not Protocol.TCP)
    if fitting:
        port = fitting[0]
        wanted = port.name if by_name or (isinstance(pair.remote, str) and unlisted) else port.number
        return Forward(port.number if pair.local is None else pair.local, wanted, port.protocol, str(port))
    if isinstance(pair.remote, int) and unlisted:
        protocol = pair.protocol or Protocol.TCP
        shown = f"{pair.remote}{'/udp' if protocol is Protocol.UDP else ''}"
        return Forward(pair.remote if pair.local is None else pair.local, pair.remote, protocol, shown)
    raise UsageFault(
        f"{target} has no port {pair.text.rpartition(':')[2]}",
        why=f"it has {', '.join(map(str, offered)) or 'none'}",
        next_step="name one of those, by number or by name",
    )


def number_of(wanted: int | str, protocol: Protocol, ports: Iterable[Port]) -> int | None:
    """The number that `wanted` has at a place with `ports`; None when it has none."""
    if isinstance(wanted, int):
        return wanted
    return next((port.number for port in ports if port.name == wanted and port.protocol is protocol), None)
