"""The kernel's packet filter, by netlink, as much of it as a redirection of ports needs: one table, two maps, a chain, a few rules.

An image with python3 has no `nft`. Messages as in linux/netfilter/nf_tables.h and nfnetlink.h; everything in one batch happens or does not.

Not here: what is redirected when (redirect.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from kt_net.addr import IPAddress

Protocol: TypeAlias = Literal["tcp", "udp"]

#: linux/netlink.h, linux/netfilter/nfnetlink.h
_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 10 << 8
_BATCH_BEGIN, _BATCH_END, _ERROR = 0x10, 0x11, 0x2
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
#: linux/netfilter/nf_tables.h: messages
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET, _NEW_ELEMENTS, _DELETE_ELEMENTS = 0, 3, 6, 9, 12, 14
_INET: Final = 1  # NFPROTO_INET
_OWNED: Final = 2  # NFT_TABLE_F_OWNER: the table goes when the socket that made it is closed (Linux 5.12)
_MAP_WITH_TIMEOUT: Final = 0x8 | 0x10
_PREROUTING, _DESTINATION_NAT = 0, -100
_ACCEPT: Final = 1
_REGISTER: Final = 1
_VERDICT_REGISTER: Final = 0
_PROTOCOL_FAMILY, _PROTOCOL = 15, 16  # NFT_META_NFPROTO, NFT_META_L4PROTO
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
#: What user space calls a port; the kernel only keeps it.
_PORT_TYPE: Final = 13
_NUMBERS: Final[Mapping[Protocol, int]] = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
#: Offset of the source address in the IP header, its length, and the family's number.
_SOURCE: Final = {4: (12, 4, socket.AF_INET), 6: (8, 16, socket.AF_INET6)}
_ANSWER_SECONDS: Final = 5.0

CHAIN: Final = "redirect"


class Table:
    """A table of ours, which goes when it is closed or this process ends.

    Args:
        name: of the table; another process's of the same name is refused by the kernel.
        seconds: that an entry stays when nobody sets it again.
        untouched: callers from there reach the pod's own program: the node's, with its probes.

    Raises:
        OSError: EPERM without NET_ADMIN; EOPNOTSUPP where the kernel cannot; and others.
    """

    def __init__(self, name: str, *, seconds: float, untouched: Iterable[IPAddress] = ()) -> None:
        self._name = name
        self._milliseconds = int(seconds * 1000)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        try:
            self._socket.settimeout(_ANSWER_SECONDS)
            self._socket.bind((0, 0))
            self._batch(self._making(list(untouched)))
        except OSError:
            self._socket.close()
            raise

    def set(self, ports: Mapping[tuple[Protocol, int], int]) -> None:
        """From now on, for the table's seconds, new connections to these ports go to those of ours; no others do.

        Raises:
            OSError: the kernel refuses it.
        """
        messages = []
        for protocol in _NUMBERS:
            table_and_map = _text(1, self._name) + _text(2, protocol)
            messages.append(_message(_DELETE_ELEMENTS, 0, table_and_map))
            elements = b"".join(
                _nest(1, _nest(1, _data(_port(port))) + _nest(2, _data(_port(ours))) + _u64(4, self._milliseconds))
                for (of, port), ours in ports.items()
                if of == protocol
            )
            if elements:
                messages.append(_message(_NEW_ELEMENTS, _CREATE, table_and_map + _nest(3, elements)))
        self._batch(messages)

    def close(self) -> None:
        """Nothing is redirected any more."""
        self._socket.close()

    def _making(self, untouched: list[IPAddress]) -> list[bytes]:
        name = _text(1, self._name)
        messages = [_message(_NEW_TABLE, _CREATE, name + _u32(2, _OWNED))]
        for number, protocol in enumerate(_NUMBERS, 1):
            kinds = _u32(4, _PORT_TYPE) + _u32(5, 2) + _u32(6, _PORT_TYPE) + _u32(7, 2)
            of_map = name + _text(2, protocol) + _u32(3, _MAP_WITH_TIMEOUT) + kinds + _u32(10, number)
            messages.append(_message(_NEW_SET, _CREATE, of_map))
        hook = _nest(4, _u32(1, _PREROUTING) + _u32(2, _DESTINATION_NAT & 0xFFFFFFFF))
        messages.append(_message(_NEW_CHAIN, _CREATE, name + _text(3, CHAIN) + hook + _text(7, "nat")))
        rules = [_leave_alone(address) for address in untouched]
        rules += [_redirect(protocol, number) for protocol, number in _NUMBERS.items()]
        for rule in rules:
            messages.append(_message(_NEW_RULE, _CREATE | _APPEND, name + _text(2, CHAIN) + _nest(4, rule)))
        return messages

    def _batch(self, messages: list[bytes]) -> None:
        """Send, and wait for the answers.

        Raises:
            OSError: the first one's that was refused; then nothing of it happened.
        """
        whole = [_frame(_BATCH_BEGIN, _REQUEST, 0, _general(0, socket.htons(10)))]
        for number, message in enumerate(messages, 1):
            kind, flags = struct.unpack_from("=HH", message)
            whole.append(_frame(kind, flags | _REQUEST | _ACK, number, message[4:]))
        whole.append(_frame(_BATCH_END, _REQUEST, 0, _general(0, socket.htons(10))))
        self._socket.send(b"".join(whole))
        self._wait_answers(len(messages))

    def _wait_answers(self, left: int) -> None:
        while left:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError as error:
                raise OSError(errno.ETIMEDOUT, "the kernel does not answer") from error
            while len(data) >= 20:
                length, kind = struct.unpack_from("=IH", data)
                failed = -struct.unpack_from("=i", data, 16)[0] if kind == _ERROR else 0
                if failed:
                    self._drain()  # what is said of the rest of the batch is of no use
                    raise OSError(failed, os.strerror(failed))
                left -= kind == _ERROR
                data = data[max(16, (length + 3) & ~3) :]

    def _drain(self) -> None:
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1 << 16)
        self._socket.settimeout(_ANSWER_SECONDS)


# -- rules


def _redirect(protocol: Protocol, number: int) -> bytes:
    """PROTOCOL dport -> the map -> redirect; a port that is not in the map ends the rule."""
    return (
        _expression("meta", _u32(1, _REGISTER) + _u32(2, _PROTOCOL))
        + _equals(bytes([number]))
        + _payload(_TRANSPORT_HEADER, 2, 2)
        + _expression("lookup", _text(1, protocol) + _u32(2, _REGISTER) + _u32(3, _REGISTER))
        + _expression("redir", _u32(1, _REGISTER))
    )


def _leave_alone(address: IPAddress) -> bytes:
    """Whoever comes from there: accept."""
    offset, length, family = _SOURCE[address.version]
    verdict = _nest(2, _nest(2, _u32(1, _ACCEPT)))
    return (
        _expression("meta", _u32(1, _REGISTER) + _u32(2, _PROTOCOL_FAMILY))
        + _equals(bytes([family]))
        + _payload(_NETWORK_HEADER, offset, length)
        + _equals(address.packed)
        + _expression("immediate", _u32(1, _VERDICT_REGISTER) + verdict)
    )


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _u32(1, _REGISTER) + _u32(2, base) + _u32(3, offset) + _u32(4, length))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _u32(1, _REGISTER) + _u32(2, 0) + _nest(3, _data(value)))


def _expression(name: str, attributes: bytes) -> bytes:
    return _nest(1, _text(1, name) + _nest(2, attributes))


# -- netlink


def _message(kind: int, flags: int, attributes: bytes) -> bytes:
    """Kind and flags, and the message behind its header."""
    return struct.pack("=HH", _SUBSYSTEM | kind, flags) + _general(_INET, 0) + attributes


def _general(family: int, resource: int) -> bytes:
    return struct.pack("=BBH", family, 0, resource)


def _frame(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nest(kind: int, inner: bytes) -> bytes:
    return _attribute(kind | 0x8000, inner)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big"))


def _u64(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(8, "big"))


def _data(value: bytes) -> bytes:
    return _attribute(1, value)


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big")
