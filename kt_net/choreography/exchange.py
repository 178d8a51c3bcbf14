"""What an exchange of a Service is made of: which ports, where the shadow pod listens for each, and what the user should know. Quiet.

The Service's ports stay as they are, so the shadow pod listens where they lead: on the number of a target port, or on a port of its own
that has the target port's name.

Not here: the change of the Service itself (edits.py), reading the objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kt_net.choreography.expose import FIRST_UNPRIVILEGED, MAX_EXPOSED, Expose, Protocol, Wanted, parse_wanted
from kt_net.choreography.records import Object, name_of
from kt_net.choreography.shadow import AGENT_PORT, ContainerPort
from kt_net.errors import UsageFault

_ELSEWHERE: Final = 20000
#: What the names of ports, and `appProtocol`s, of connections that callers keep for long have in them.
_POOLED: Final = (
    "grpc",
    "h2c",
    "http2",
    "kubernetes.io/ws",
    "redis",
    "postgres",
    "mysql",
    "mongo",
    "amqp",
    "kafka",
    "nats",
    "sql",
    "websocket",
)


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service.

    Attributes:
        target: its target port: a number, or a name that every pod gives a number of its own.
    """

    name: str
    number: int
    protocol: Protocol
    target: int | str
    app_protocol: str = ""

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        target = "" if self.target == self.number else f" to {self.target}"
        return f"{self.number}{'/udp' if self.protocol == 'UDP' else ''}{name}{target}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done.

    Attributes:
        ports: each exposed port, and where the agent listens for it.
        named: container ports of the shadow pod that have the names of target ports.
        agent_port: of the agent itself.
        notes: what the user should know before anything is changed.
        nodes: the shadow pod has to run on one of these; () on any.
    """

    ports: Mapping[Expose, int]
    named: tuple[ContainerPort, ...] = ()
    agent_port: int = AGENT_PORT
    notes: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def low(self) -> bool:
        """Whether the agent listens where only root may."""
        return any(port < FIRST_UNPRIVILEGED for port in self.ports.values())

    @property
    def listed(self) -> list[dict[str, object]]:
        """What leads where, for scripts."""
        return [{"port": expose.remote, "protocol": expose.protocol, "target": expose.target} for expose in self.ports]

    @property
    def words(self) -> str:
        """What leads where, for people."""
        return ", ".join(f"{expose.remote} to {expose.target}" for expose in self.ports)


def ports_of(service: Object) -> list[ServicePort]:
    """All TCP and UDP ports of a Service."""
    found = []
    for one in (service.get("spec") or {}).get("ports") or ():
        protocol: Protocol | None = {"TCP": "TCP", "UDP": "UDP"}.get(one.get("protocol") or "TCP")  # type: ignore[assignment]
        if protocol is not None:
            target = one.get("targetPort") or one["port"]
            found.append(
                ServicePort(
                    str(one.get("name") or ""), int(one["port"]), protocol, target, str(one.get("appProtocol") or "")
                )
            )
    return found


def refuse_shape(service: Object) -> None:
    """Nothing, when the Service can be exchanged by its selector.

    Raises:
        UsageFault: it cannot; why, and what can be done instead.
    """
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        raise UsageFault(
            f"{name_of(service)} cannot be exchanged",
            why=f"it is another name of {spec.get('externalName')} (ExternalName): no pods are behind it",
            next_step="preview a Service of another name, and have callers use that",
        )
    if not spec.get("selector"):
        raise UsageFault(
            f"{name_of(service)} cannot be exchanged",
            why="it has no selector: somebody else writes where it leads, and would write it again",
            next_step="have its EndpointSlices changed by whoever makes them, or preview a Service of another name",
        )


def plan(
    service: Object, texts: Sequence[str], *, numbers: Mapping[str, int] | None = None, guest: bool = False
) -> Plan:
    """Ports, by what was written.

    Args:
        numbers: of the original pods' named ports.
        guest: the agent is in those pods, and takes the callers of these very ports.

    Raises:
        UsageFault: see `refuse_shape`; no such port, one twice, too many.
    """
    if not guest:
        refuse_shape(service)
    offered = ports_of(service)
    chosen: dict[ServicePort, Wanted] = {}
    for wanted in map(parse_wanted, texts):
        port = _choose(service, offered, wanted)
        if port in chosen:
            raise UsageFault(f"--expose: port {port} is there twice", next_step="name each port once")
        chosen[port] = wanted
    if not 0 < len(chosen) <= MAX_EXPOSED:
        raise UsageFault(f"--expose: {len(chosen)} ports", why=f"1 to {MAX_EXPOSED} are possible")
    if guest:
        listen = {port: [(port.number, _number(service, port, numbers or {}))] for port in chosen}
    else:
        listen = _listen(list(chosen), numbers or {}, headless=is_headless(service))
    ports: dict[Expose, int] = {}
    for port, wanted in chosen.items():
        for number, at in listen[port]:
            ports[Expose(wanted.host, wanted.local, number, port.protocol)] = at
    named = {
        port.target: ContainerPort(port.target, listen[port][0][1], port.protocol)
        for port in chosen
        if isinstance(port.target, str)
    }
    if guest:
        return Plan(ports)
    agent_port = AGENT_PORT
    while agent_port in ports.values():
        agent_port += 1
    left = [str(port) for port in offered if port not in chosen]
    notes = [f"not exposed, refused from now on: port {', '.join(left)}"] if left else []
    return Plan(ports, tuple(named.values()), agent_port, (*notes, *_shape_notes(service)))


def is_headless(service: Object) -> bool:
    """Whether callers are told the pods' addresses."""
    return (service.get("spec") or {}).get("clusterIP") == "None"


def pooled(ports: Iterable[ServicePort]) -> list[str]:
    """Those whose callers are likely to keep their connections, in words."""
    return [
        str(port)
        for port in ports
        if any(word in text.lower() for word in _POOLED for text in (port.name, port.app_protocol))
    ]


def matching(services: Iterable[Object], labels: Mapping[str, str]) -> list[Object]:
    """Services that select pods with these labels."""
    found = []
    for service in services:
        selector = (service.get("spec") or {}).get("selector") or {}
        if selector and selector.items() <= labels.items():
            found.append(service)
    return found


def _choose(service: Object, offered: Sequence[ServicePort], wanted: Wanted) -> ServicePort:
    """The port that is meant: by its number, its target's, its name, or its target's."""
    fitting = [port for port in offered if wanted.protocol in (None, port.protocol)]
    remote = wanted.local if wanted.remote is None else wanted.remote
    ways: tuple[Any, ...] = (
        lambda port: remote == port.number,
        lambda port: remote == port.target,
        lambda port: remote == port.name,
    )
    for way in ways:
        found = [port for port in fitting if way(port)]
        if len(found) > 1:
            # One number may be two ports, of either protocol: TCP is meant unless said, as everywhere.
            found = [port for port in found if port.protocol == "TCP"] or found
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageFault(
                f"--expose {wanted.text}: {' and '.join(map(str, found))} are both meant",
                next_step="name the port by its own number",
            )
    if wanted.remote is None and len(fitting) == 1:
        return fitting[0]
    raise UsageFault(
        f"--expose {wanted.text}: {name_of(service)} has no port {remote}",
        why=f"it has {', '.join(map(str, offered)) or 'none'}",
        next_step=f"name one of those: --expose {wanted.local}:PORT",
    )


def _number(service: Object, port: ServicePort, numbers: Mapping[str, int]) -> int:
    if isinstance(port.target, int):
        return port.target
    if port.target not in numbers:
        raise UsageFault(f"{name_of(service)}: no pod of it has a port {port.target}", next_step="name another port")
    return numbers[port.target]


def _listen(
    chosen: Sequence[ServicePort], numbers: Mapping[str, int], *, headless: bool
) -> dict[ServicePort, list[tuple[int, int]]]:
    """For each port what callers call it, and where the agent listens.

    Callers of a headless Service come to the pod's address, with whichever number they know: the target's, or the Service's own.
    """
    fixed = {port.target for port in chosen if isinstance(port.target, int)}
    names: dict[str, int] = {}
    listen: dict[ServicePort, list[tuple[int, int]]] = {}
    for port in chosen:
        if isinstance(port.target, int):
            at = port.target
        elif port.target in names:
            at = names[port.target]
        else:
            at = numbers.get(port.target, port.number)
            if at < FIRST_UNPRIVILEGED and not headless:
                at += _ELSEWHERE
            while at in fixed or at in names.values():
                at += 1
            names[port.target] = at
        listen[port] = [(at if headless else port.number, at)]
    if headless:
        taken = {at for ways in listen.values() for _, at in ways}
        for port, ways in listen.items():
            if port.number not in taken:
                ways.append((port.number, port.number))
                taken.add(port.number)
    return listen


def _shape_notes(service: Object) -> list[str]:
    spec = service.get("spec") or {}
    notes = []
    if is_headless(service):
        notes.append(
            "it is headless: callers find the shadow pod when they ask DNS again; names of single pods are away meanwhile"
        )
    if spec.get("publishNotReadyAddresses"):
        notes.append("it publishes addresses that are not ready: callers may come a moment too early")
    if spec.get("sessionAffinity") == "ClientIP":
        notes.append("it has session affinity: every caller comes here, the originals are no choice any more")
    local = [word for word in ("internalTrafficPolicy", "externalTrafficPolicy") if spec.get(word) == "Local"]
    if local:
        notes.append(
            f"{' and '.join(local)} Local: only callers by the shadow pod's node come here, others find nobody"
        )
    return notes
