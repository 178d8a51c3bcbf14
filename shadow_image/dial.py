"""Errors of sockets as reply codes, and names as addresses that may be dialled.

Not here: the sockets themselves (tcp.py, datagrams.py).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket

from kt_net.addr import IPAddress
from kt_net.tunnel.requests import ReplyCode
from shadow_image.policy import Policy

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


async def addresses(host: str, port: int, policy: Policy) -> list[IPAddress]:
    """The addresses of `host` that may be dialled, in the resolver's order.

    Raises:
        Refused: the name is unknown, or no address may be dialled.
    """
    try:
        found = [ipaddress.ip_address(host)]
    except ValueError:
        found = await _resolve(host, port)
    may = [address for address in found if policy.refusal(address, port) is None]
    if not may:
        raise Refused(ReplyCode.NOT_ALLOWED)
    return may


async def _resolve(host: str, port: int) -> list[IPAddress]:
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Refused(ReplyCode.HOST_UNREACHABLE) from None
    found: list[IPAddress] = []
    for info in infos:
        address = ipaddress.ip_address(str(info[4][0]).partition("%")[0])
        if address not in found:
            found.append(address)
    return found
