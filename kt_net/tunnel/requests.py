"""What a stream begins with: a request of the opener, a reply of the other side.

Both are shaped like SOCKS5's (RFC 1928 sections 4 to 6). What the agent opens, because somebody has connected to a port on which the
client lets it listen, begins with an arrival: a request with the caller's address behind it.

Not here: connecting.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kt_net.addr import IPAddress
from kt_net.errors import TunnelProtocolError

VERSION: Final = 5
_IPV4: Final = 1
_NAME: Final = 3
_IPV6: Final = 4
_PORT = struct.Struct("!H")
#: A request or a reply has at most 4 + 1 + 255 + 2 octets (RFC 1928 sections 4 and 6); more without a whole one is none.
MAX_REPLY_OCTETS: Final = 262


class Network(IntEnum):
    """What to open: RFC 1928 commands (BIND is to listen), and two of the private kind: echo, whose port is the identifier, and to listen
    for UDP."""

    TCP = 1
    LISTEN_TCP = 2
    UDP = 3
    ECHO = 0x80
    LISTEN_UDP = 0x81


class ReplyCode(IntEnum):
    """RFC 1928 section 6."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


@dataclass(frozen=True, slots=True)
class Request:
    """Open `network` to `host` (an address in text, or a name of at most 255 octets) and `port`."""

    network: Network
    host: str
    port: int

    def emit(self) -> bytes:
        """The request's octets.

        Raises:
            TunnelProtocolError: the name is too long or no name at all.
        """
        return bytes((VERSION, self.network, 0)) + _emit_address(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Arrival:
    """Somebody in the cluster has come to a port on which the agent listens.

    Attributes:
        network: TCP, or UDP (a flow of datagrams).
        address, port: where they came to; for UDP the address is the unspecified one.
        caller, caller_port: who they are, as the pod sees them.
    """

    network: Network
    address: IPAddress
    port: int
    caller: IPAddress
    caller_port: int

    def emit(self) -> bytes:
        """The arrival's octets."""
        request = Request(self.network, str(self.address), self.port).emit()
        return request + _emit_address(str(self.caller), self.caller_port)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request; `host` and `port` are the agent's own end when it succeeded."""

    code: ReplyCode
    host: str = "0.0.0.0"
    port: int = 0

    def emit(self) -> bytes:
        """The reply's octets."""
        return bytes((VERSION, self.code, 0)) + _emit_address(self.host, self.port)


def parse_request(data: bytes | memoryview) -> tuple[Request, int] | None:
    """A request and how many octets it took, or None while more is needed.

    Raises:
        TunnelProtocolError: this is no request.
    """
    parsed = _parse(data)
    if parsed is None:
        return None
    code, host, port, used = parsed
    if code not in _NETWORKS:
        raise TunnelProtocolError(f"a request for network {code}")
    return Request(Network(code), host, port), used


def parse_arrival(data: bytes | memoryview) -> tuple[Arrival, int] | None:
    """An arrival and how many octets it took, or None while more is needed.

    Raises:
        TunnelProtocolError: this is none.
    """
    parsed = _parse(data)
    if parsed is None:
        return None
    code, host, port, used = parsed
    if code not in (Network.TCP, Network.UDP):
        raise TunnelProtocolError(f"an arrival of network {code}")
    found = _parse_address(data, used)
    if found is None:
        return None
    caller, caller_port, end = found
    try:
        arrival = Arrival(Network(code), ipaddress.ip_address(host), port, ipaddress.ip_address(caller), caller_port)
    except ValueError:
        raise TunnelProtocolError("an arrival with a name in an address's place") from None
    return arrival, end


def parse_reply(data: bytes | memoryview) -> tuple[Reply, int] | None:
    """A reply and how many octets it took, or None while more is needed.

    Raises:
        TunnelProtocolError: this is no reply.
    """
    parsed = _parse(data)
    if parsed is None:
        return None
    code, host, port, used = parsed
    if code not in _CODES:
        raise TunnelProtocolError(f"a reply with code {code}")
    return Reply(ReplyCode(code), host, port), used


_NETWORKS = frozenset(int(network) for network in Network)
_CODES = frozenset(int(code) for code in ReplyCode)


def _emit_address(host: str, port: int) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            name = host.encode("ascii")
        except UnicodeEncodeError:
            raise TunnelProtocolError(f"{host!r} is no host name") from None
        if not 0 < len(name) < 256:
            raise TunnelProtocolError(f"a host name of {len(name)} octets") from None
        return bytes((_NAME, len(name))) + name + _PORT.pack(port)
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed + _PORT.pack(port)


def _parse(data: bytes | memoryview) -> tuple[int, str, int, int] | None:
    if len(data) and data[0] != VERSION:
        raise TunnelProtocolError(f"a request or reply of version {data[0]}")
    found = _parse_address(data, 3)
    if found is None:
        return None
    host, port, end = found
    return data[1], host, port, end


def _parse_address(data: bytes | memoryview, at: int) -> tuple[str, int, int] | None:
    """Address and port that stand at `at`, and where they end."""
    if len(data) < at + 2:
        return None
    kind = data[at]
    if kind == _IPV4:
        start, length = at + 1, 4
    elif kind == _IPV6:
        start, length = at + 1, 16
    elif kind == _NAME:
        start, length = at + 2, data[at + 1]
    else:
        raise TunnelProtocolError(f"a request or reply with address type {kind}")
    end = start + length
    if len(data) < end + _PORT.size:
        return None
    raw = bytes(data[start:end])
    if kind == _NAME:
        try:
            host = raw.decode("ascii")
        except UnicodeDecodeError:
            raise TunnelProtocolError("a host name that is not ASCII") from None
        if not host or "\0" in host:
            raise TunnelProtocolError("a host name that is none")
    else:
        host = str(ipaddress.ip_address(raw))
    (port,) = _PORT.unpack_from(data, end)
    return host, port, end + _PORT.size
