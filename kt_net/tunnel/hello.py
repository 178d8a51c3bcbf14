"""The first message of a lane, in each direction (docs/tunnel-protocol.md, "Hello").

Not here: what a side does with the other's report.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kt_net.errors import TunnelProtocolError
from kt_net.tunnel.limits import Limits

MAGIC: Final = b"KTNT"
VERSION: Final = 1
SESSION_OCTETS: Final = 16
#: In a client's report: true when streams of callers may go by this lane.
INBOUND: Final = "inbound"
#: In an agent's report: the networks for which it listens ("tcp", "udp"); older agents do not say it, and cannot.
LISTEN: Final = "listen"
#: In the report of an agent that is a guest in somebody's pod: "" when callers are redirected to it, else why they cannot be.
REDIRECT: Final = "redirect"

#: magic, version, reserved, lane, session id, received offset, length of the report.
_HEAD = struct.Struct("!4sBBH16sQI")


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks, and from where the lane goes on.

    Attributes:
        session: 16 random octets, chosen by the client; the same for all lanes and all reconnections of a session.
        lane: number of the lane within the session.
        received: octets of lane data that the speaker has received; 0 on a fresh lane.
        report: what else the speaker tells, JSON values. Unknown keys are ignored.
        version: of this protocol.
    """

    session: bytes
    lane: int = 0
    received: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def identity(self) -> bytes:
        """Of the lane: the same whenever it goes on."""
        return self.session + self.lane.to_bytes(2, "big")

    def emit(self) -> bytes:
        """The hello as it goes over the carrier."""
        body = json.dumps(dict(self.report), separators=(",", ":"), sort_keys=True).encode()
        return _HEAD.pack(MAGIC, self.version, 0, self.lane, self.session, self.received, len(body)) + body


def parse_hello(data: bytes | bytearray | memoryview, *, limits: Limits) -> tuple[Hello, int] | None:
    """A hello and how many octets it took, or None while more is needed.

    Raises:
        TunnelProtocolError: this is no hello, or one of another version.
    """
    start = bytes(data[: len(MAGIC)])
    if start != MAGIC[: len(start)]:
        raise TunnelProtocolError("the other end does not speak the tunnel protocol", why=f"it began with {start!r}")
    if len(data) < _HEAD.size:
        return None
    _, version, _, lane, session, received, length = _HEAD.unpack_from(data)
    if version != VERSION:
        raise TunnelProtocolError(f"the other end speaks version {version} of the tunnel protocol, this end {VERSION}")
    if length > limits.hello:
        raise TunnelProtocolError(f"a hello of {length} octets")
    if len(data) < _HEAD.size + length:
        return None
    try:
        report = json.loads(bytes(data[_HEAD.size : _HEAD.size + length]))
    except (ValueError, RecursionError) as error:
        raise TunnelProtocolError("the hello's report is no JSON") from error
    if not isinstance(report, dict):
        raise TunnelProtocolError("the hello's report is no JSON object")
    return Hello(session=session, lane=lane, received=received, report=report, version=version), _HEAD.size + length
