"""Errors of sockets as reply codes, and names as addresses.

Not here: the sockets themselves (tcp.py, datagrams.py).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket

from kt_net.addr import IPAddress
from kt_net.tunnel.requests import ReplyCode

_CODES = {
    errno.ECONNREFUSED: ReplyCode.CONNECTION_REFUSED,
    errno.ECONNRESET: ReplyCode.CONNECTION_REFUSED,
    errno.EHOSTUNREACH: ReplyCode.HOST_UNREACHABLE,
    errno.EHOSTDOWN: ReplyCode.HOST_UNREACHABLE,
    errno.ETIMEDOUT: ReplyCode.HOST_UNREACHABLE,
    errno.ENETUNREACH: ReplyCode.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: ReplyCode.NETWORK_UNREACHABLE,
    errno.EAFNOSUPPORT: ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED,
    errno.EACCES: ReplyCode.NOT_ALLOWED,
    errno.EPERM: ReplyCode.NOT_ALLOWED,
}


class Refused(Exception):
    """A request that the agent turns down, with the code to say."""

    def __init__(self, code: ReplyCode) -> None:
        super().__init__(code.name)
        self.code = code


def reply_code(error: OSError) -> ReplyCode:
    """What a socket's error is called in a reply."""
    if isinstance(error, TimeoutError):
        return ReplyCode.HOST_UNREACHABLE
    return _CODES.get(error.errno or 0, ReplyCode.GENERAL_FAILURE)


async def resolve(name: str, port: int) -> list[IPAddress]:
    """The addresses of `name`, in the resolver's order.

    Raises:
        Refused: it has none.
    """
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Refused(ReplyCode.HOST_UNREACHABLE) from None
    found: list[IPAddress] = []
    for info in infos:
        address = ipaddress.ip_address(str(info[4][0]).partition("%")[0])
        if address not in found:
            found.append(address)
    return found
