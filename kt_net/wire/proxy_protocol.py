"""The PROXY protocol's header, version 2 (haproxy, doc/proxy-protocol.txt section 2.2): who a connection really comes from.

Not here: version 1, which is text; TLVs; parsing: nobody sends us one.
"""

from __future__ import annotations

import struct
from typing import Final

from kt_net.addr import IPAddress

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
#: Version 2, command PROXY.
_PROXY: Final = 0x21
#: Family and transport: STREAM over IPv4 or IPv6; nothing said.
_TCP: Final = {4: 0x11, 6: 0x21}
_UNSPEC: Final = 0x00
_HEAD = struct.Struct("!12sBBH")
_PORTS = struct.Struct("!HH")


def emit_header(caller: IPAddress, caller_port: int, destination: IPAddress, port: int) -> bytes:
    """The octets that go before a TCP connection's own; `caller` has connected to `destination` and `port`.

    Where the two are of different families no header can name both: it says "unspecified", and who reads it takes what it sees.
    """
    if caller.version != destination.version:
        return _HEAD.pack(SIGNATURE, _PROXY, _UNSPEC, 0)
    addresses = caller.packed + destination.packed + _PORTS.pack(caller_port, port)
    return _HEAD.pack(SIGNATURE, _PROXY, _TCP[caller.version], len(addresses)) + addresses
