"""One local port for one port of a pod; no root.

Not here: following pods that are replaced, Services as targets.
"""

from __future__ import annotations

import threading

from kt_net.choreography.names import check_namespace
from kt_net.drivers.forward import ForwardListener
from kt_net.errors import ShadowFailed, UsageFault
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.config import load_cluster
from kt_net.kube.permissions import require
from kt_net.session.engine import Engine, Progress, SessionOptions
from kt_net.tunnel.requests import Network, ReplyCode, Request

LOCAL_HOST = "127.0.0.1"


def parse_ports(text: str) -> tuple[int, int]:
    """LOCAL[:REMOTE]; a single number is both.

    Raises:
        UsageFault: they are no ports.
    """
    local, _, remote = text.partition(":")
    try:
        ports = int(local), int(remote or local)
    except ValueError:
        raise UsageFault(f"{text!r} is no port", why="a port is LOCAL or LOCAL:REMOTE, in digits") from None
    if not (0 <= ports[0] <= 65535 and 0 < ports[1] <= 65535):
        raise UsageFault(f"{text!r} is no port", why="ports go to 65535; a local port of 0 takes any free one")
    return ports


class ForwardSession:
    """One forward. `start` brings it up, `close` undoes it."""

    def __init__(self, options: SessionOptions, progress: Progress, pod: str, ports: str) -> None:
        self._options = options
        self._progress = progress
        self._pod = pod
        self._local, self._remote = parse_ports(ports)
        self._engine: Engine | None = None
        self._listener: ForwardListener | None = None
        self._said: set[ReplyCode] = set()

    @property
    def port(self) -> int:
        """The local port."""
        return self._listener.port if self._listener is not None else self._local

    def start(self) -> None:
        """Bring it up.

        Raises:
            KtError: whatever was in the way; `close` undoes what was done.
        """
        options = self._options
        cluster = load_cluster(kubeconfig=options.kubeconfig, context=options.context, namespace=options.namespace)
        api = HttpKubeApi(cluster)
        self._engine = engine = Engine(cluster, api, options)
        engine.progress = self._progress
        require(api, cluster.namespace, carrier=options.carrier)
        self._progress(f"cluster {cluster.name} at {cluster.server}, namespace {cluster.namespace}")
        address = self._pod_address(api, check_namespace(cluster.namespace))
        request = Request(Network.TCP, address, self._remote)
        # The port is taken before anything is created in the cluster: a taken one is the likeliest failure.
        self._listener = listener = ForwardListener(
            engine.loop, engine.switchboard, request, host=LOCAL_HOST, port=self._local, refused=self._refused
        )
        shadow = engine.start_shadow()
        self._progress(f"shadow pod {shadow.pod}")
        report = engine.connect(dict)
        self._progress(f"tunnel to agent {report.get('agent', '?')}")
        engine.loop.call_soon(listener.start)

    def _pod_address(self, api: HttpKubeApi, namespace: str) -> str:
        pod = api.get("Pod", namespace, self._pod)
        address = pod.get("status", {}).get("podIP")
        if not address:
            raise ShadowFailed(f"pod {self._pod} has no address", next_step="wait until it runs")
        return str(address)

    def _refused(self, code: ReplyCode) -> None:
        if code not in self._said:
            self._said.add(code)
            self._progress(f"port {self._remote} of {self._pod}: {code.name.lower().replace('_', ' ')}")

    def wait(self, stop: threading.Event) -> None:
        """Until `stop` is set.

        Raises:
            KtError: the connection ended by itself.
        """
        if self._engine is not None:
            self._engine.wait(stop)

    def close(self) -> list[str]:
        """Undo everything; what could not be, in words."""
        said: list[str] = []
        if self._engine is not None:
            said = [f"cluster: {error}" for error in self._engine.close()]
        if self._listener is not None:
            self._listener.close()
        return said
