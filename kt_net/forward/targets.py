"""What users write for "where to": a Service, a pod, a workload, or a host that the cluster reaches.

Not here: whether there is such a thing (kt_net.session.forward_target).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kt_net.choreography.names import MAX_NAME, is_name
from kt_net.errors import UsageFault


class Kind(StrEnum):
    """Of a target. `ANY` is a plain name: a Service's, else a pod's."""

    ANY = "any"
    SERVICE = "Service"
    POD = "Pod"
    DEPLOYMENT = "Deployment"
    STATEFUL_SET = "StatefulSet"
    HOST = "host"


#: Spellings before the slash: kubectl's, and one of ours.
PREFIXES: Final[dict[str, Kind]] = {
    "svc": Kind.SERVICE,
    "service": Kind.SERVICE,
    "services": Kind.SERVICE,
    "po": Kind.POD,
    "pod": Kind.POD,
    "pods": Kind.POD,
    "deploy": Kind.DEPLOYMENT,
    "deployment": Kind.DEPLOYMENT,
    "deployments": Kind.DEPLOYMENT,
    "sts": Kind.STATEFUL_SET,
    "statefulset": Kind.STATEFUL_SET,
    "statefulsets": Kind.STATEFUL_SET,
    "host": Kind.HOST,
}
_HOST: Final = re.compile(
    r"[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?)*\.?\Z"
)
_ADDRESS6: Final = re.compile(r"[0-9A-Fa-f:.]+\Z")


@dataclass(frozen=True, slots=True)
class Target:
    """What was named."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return self.name if self.kind in (Kind.ANY, Kind.HOST) else f"{self.kind.lower()}/{self.name}"


def parse_target(text: str) -> Target:
    """KIND/NAME, a plain name, or a host: what has a dot or a colon in it, or stands behind `host/`.

    Raises:
        UsageFault: none of these.
    """
    prefix, slash, name = text.partition("/")
    if not slash:
        prefix, name = "", text
    kind = PREFIXES.get(prefix.lower()) if slash else Kind.HOST if "." in name or ":" in name else Kind.ANY
    if kind is None:
        raise UsageFault(
            f"{text!r} is no target",
            why=f"no kind {prefix!r} can be forwarded to",
            next_step="name svc/X, pod/X, deployment/X, statefulset/X, a plain name, an address, or host/NAME",
        )
    if kind is Kind.HOST:
        return Target(kind, _host(name, text))
    if not is_name(name):
        raise UsageFault(f"{text!r} is no target", why=f"{name!r} is no name of an object in Kubernetes")
    return Target(kind, name)


def _host(name: str, text: str) -> str:
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    fits = _ADDRESS6.match(bare) if ":" in bare else _HOST.match(bare)
    if not fits or len(bare) > MAX_NAME:
        raise UsageFault(
            f"{text!r} is no target",
            why=f"{name!r} is no address and no host name",
            next_step="a port goes behind it, apart: ktctl forward db.internal 5432",
        )
    return bare
