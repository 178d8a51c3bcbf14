"""Dials carriers: which way through the API server, and the websocket's handshake by websocket-client (TLS, proxies).

Forms, best first where a server has all: "spdy" is what kubectl does from Kubernetes 1.31 on, "websocket" the older port-forward of other
clients, "exec" a bridge in the pod, for those who may exec and not port-forward. The same octets in other clothes.

Not here: the connection once it is there (carrier.py).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Final
from urllib.parse import urlencode, urlsplit

import websocket

from kt_net.choreography.names import CONTAINER
from kt_net.choreography.shadow import AGENT_COMMAND
from kt_net.errors import AdmissionRefused, ApiUnreachable, KtError, PermissionMissing, RequestRefused, TunnelLost
from kt_net.kube.carrier import Form, WebsocketCarrier
from kt_net.kube.config import Cluster
from kt_net.kube.refusals import refusal, unreachable
from kt_net.kube.tls import TlsConnection
from kt_net.wire import portforward, remotecommand, spdy

DIAL_SECONDS: Final = 10.0


#: Of the handshake: that it did not come to its end. Everything else means that the answer was not the one of this form.
_BROKEN: Final = (
    websocket.WebSocketTimeoutException,
    websocket.WebSocketConnectionClosedException,
    websocket.WebSocketAddressException,
    websocket.WebSocketProxyException,
)


@dataclass(frozen=True, slots=True)
class Way:
    """One form: where it is asked for, and how its messages are made.

    Attributes:
        path: below the pod's, with its query; formatted with `port`.
        make: from the port.
    """

    path: str
    subprotocols: tuple[str, ...]
    make: Callable[[int], Form]


#: What is run for the form "exec": the bridge, in the agent's container.
_BRIDGE: Final = urlencode(
    [("command", word) for word in (*AGENT_COMMAND, "--bridge")]
    + [("container", CONTAINER), ("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("command", "--port")]
)
#: By name, in the order in which they are tried.
FORMS: Final[dict[str, Way]] = {
    "spdy": Way("portforward?ports={port}", (spdy.SUBPROTOCOL,), spdy.SpdyForward),
    "websocket": Way("portforward?ports={port}", (portforward.SUBPROTOCOL,), portforward.ChannelForward),
    "exec": Way(
        "exec?" + _BRIDGE + "&command={port}", remotecommand.SUBPROTOCOLS, lambda port: remotecommand.ExecBridge()
    ),
}


class Dialler:
    """Finds out once which form works, and uses it from then on.

    Args:
        form: a name of `FORMS` that is to be used whatever happens; "" to try.
        likely: the form that worked the last time; "" when nobody knows.
        works: told which one was found.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, *, form: str = "", likely: str = "", works: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._works = works
        self._forms = [form] if form else sorted(FORMS, key=lambda name: name != likely)
        self._found = form

    @property
    def form(self) -> str:
        """The one that works; "" before that is known."""
        return self._found

    def dial(self, pod: str, port: int, *, seconds: float = DIAL_SECONDS) -> WebsocketCarrier:
        """See `open_carrier`; what is raised is what the likeliest form met with."""
        refused: KtError | None = None
        for form in [self._found] if self._found else self._forms:
            try:
                carrier = open_carrier(self._cluster, self._namespace, pod, port, form=form, seconds=seconds)
            except (RequestRefused, AdmissionRefused, PermissionMissing) as error:
                refused = refused or error
                continue
            if form != self._found:
                self._found = form
                self._works(form)
            return carrier
        raise refused or TunnelLost("no carrier was tried")


def open_carrier(
    cluster: Cluster, namespace: str, pod: str, port: int, *, form: str = "spdy", seconds: float = DIAL_SECONDS
) -> WebsocketCarrier:
    """Dial `port` of `pod` through the API server.

    Args:
        form: a name of `FORMS`.

    Raises:
        PermissionMissing, CredentialsRejected, ObjectMissing, CertificateRejected, ApiUnreachable: no carrier.
        RequestRefused, AdmissionRefused: the API server, or who speaks for it, does not do this form; another may work.
        TunnelLost: it broke at once.
    """
    way = FORMS[form]
    base = cluster.server.replace("http", "ws", 1)
    url = f"{base}/api/v1/namespaces/{namespace}/pods/{pod}/{way.path.format(port=port)}"
    connected: socket.socket | TlsConnection | None = None
    try:
        connected = _connected(cluster, seconds)
        websocket.create_connection(
            url,
            timeout=seconds,
            socket=connected,
            subprotocols=list(way.subprotocols),
            header=cluster.headers(),
            suppress_origin=True,
        )
        return WebsocketCarrier(connected, way.make(port))
    except (KtError, websocket.WebSocketException, OSError, ValueError) as error:
        if connected is not None:
            connected.close()
        if isinstance(error, KtError):
            raise
        what = f"open a carrier of form {form} to pod {pod}"
        if isinstance(error, websocket.WebSocketBadStatusException):
            body = error.resp_body if isinstance(error.resp_body, bytes) else b""
            raise refusal(error.status_code, body, what) from error
        if isinstance(error, websocket.WebSocketException) and not isinstance(error, _BROKEN):
            raise RequestRefused(f"cannot {what}", why=str(error)) from error
        raise unreachable(cluster.server, error) from error


def _connected(cluster: Cluster, seconds: float) -> socket.socket | TlsConnection:
    """To the API server, through a proxy where there is one (RFC 9110 section 9.3.6), with TLS where it wants it."""
    proxy = cluster.proxy
    if proxy:
        parts = urlsplit(proxy)
        if parts.scheme != "http":
            raise ApiUnreachable(
                f"a proxy of kind {parts.scheme} carries no tunnel", next_step="name an HTTP proxy, http://"
            )
        http = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=seconds)
        http.set_tunnel(cluster.host, cluster.port, cluster.proxy_headers())
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
