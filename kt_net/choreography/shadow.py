"""The sequence that brings up a shadow pod: a Job, and what belongs to it.

The Job owns everything: when it goes (by our hand, or after the agent has ended by itself), Kubernetes' garbage collector takes the
rest, without any right of the agent in the cluster. The pod passes Pod Security "restricted" (Kubernetes doc, "Pod Security Standards").

Not here: waiting for the pod (kt_net.kube.shadow).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kt_net.choreography.lease import LEASE_SECONDS
from kt_net.choreography.names import (
    CONTAINER,
    CONTROL_BY,
    CONTROL_BY_KT,
    MANAGED_BY,
    MANAGER,
    ROLE,
    ROLE_CONNECT,
    SCHEMA,
    SCHEMA_VERSION,
    TARGET,
    USER,
    annotation_safe,
)
from kt_net.choreography.restorer import Account, account_steps, restore_text
from kt_net.choreography.steps import Reference, Step

#: Any image with python3 (3.11 or newer) on its path does.
DEFAULT_IMAGE: Final = "python:3.13-slim"
AGENT_PORT: Final = 7777
AGENT_FOLDER: Final = "/ktnet"
AGENT_FILE: Final = "agent.pyz"
AGENT_COMMAND: Final = ("python3", "-I", f"{AGENT_FOLDER}/{AGENT_FILE}")
#: Seconds without a client after which the agent ends.
IDLE_EXIT: Final = 600.0
#: Seconds that the ended Job stays; its logs can be read that long.
TTL_AFTER_FINISHED: Final = 20
#: Not root, and nobody else's: the number that "distroless" images made common.
AGENT_UID: Final = 65532
#: Of its container; quotas count them.
RESOURCES: Final = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}}

JOB = "shadow job"
CONFIG_MAP = "agent"
LEASE = "lease"


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that the shadow pod has a name for: a Service's target port may be that name."""

    name: str
    number: int
    protocol: str


@dataclass(frozen=True, slots=True)
class ShadowOptions:
    """What a shadow pod is made of.

    Attributes:
        agent: the zipapp.
        idle_exit: seconds.
        target: random letters, KT Connect's mark of one session.
        now_rfc3339, now_unix: for the Lease and the heart beat.
        sysctls: ask for ping sockets; admission may refuse.
        uid: ask for a user; None where admission insists on its own range (OpenShift).
        role: what the shadow pod is for, in KT Connect's words.
        ports: that have names.
        agent_port: where the agent listens for carriers.
        low_ports: it is to listen below 1024, where only root may: ask for the sysctl that lets everybody.
        nodes: names of nodes; it has to run on one of them. () on any.
        account: with which the agent gives back what the client has taken, when that cannot; None: it has none.
    """

    name: str
    namespace: str
    image: str
    agent: bytes
    user: str
    target: str
    now_rfc3339: str
    now_unix: int
    idle_exit: float = IDLE_EXIT
    sysctls: bool = True
    uid: int | None = AGENT_UID
    role: str = ROLE_CONNECT
    ports: tuple[ContainerPort, ...] = ()
    agent_port: int = AGENT_PORT
    low_ports: bool = False
    nodes: tuple[str, ...] = ()
    account: Account | None = None


def shadow_steps(options: ShadowOptions) -> list[Step]:
    """Job, agent and Lease, in this order: the others name the Job as their owner."""
    delete = Step(f"delete {JOB}", "delete", "Job", options.namespace, options.name)
    steps = [
        Step(JOB, "create", "Job", options.namespace, options.name, _job(options), delete),
        Step(CONFIG_MAP, "create", "ConfigMap", options.namespace, options.name, _config_map(options)),
        Step(LEASE, "create", "Lease", options.namespace, options.name, lease(options, _by_job(options))),
    ]
    if options.account is not None and options.account.own:
        # The pod needs its account, and the account its owner, the Job: which waits.
        steps += account_steps(options.account, options.namespace, metadata(options, _by_job(options)))
        go = {"spec": {"suspend": False}}
        steps.append(Step("start", "patch", "Job", options.namespace, options.name, go))
    return steps


def labels(target: str, role: str) -> dict[str, str]:
    """On every object of a session."""
    return {CONTROL_BY: CONTROL_BY_KT, ROLE: role, TARGET: target, MANAGED_BY: MANAGER}


def pod_labels(name: str, target: str) -> dict[str, str]:
    """On the pod of a connection's Job, `name`, before there is one: ours, and those of the Job's controller (its uid is not known)."""
    added = {
        f"{prefix}{key}": value
        for prefix in ("", "batch.kubernetes.io/")
        for key, value in (("job-name", name), ("controller-uid", ""))
    }
    return {**labels(target, ROLE_CONNECT), **added}


def _annotations(options: ShadowOptions) -> dict[str, str]:
    # No heart beat of KT Connect's: one that is not refreshed is a dead one's to a real KT Connect, and of what has none it says nothing.
    return {USER: annotation_safe(options.user), SCHEMA: SCHEMA_VERSION}


def metadata(options: ShadowOptions, owner: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of every object of a session; its owner takes it along."""
    found: dict[str, Any] = {
        "name": options.name,
        "namespace": options.namespace,
        "labels": labels(options.target, options.role),
        "annotations": _annotations(options),
    }
    if owner is not None:
        found["ownerReferences"] = [dict(owner)]
    return found


def _by_job(options: ShadowOptions) -> dict[str, Any]:
    return {"apiVersion": "batch/v1", "kind": "Job", "name": options.name, "uid": Reference(JOB)}


def _job(options: ShadowOptions) -> dict[str, Any]:
    annotations = {**_annotations(options), "cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(options, None),
        "spec": {
            **({"suspend": True} if options.account is not None and options.account.own else {}),
            "ttlSecondsAfterFinished": TTL_AFTER_FINISHED,
            "backoffLimit": 6,
            "template": {
                "metadata": {"labels": labels(options.target, options.role), "annotations": annotations},
                "spec": _pod(options),
            },
        },
    }


def _pod(options: ShadowOptions) -> dict[str, Any]:
    security: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if options.uid is not None:
        security |= {"runAsUser": options.uid, "runAsGroup": options.uid}
    if options.sysctls:
        security["sysctls"] = [{"name": "net.ipv4.ping_group_range", "value": "0 2147483647"}]
        if options.low_ports:
            security["sysctls"].append({"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"})
    account = options.account
    container = {
        "name": CONTAINER,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [
            *AGENT_COMMAND,
            "--port",
            str(options.agent_port),
            "--idle-exit",
            f"{options.idle_exit:g}",
            *([] if account is None else ["--restore", restore_text(account, options.name, options.target)]),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": RESOURCES,
        "volumeMounts": [{"name": "agent", "mountPath": AGENT_FOLDER, "readOnly": True}],
    }
    if options.ports:
        container["ports"] = [
            {"name": port.name, "containerPort": port.number, "protocol": port.protocol} for port in options.ports
        ]
    return {
        "restartPolicy": "OnFailure",
        "automountServiceAccountToken": account is not None,
        **({} if account is None else {"serviceAccountName": options.name if account.own else account.name}),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": security,
        "containers": [container],
        **_on(options.nodes),
        "volumes": [{"name": "agent", "configMap": {"name": options.name}}],
    }


def _on(nodes: tuple[str, ...]) -> dict[str, Any]:
    """By the scheduler, which knows whether there is room; not by `nodeName`."""
    if not nodes:
        return {}
    # One term each: a field's list of values may have one only.
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]} for node in nodes]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"affinity": {"nodeAffinity": required}}


def _config_map(options: ShadowOptions) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(options, _by_job(options)),
        "immutable": True,
        "binaryData": {AGENT_FILE: base64.b64encode(options.agent).decode()},
    }


def lease(options: ShadowOptions, owner: Mapping[str, Any]) -> dict[str, Any]:
    """The session's, which goes with its owner."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata(options, owner),
        "spec": {
            "holderIdentity": f"{annotation_safe(options.user)}/{options.target}",
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": options.now_rfc3339,
            "renewTime": options.now_rfc3339,
        },
    }
