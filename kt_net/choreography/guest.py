"""An agent as a guest in somebody's running pod: an ephemeral container, which nothing restarts and nobody can take out again. Quiet.

It shares the pod's network and redirects callers there; a volume it cannot have, so its program comes in its environment, from a
ConfigMap: what stands in the pod's list for as long as the pod lives has to be small. Before Kubernetes 1.33 a node may not read what
only a guest names (kubernetes/kubernetes#114984): there it stands in the list. Source: Kubernetes doc, "Ephemeral Containers".

Not here: the redirection (shadow_image.redirect), waiting for it (kt_net.kube.guest).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kt_net.choreography.edits import Request
from kt_net.choreography.records import Object
from kt_net.choreography.shadow import LEASE, ShadowOptions, lease, metadata
from kt_net.choreography.steps import Reference, Step
from kt_net.errors import Exchanged, UsageFault

PREFIX: Final = "kt-exchange-"
#: A guest whose client is gone ends after so long, whatever the client has asked for: it is in somebody else's pod.
IDLE_SECONDS: Final = 20.0
#: The program's variable, and its key in the ConfigMap.
AGENT: Final = "KTNET_AGENT"
CONFIG_MAP: Final = "config map"
#: Of Kubernetes (major, minor).
_CONFIG_MAPS_FROM: Final = (1, 33)
#: A variable with its name and the octet that ends it (Linux, MAX_ARG_STRLEN).
_MAX_WORD: Final = 128 * 1024 - len(AGENT) - 2
#: A zip file that is nowhere but in memory: the pod's root may be read-only, and another user's.
_BOOT: Final = (
    "import base64,os,runpy;f=os.memfd_create('agent');"
    f"open(f,'wb',closefd=False).write(base64.b64decode(os.environ.pop('{AGENT}')));"
    "runpy.run_path(f'/proc/self/fd/{f}',run_name='__main__')"
)


@dataclass(frozen=True, slots=True)
class AddGuest:
    """An ephemeral container; once it is there, it is there.

    Attributes:
        passed: names of guests that are nobody's any more. Of two who add one at the same time the second sees the first's.
    """

    container: Mapping[str, Any]
    passed: frozenset[str] = frozenset()

    def request(self, live: Object) -> Request | None:
        """See `Edit`.

        Raises:
            Exchanged: somebody else has one there.
        """
        there = list((live.get("spec") or {}).get("ephemeralContainers") or ())
        if any(one.get("name") == self.container["name"] for one in there):
            return None
        for name in guests(live):
            if name not in self.passed:
                raise anothers(str(live["metadata"]["name"]), name)
        metadata = {"resourceVersion": live["metadata"]["resourceVersion"]}
        return Request(
            {"metadata": metadata, "spec": {"ephemeralContainers": [*there, dict(self.container)]}},
            "ephemeralcontainers",
        )


def takes_config_maps(version: Mapping[str, Any]) -> bool:
    """Whether an API server of that version (`/version`) lets a node read a ConfigMap that only a guest names; unknown ones do."""
    numbers = [re.match(r"[0-9]{1,4}", str(version.get(part, ""))) for part in ("major", "minor")]
    if numbers[0] is None or numbers[1] is None:
        return True
    return (int(numbers[0][0]), int(numbers[1][0])) >= _CONFIG_MAPS_FROM


def guest_container(options: ShadowOptions, untouched: tuple[str, ...], *, inline: bool = False) -> dict[str, Any]:
    """What is added to the pod.

    Args:
        untouched: addresses of the node, whose probes the pod's own program is to answer.
        inline: with its program, not with the name of a ConfigMap.

    Raises:
        UsageFault: the agent is too big for a variable.
    """
    variable: dict[str, Any] = {"valueFrom": {"configMapKeyRef": {"name": options.name, "key": AGENT}}}
    if inline:
        variable = {"value": _word(options)}
    arguments = ["--port", str(options.agent_port), "--idle-exit", f"{IDLE_SECONDS:g}", "--redirect"]
    for address in untouched:
        arguments += ["--untouched", address]
    return {
        "name": options.name,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-I", "-c", _BOOT, *arguments],
        "env": [{"name": AGENT, **variable}],
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def guest_steps(options: ShadowOptions, pod: Object, passed: Iterable[str] = (), *, inline: bool = False) -> list[Step]:
    """The session's Lease, which is the pod's and goes with it at the latest; the agent, which goes with the Lease; and the container.

    The container has no inverse but its own end.

    Args:
        passed: see `AddGuest`.
        inline: see `guest_container`.

    Raises:
        UsageFault: the agent is too big for a variable.
    """
    container = guest_container(options, probers(pod), inline=inline)
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    name = str(pod["metadata"]["name"])
    delete = Step(f"delete {LEASE}", "delete", "Lease", options.namespace, options.name)
    steps = [
        Step(LEASE, "create", "Lease", options.namespace, options.name, lease(options, owner), delete),
        Step("guest", "edit", "Pod", options.namespace, name, edit=AddGuest(container, frozenset(passed))),
    ]
    if not inline:
        steps.insert(1, Step(CONFIG_MAP, "create", "ConfigMap", options.namespace, options.name, _config_map(options)))
    return steps


def _word(options: ShadowOptions) -> str:
    word = base64.b64encode(options.agent).decode()
    if len(word) > _MAX_WORD:
        raise UsageFault("the agent is too big for a variable of a container", why=f"{len(word)} octets")
    return word


def _config_map(options: ShadowOptions) -> dict[str, Any]:
    owner = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": options.name, "uid": Reference(LEASE)}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(options, owner),
        "immutable": True,
        "data": {AGENT: _word(options)},
    }


def guests(pod: Object, *, running: bool = False) -> list[str]:
    """Names of the guests in a pod that have not ended: somebody exchanges it. With `running`, of those that have begun."""
    statuses = (pod.get("status") or {}).get("ephemeralContainerStatuses") or ()
    states = {str(one.get("name")): one.get("state") or {} for one in statuses}
    names = [str(one.get("name")) for one in (pod.get("spec") or {}).get("ephemeralContainers") or ()]
    return [
        name
        for name in names
        if name.startswith(PREFIX)
        and "terminated" not in states.get(name, {})
        and (not running or "running" in states.get(name, {}))
    ]


def anothers(pod: str, guest: str) -> Exchanged:
    """Why a pod with that guest in it is not ours to take."""
    return Exchanged(
        f"pod/{pod} is exchanged",
        why=f"somebody's guest is in it: container {guest}",
        next_step="ask them to end it; it ends by itself when its client is gone (one that has never begun: ktctl clean)",
    )


def refuse_host_network(pod: Object) -> None:
    """Nothing, when a pod has a network of its own.

    Raises:
        UsageFault: it is its node's, and everybody's on that node would be redirected.
    """
    if (pod.get("spec") or {}).get("hostNetwork"):
        raise UsageFault(
            f"pod {pod['metadata']['name']} is on its node's network",
            why="its kernel's rules are the node's: other pods' traffic would come here as well",
            next_step="use --mode selector or scale",
        )


def probers(pod: Object) -> tuple[str, ...]:
    """The node's addresses, where the kubelet probes the pod's containers over the network; () where it does not."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    probes = [
        one.get(probe) or {} for one in containers for probe in ("livenessProbe", "readinessProbe", "startupProbe")
    ]
    if not any(kind in probe for probe in probes for kind in ("httpGet", "tcpSocket", "grpc")):
        return ()
    status = pod.get("status") or {}
    found = [str(one.get("ip")) for one in status.get("hostIPs") or () if one.get("ip")]
    return tuple(found or filter(None, [str(status.get("hostIP") or "")]))
