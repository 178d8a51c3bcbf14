"""A carrier: one byte stream to a port of a pod, over one port-forward websocket (subprotocol v4.channel.k8s.io).

websocket-client dials (TLS, proxies, handshake); then its socket is ours, non-blocking, read and written by one thread only: OpenSSL
does not allow two on one connection.

Not here: what the bytes mean (kt_net.tunnel), waiting (kt_net.drivers).
"""

from __future__ import annotations

import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import websocket

from kt_net.errors import TunnelLost
from kt_net.kube.config import Cluster
from kt_net.kube.refusals import refusal, unreachable
from kt_net.wire.portforward import DATA, SUBPROTOCOL, ChannelParser
from kt_net.wire.websocket import BINARY, CLOSE, KEY_OCTETS, PING, PONG, FrameParser, frame_header, masked

#: Octets of one read, and of all reads of one `receive`: others get their turn.
READ_OCTETS = 256 * 1024
TURN_OCTETS = 1024 * 1024
#: One message; small ones are slow on the way through the API server, large ones keep others waiting.
MESSAGE_OCTETS = 128 * 1024
DIAL_SECONDS = 10.0

_CHANNEL = bytes((DATA,))


class Carrier(Protocol):
    """A byte stream that never waits."""

    def fileno(self) -> int:
        """For the selector."""

    @property
    def pending(self) -> bool:
        """Whether octets wait that the selector does not see (TLS has them)."""

    @property
    def wants_write(self) -> bool:
        """Whether something waits for the socket."""

    @property
    def queued(self) -> int:
        """Octets that the kernel has not taken."""

    def receive(self) -> list[memoryview]:
        """What is there now.

        Raises:
            TunnelLost: it has ended.
            CarrierProtocolError: it speaks nonsense.
        """

    def send(self, buffers: list[bytes | memoryview]) -> None:
        """Queue octets."""

    def flush(self) -> bool:
        """Write what the kernel takes; True when nothing is left.

        Raises:
            TunnelLost: it has ended.
        """

    def close(self) -> None:
        """End it."""


class PortForwardCarrier:
    """See `Carrier`."""

    def __init__(self, connected: socket.socket, port: int, *, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._socket = connected
        self._entropy = entropy
        self._frames = FrameParser()
        self._channels = ChannelParser(port)
        self._out: deque[memoryview] = deque()
        self._out_octets = 0
        self._closed = False
        connected.setblocking(False)

    def fileno(self) -> int:
        """See `Carrier`."""
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """See `Carrier`."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    @property
    def wants_write(self) -> bool:
        """See `Carrier`."""
        return bool(self._out)

    @property
    def queued(self) -> int:
        """See `Carrier`."""
        return self._out_octets

    def receive(self) -> list[memoryview]:
        """See `Carrier`."""
        received: list[memoryview] = []
        octets = 0
        while octets < TURN_OCTETS:
            try:
                data = self._socket.recv(READ_OCTETS)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                raise TunnelLost("the connection to the API server broke", why=str(error)) from error
            if not data:
                raise TunnelLost("the API server ended the port-forward", why=self._channels.error)
            octets += len(data)
            self._take(data, received)
        return received

    def _take(self, data: bytes, received: list[memoryview]) -> None:
        for piece in self._frames.receive(data):
            if piece.opcode == PING:
                self._message(bytes(piece.data), PONG)
                self.flush()
            elif piece.opcode == CLOSE:
                raise TunnelLost("the API server closed the port-forward", why=_close_reason(bytes(piece.data)))
            elif piece.opcode == BINARY or piece.opcode < CLOSE:
                payload = self._channels.receive(piece)
                if payload is not None:
                    received.append(payload)
                if self._channels.error:
                    raise TunnelLost("the port-forward failed", why=self._channels.error)

    def send(self, buffers: list[bytes | memoryview]) -> None:
        """See `Carrier`."""
        batch: list[bytes | memoryview] = [_CHANNEL]
        octets = 0
        for buffer in buffers:
            batch.append(buffer)
            octets += len(buffer)
            if octets >= MESSAGE_OCTETS:
                self._message(b"".join(batch), BINARY)
                batch, octets = [_CHANNEL], 0
        if octets:
            self._message(b"".join(batch), BINARY)

    def flush(self) -> bool:
        """See `Carrier`."""
        while self._out:
            try:
                sent = self._socket.send(self._out[0])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return False
            except OSError as error:
                raise TunnelLost("the connection to the API server broke", why=str(error)) from error
            self._out_octets -= sent
            if sent == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][sent:]
        return True

    def close(self) -> None:
        """See `Carrier`."""
        if self._closed:
            return
        self._closed = True
        try:
            self._message(b"\x03\xe8", CLOSE)  # 1000: normal (RFC 6455 section 7.4.1)
            self.flush()
        except TunnelLost:
            pass
        self._socket.close()

    def _message(self, payload: bytes, opcode: int) -> None:
        key = self._entropy(KEY_OCTETS)
        frame = frame_header(len(payload), key, opcode) + masked(payload, key)
        self._out.append(memoryview(frame))
        self._out_octets += len(frame)


def open_carrier(
    cluster: Cluster, namespace: str, pod: str, port: int, *, seconds: float = DIAL_SECONDS
) -> PortForwardCarrier:
    """Dial `port` of `pod` through the API server.

    Raises:
        PermissionMissing, CredentialsRejected, ObjectMissing, CertificateRejected, ApiUnreachable: no port-forward.
    """
    base = cluster.server.replace("http", "ws", 1)
    url = f"{base}/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
    options: dict[str, Any] = {}
    context = cluster.ssl_context()
    if context is not None:
        options["sslopt"] = {"context": context}
        if cluster.server_name:
            options["sslopt"]["server_hostname"] = cluster.server_name
    proxy = cluster.proxy
    if proxy:
        parts = urlsplit(proxy)
        options |= {"http_proxy_host": parts.hostname, "http_proxy_port": parts.port or 80, "proxy_type": "http"}
        if parts.username:
            options["http_proxy_auth"] = (parts.username, parts.password or "")
    else:
        options["http_no_proxy"] = ["*"]  # the environment was asked already
    try:
        dialled = websocket.create_connection(
            url,
            timeout=seconds,
            subprotocols=[SUBPROTOCOL],
            header=cluster.headers(),
            suppress_origin=True,
            sockopt=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
            **options,
        )
    except websocket.WebSocketBadStatusException as error:
        body = error.resp_body if isinstance(error.resp_body, bytes) else b""
        raise refusal(error.status_code, body, f"port-forward to pod {pod}") from error
    except (websocket.WebSocketException, OSError, ValueError) as error:
        raise unreachable(cluster.server, error) from error
    if dialled.sock is None:
        raise unreachable(cluster.server, OSError("the connection was closed at once"))
    return PortForwardCarrier(dialled.sock, port)


def _close_reason(data: bytes) -> str:
    return f"{int.from_bytes(data[:2], 'big')} {data[2:].decode('utf-8', 'replace')}".strip() if data else ""
