"""What a stream begins with: a request of the opener, a reply of the other side.

Both are shaped like SOCKS5's (RFC 1928 sections 4 to 6).

Not here: connecting.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kt_net.errors import TunnelProtocolError

VERSION: Final = 5
_IPV4: Final = 1
_NAME: Final = 3
_IPV6: Final = 4
_PORT = struct.Struct("!H")


class Network(IntEnum):
    """What to open: RFC 1928 commands, and one of the private kind for echo (the port is the identifier)."""

    TCP = 1
    UDP = 3
    ECHO = 0x80


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
    if len(data) < 5:
        return None
    kind = data[3]
    if kind == _IPV4:
        start, length = 4, 4
    elif kind == _IPV6:
        start, length = 4, 16
    elif kind == _NAME:
        start, length = 5, data[4]
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
    return data[1], host, port, end + _PORT.size
