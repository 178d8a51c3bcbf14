"""Local ports for those of a Service, a pod, a workload or a host that the cluster reaches; no root.

Not here: what a target is (forward_target.py), following it (forward_follow.py), sockets (kt_net.drivers).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from kt_net.choreography.names import check_namespace
from kt_net.drivers.forward import ForwardListener
from kt_net.drivers.forward_datagrams import DatagramListener
from kt_net.drivers.forward_sockets import take_port
from kt_net.errors import UsageFault
from kt_net.forward.choice import Choice
from kt_net.forward.ports import Forward, Protocol, parse_pair, plan
from kt_net.forward.targets import parse_target
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.config import load_cluster
from kt_net.kube.permissions import require
from kt_net.session.engine import Engine, Progress, SessionOptions
from kt_net.session.forward_follow import Follower
from kt_net.session.forward_target import Destination, find
from kt_net.tunnel.requests import ReplyCode


@dataclass(frozen=True, slots=True)
class Listening:
    """A local port that was taken: on which addresses, and what it leads to."""

    addresses: tuple[str, ...]
    port: int
    forward: Forward


class ForwardSession:
    """All ports of one `ktctl forward`. `start` brings them up, `close` undoes it.

    Args:
        target, pairs: as users write them.
        addresses: to listen on; () for loopback.
        balance: over a Service's ready pods instead of its cluster address.

    Raises:
        UsageFault: target or ports make no sense.
    """

    def __init__(
        self,
        options: SessionOptions,
        progress: Progress,
        target: str,
        pairs: Sequence[str],
        *,
        addresses: Sequence[str] = (),
        balance: bool = False,
    ) -> None:
        self._options = options
        self._progress = progress
        self._target = parse_target(target)
        self._pairs = tuple(parse_pair(pair) for pair in pairs)
        self._addresses = listening_on(addresses)
        self._balance = balance
        self._engine: Engine | None = None
        self._follower: Follower | None = None
        self._listeners: list[ForwardListener | DatagramListener] = []
        self._said: set[tuple[str, ReplyCode]] = set()
        #: What listens; from `start` on.
        self.listening: list[Listening] = []
        #: What is forwarded to, in words; from `start` on.
        self.title = str(self._target)

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
        namespace = check_namespace(cluster.namespace)
        destination = find(api, namespace, self._target, balance=self._balance)
        self.title = str(destination.target)
        self._progress(f"{destination.target}: {destination.how}")
        forwards = plan(
            self._pairs,
            destination.offered,
            self.title,
            unlisted=destination.unlisted,
            by_name=destination.by_name,
        )
        # Ports are taken before anything is created in the cluster: a taken one is the likeliest failure.
        for forward in forwards:
            self._listen(engine, destination, forward)
        self._follower = follower = Follower(
            api,
            namespace,
            destination,
            forwards,
            [listener.replace for listener in self._listeners],
            loop=engine.loop,
            progress=self._progress,
        )
        shadow = engine.start_shadow()
        self._progress(f"shadow pod {shadow.pod}")
        follower.wait_known()
        report = engine.connect(dict)
        self._progress(f"tunnel to agent {report.get('agent', '?')}")
        for listener in self._listeners:
            engine.loop.call_soon(listener.start)

    def _listen(self, engine: Engine, destination: Destination, forward: Forward) -> None:
        shown = forward.shown.partition(" ")[0]
        kind = socket.SOCK_STREAM if forward.protocol is Protocol.TCP else socket.SOCK_DGRAM
        taken = take_port(kind, self._addresses, forward.local, f"{another_port(forward.local)}:{shown}")
        where = tuple(one.getsockname()[0] for one in taken)
        self.listening.append(Listening(where, taken[0].getsockname()[1], forward))
        refused = partial(self._refused, f"{destination.target} port {shown}")
        make: Callable[..., ForwardListener | DatagramListener] = (
            ForwardListener if forward.protocol is Protocol.TCP else DatagramListener
        )
        self._listeners.append(make(engine.loop, engine.switchboard, taken, Choice(), refused))

    def _refused(self, what: str, code: ReplyCode) -> None:
        if (what, code) not in self._said:
            self._said.add((what, code))
            self._progress(f"{what}: {code.name.lower().replace('_', ' ')}")

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
        if self._follower is not None:
            self._follower.close()
        if self._engine is not None:
            said = [f"cluster: {error}" for error in self._engine.close()]
        for listener in self._listeners:
            listener.close()
        return said


def another_port(port: int) -> int:
    """A local port to propose instead: 80 is 8080 to everybody."""
    return port + (8000 if port < 1024 else 10000) if port + 10000 <= 65535 else port - 10000


def listening_on(addresses: Sequence[str]) -> tuple[str, ...]:
    """`--address` as given; `localhost` alone is the default.

    Raises:
        UsageFault: no address.
    """
    found: list[str] = []
    for text in addresses:
        if text == "localhost" and len(addresses) > 1:
            found += ["127.0.0.1", "::1"]
        elif text != "localhost":
            if not _is_address(text):
                raise UsageFault(
                    f"{text!r} is no address", why="--address takes addresses of this machine, or localhost"
                )
            found.append(text)
    return tuple(dict.fromkeys(found))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
