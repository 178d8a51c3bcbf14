"""What `--expose` says: which local port stands for which port in the cluster. Quiet.

Not here: the objects that come of it (preview.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from kt_net.choreography.shadow import AGENT_PORT
from kt_net.errors import UsageFault

Protocol: TypeAlias = Literal["TCP", "UDP"]

LOCAL_HOST: Final = "127.0.0.1"
#: As many as one agent listens on for a session (shadow_image.caps).
MAX_EXPOSED: Final = 64
#: The agent is not root: below this it may not listen (ip(7), ip_unprivileged_port_start).
FIRST_UNPRIVILEGED: Final = 1024
#: Where it listens instead: port 80 is 20080 in the pod.
_ELSEWHERE: Final = 20000
_EXPOSE: Final = re.compile(
    r"(?:(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:/]*[^\[\]:/0-9][^\[\]:/]*)):)?"
    r"(?P<local>[0-9]{1,5})(?::(?P<remote>[0-9]{1,5}|[a-z0-9-]*[a-z][a-z0-9-]*))?(?:/(?P<protocol>tcp|udp))?\Z"
)


@dataclass(frozen=True, slots=True)
class Expose:
    """One `--expose`.

    Attributes:
        host, local: where connections go: an address or a name, and a port.
        remote: the port in the cluster.
    """

    host: str
    local: int
    remote: int
    protocol: Protocol = "TCP"

    @property
    def target(self) -> str:
        """Host and port, as people write them."""
        return f"[{self.host}]:{self.local}" if ":" in self.host else f"{self.host}:{self.local}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One `--expose` as written.

    Attributes:
        remote: a number, or the name of a port; None when nothing was said.
        protocol: None when nothing was said.
    """

    text: str
    host: str
    local: int
    remote: int | str | None
    protocol: Protocol | None


def parse_wanted(text: str) -> Wanted:
    """[HOST:]LOCAL[:REMOTE][/udp]; an IPv6 HOST in brackets; without HOST 127.0.0.1.

    Raises:
        UsageFault: it is none.
    """
    match = _EXPOSE.match(text)
    if match is None:
        raise UsageFault(
            f"--expose: {text!r} is none", why="LOCAL, LOCAL:REMOTE or HOST:LOCAL:REMOTE, /udp behind it for UDP"
        )
    remote: int | str | None = match["remote"]
    if isinstance(remote, str) and remote.isdecimal():
        remote = int(remote)
    for port in (int(match["local"]), remote):
        if isinstance(port, int) and not 0 < port < 65536:
            raise UsageFault(f"--expose: {text!r} is none", why="ports go from 1 to 65535")
    protocol: Protocol | None = {"udp": "UDP", "tcp": "TCP"}.get(match["protocol"])  # type: ignore[assignment]
    return Wanted(text, match["ipv6"] or match["host"] or LOCAL_HOST, int(match["local"]), remote, protocol)


def parse_expose(text: str) -> Expose:
    """Of a Service that is to be made; without REMOTE the same port.

    Raises:
        UsageFault: it is none, or names a port: there is none yet.
    """
    wanted = parse_wanted(text)
    if isinstance(wanted.remote, str):
        raise UsageFault(f"--expose: {text!r} is none", why="the new Service's port is a number")
    return Expose(wanted.host, wanted.local, wanted.remote or wanted.local, wanted.protocol or "TCP")


def parse_exposes(texts: Iterable[str]) -> list[Expose]:
    """All of them.

    Raises:
        UsageFault: one is none, two want the same port, or there are too many.
    """
    found = [parse_expose(text) for text in texts]
    seen = set()
    for expose in found:
        if (expose.protocol, expose.remote) in seen:
            raise UsageFault(f"--expose: port {expose.remote} is there twice")
        seen.add((expose.protocol, expose.remote))
    if not 0 < len(found) <= MAX_EXPOSED:
        raise UsageFault(f"--expose: {len(found)} ports", why=f"1 to {MAX_EXPOSED} are possible")
    return found


def pod_ports(exposes: list[Expose]) -> dict[Expose, int]:
    """Where the agent listens for each: the port itself where it may, else one that is free and says which it stands for."""
    given: dict[Expose, int] = {}
    taken = {expose.remote for expose in exposes if _can_listen(expose.remote)} | {AGENT_PORT}
    for expose in exposes:
        port = expose.remote
        if not _can_listen(port):
            port += _ELSEWHERE
            while port in taken:
                port += 1
            taken.add(port)
        given[expose] = port
    return given


def _can_listen(port: int) -> bool:
    return port >= FIRST_UNPRIVILEGED and port != AGENT_PORT
