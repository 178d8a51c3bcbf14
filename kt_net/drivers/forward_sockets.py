"""Local ports: the sockets of one, on loopback of both families or on the addresses that were asked for.

Not here: what comes in on them (forward.py, forward_datagrams.py).
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence
from typing import Final

from kt_net.errors import AddressInUse, KtError, PrivilegeMissing

#: What listens unless told otherwise, as with kubectl: both where there is IPv6.
LOCALHOST: Final = ("127.0.0.1", "::1")
#: "Any free port" has to be free on every address.
ATTEMPTS: Final = 20
BACKLOG: Final = 512
#: A family that this machine does not have.
_ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def take_port(kind: socket.SocketKind, addresses: Sequence[str], port: int, instead: str) -> list[socket.socket]:
    """Non-blocking sockets bound to `port` on every address, all to the same one; streams listen.

    Args:
        addresses: () for those of `LOCALHOST` that there are.
        port: 0 for any free one.
        instead: another spelling, for the words of an error.

    Raises:
        AddressInUse: taken, or no address of this machine.
        PrivilegeMissing: ports below 1024 are root's.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _take(kind, addresses, port, instead)
        except AddressInUse:
            if port or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt raises")


def _take(kind: socket.SocketKind, addresses: Sequence[str], port: int, instead: str) -> list[socket.socket]:
    with contextlib.ExitStack() as undo:
        taken: list[socket.socket] = []
        for address in addresses or LOCALHOST:
            try:
                one = undo.enter_context(
                    socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
                )
                if kind is socket.SOCK_STREAM:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if ":" in address:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((address, port))
                if kind is socket.SOCK_STREAM:
                    one.listen(BACKLOG)
            except OSError as error:
                if error.errno in _ABSENT and not addresses and address != LOCALHOST[0]:
                    continue
                raise _refused(error, address, port, instead) from error
            port = one.getsockname()[1]
            taken.append(one)
        undo.pop_all()
        return taken


def _refused(error: OSError, address: str, port: int, instead: str) -> KtError:
    why = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return PrivilegeMissing(
            f"cannot listen on {address} port {port}",
            why=f"{why}: ports below 1024 are root's",
            next_step=f"choose another local port: {instead}",
        )
    if error.errno in _ABSENT or isinstance(error, socket.gaierror):
        return AddressInUse(
            f"cannot listen on {address}", why=why, next_step="give an address of this machine: --address ADDRESS"
        )
    return AddressInUse(
        f"cannot listen on {address} port {port}", why=why, next_step=f"choose another local port: {instead}"
    )
