"""Dials carriers: which way through the API server, and the websocket's handshake by websocket-client (TLS, proxies).

Forms, best first where a server has both: "spdy" is what kubectl does from Kubernetes 1.31 on, "websocket" the older one of other
clients; the same octets in other clothes.

Not here: the connection once it is there (carrier.py).
"""

from __future__ import annotations

import socket
from base64 import b64encode
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Final
from urllib.parse import unquote, urlsplit

import websocket

from kt_net.errors import KtError
from kt_net.kube.carrier import Form, WebsocketCarrier
from kt_net.kube.config import Cluster
from kt_net.kube.refusals import refusal, unreachable
from kt_net.kube.tls import TlsConnection
from kt_net.wire import portforward, spdy

DIAL_SECONDS: Final = 10.0

#: Name -> subprotocol and how its messages are made.
FORMS: Final[dict[str, tuple[str, Callable[[int], Form]]]] = {
    "spdy": (spdy.SUBPROTOCOL, spdy.SpdyForward),
    "websocket": (portforward.SUBPROTOCOL, portforward.ChannelForward),
}


def open_carrier(
    cluster: Cluster, namespace: str, pod: str, port: int, *, form: str = "spdy", seconds: float = DIAL_SECONDS
) -> WebsocketCarrier:
    """Dial `port` of `pod` through the API server.

    Args:
        form: a name of `FORMS`.

    Raises:
        PermissionMissing, CredentialsRejected, ObjectMissing, CertificateRejected, ApiUnreachable: no port-forward.
        FormUnknown: the API server does not know this form; another may work.
    """
    subprotocol, make = FORMS[form]
    base = cluster.server.replace("http", "ws", 1)
    url = f"{base}/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
    connected: socket.socket | TlsConnection | None = None
    try:
        connected = _connected(cluster, seconds)
        websocket.create_connection(
            url,
            timeout=seconds,
            socket=connected,
            subprotocols=[subprotocol],
            header=cluster.headers(),
            suppress_origin=True,
        )
        return WebsocketCarrier(connected, make(port))
    except (KtError, websocket.WebSocketException, OSError, ValueError) as error:
        if connected is not None:
            connected.close()
        if isinstance(error, KtError):
            raise
        if isinstance(error, websocket.WebSocketBadStatusException):
            body = error.resp_body if isinstance(error.resp_body, bytes) else b""
            raise refusal(error.status_code, body, f"port-forward to pod {pod}") from error
        raise unreachable(cluster.server, error) from error


def _connected(cluster: Cluster, seconds: float) -> socket.socket | TlsConnection:
    """To the API server, through a proxy where there is one (RFC 9110 section 9.3.6), with TLS where it wants it."""
    proxy = cluster.proxy
    if proxy:
        parts = urlsplit(proxy)
        http = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=seconds)
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
        headers = {"Proxy-Authorization": "Basic " + b64encode(user.encode()).decode()} if user else {}
        http.set_tunnel(cluster.host, cluster.port, headers)
    else:
        http = HTTPConnection(cluster.host, cluster.port, timeout=seconds)
    http.connect()  # sets TCP_NODELAY, too
    connected: socket.socket = http.sock
    context = cluster.ssl_context()
    if context is None:
        return connected
    try:
        return TlsConnection(connected, context, cluster.server_name or cluster.host)
    except OSError:
        connected.close()
        raise
