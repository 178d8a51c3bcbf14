"""The Service of a preview: made when somebody listens behind it, owned by the shadow pod's Job, so that it goes with it.

Every step is about a Service that carries our session's mark: one of somebody else's under the same name is not touched.

Not here: the shadow pod (shadow.py), asking the API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kt_net.choreography.expose import Expose
from kt_net.choreography.names import (
    CONTROL_BY,
    CONTROL_BY_KT,
    HEART_BEAT,
    ROLE_PREVIEW,
    SCHEMA,
    SCHEMA_VERSION,
    TARGET,
    USER,
    annotation_safe,
)
from kt_net.choreography.shadow import labels
from kt_net.choreography.steps import Step
from kt_net.errors import UsageFault

#: A Service's name is an RFC 1035 label (Kubernetes doc, "Object Names and IDs").
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")
SERVICE: Final = "service"


@dataclass(frozen=True, slots=True)
class PreviewOptions:
    """What the Service is made of.

    Attributes:
        ports: each exposed port, and where the agent listens for it.
        target: the session's mark, the same for every shadow pod that it has.
        shadow: name of the Job; its pods are selected.
        job_uid: the owner.
        external: a LoadBalancer.
    """

    name: str
    namespace: str
    ports: Mapping[Expose, int]
    user: str
    target: str
    shadow: str
    job_uid: str
    now_unix: int
    external: bool = False


def check_service_name(name: str) -> str:
    """`name` when a Service can be called so.

    Raises:
        UsageFault: it cannot.
    """
    if not _NAME.match(name):
        raise UsageFault(
            f"{name!r} is no name of a Service", why="lower-case letters, digits and -, a letter first, at most 63"
        )
    return name


def preview_steps(options: PreviewOptions) -> list[Step]:
    """The Service. Its inverse deletes the one that this session has made, if it has."""
    mark = {TARGET: options.target}
    delete = Step(f"delete {SERVICE}", "delete", "Service", options.namespace, options.name, marked=mark)
    return [Step(SERVICE, "create", "Service", options.namespace, options.name, _service(options), delete)]


def move_step(options: PreviewOptions, uid: str) -> Step:
    """The Service `uid` belongs to another shadow pod from now on, and leads there."""
    body = {
        "metadata": {"uid": uid, "ownerReferences": _owners(options)},
        "spec": {"selector": _selector(options)},
    }
    return Step(f"move {SERVICE}", "patch", "Service", options.namespace, options.name, body)


def beat_step(options: PreviewOptions, uid: str, now_unix: int) -> Step:
    """A sign of life: a real KT Connect deletes a Service of ours that has given none for 5 minutes."""
    body = {"metadata": {"uid": uid, "annotations": {HEART_BEAT: str(now_unix)}}}
    return Step(f"{SERVICE} lives", "patch", "Service", options.namespace, options.name, body)


def whose(service: Mapping[str, Any]) -> str:
    """Whose a Service is that is in the way, in words."""
    metadata = service.get("metadata") or {}
    since = metadata.get("creationTimestamp", "?")
    if (metadata.get("labels") or {}).get(CONTROL_BY) != CONTROL_BY_KT:
        return f"it is there since {since}, and not a preview"
    user = annotation_safe(str((metadata.get("annotations") or {}).get(USER) or "somebody"))
    return f"{user} previews it since {since}"


def external_address(service: Mapping[str, Any]) -> str:
    """Under which address or name a LoadBalancer is reached from outside; "" while there is none."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    found = [str(one.get("ip") or one.get("hostname") or "") for one in ingress]
    return ", ".join(filter(None, found))


def _selector(options: PreviewOptions) -> dict[str, str]:
    # The Job's name as well: for a moment there may be a pod of the last one, in which nobody listens any more.
    return {CONTROL_BY: CONTROL_BY_KT, TARGET: options.target, "job-name": options.shadow}


def _owners(options: PreviewOptions) -> list[dict[str, str]]:
    return [{"apiVersion": "batch/v1", "kind": "Job", "name": options.shadow, "uid": options.job_uid}]


def _service(options: PreviewOptions) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": options.name,
            "namespace": options.namespace,
            "labels": labels(options.target, ROLE_PREVIEW),
            "annotations": {
                USER: annotation_safe(options.user),
                HEART_BEAT: str(options.now_unix),
                SCHEMA: SCHEMA_VERSION,
            },
            "ownerReferences": _owners(options),
        },
        "spec": {
            "type": "LoadBalancer" if options.external else "ClusterIP",
            "selector": _selector(options),
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [
                {
                    # KT Connect's names, which also leave a mesh to find out by itself what is spoken.
                    "name": f"kt-{expose.remote}" + ("" if expose.protocol == "TCP" else "-udp"),
                    "protocol": expose.protocol,
                    "port": expose.remote,
                    "targetPort": port,
                }
                for expose, port in options.ports.items()
            ],
        },
    }
