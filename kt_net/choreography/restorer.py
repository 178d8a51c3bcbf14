"""The account with which an agent gives back what its client has taken, when the client is gone: as little as that needs. Quiet.

Who may create Roles gets one for this shadow pod alone, on the objects by their names, which goes with its Job. RBAC lets nobody give
what they have not. Others use an administrator's account (deploy/restorer.yaml), or none.

Not here: the agent's part (shadow_image.restorer).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kt_net.choreography.names import RESTORER
from kt_net.choreography.steps import Step

ACCOUNT: Final = "account"
ROLE: Final = "role"
BINDING: Final = "role binding"
_GROUPS: Final = {
    "Service": ("", "services"),
    "Deployment": ("apps", "deployments"),
    "StatefulSet": ("apps", "statefulsets"),
}


@dataclass(frozen=True, slots=True)
class Account:
    """What the agent may.

    Attributes:
        objects: (kind, name): what it is to give back.
        own: made for this shadow pod; else `name`, which is there.
    """

    objects: tuple[tuple[str, str], ...]
    own: bool
    name: str = RESTORER


def account_steps(account: Account, namespace: str, metadata: Mapping[str, Any]) -> list[Step]:
    """ServiceAccount, Role and RoleBinding.

    Args:
        metadata: of each: name, labels, and the Job as their owner, which takes them with it.
    """
    name, whole = str(metadata["name"]), dict(metadata)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": whole,
        "rules": rules(account, name),
    }
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": whole,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": subjects,
    }
    service_account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": whole}
    return [
        Step(ACCOUNT, "create", "ServiceAccount", namespace, name, service_account),
        Step(ROLE, "create", "Role", namespace, name, role),
        Step(BINDING, "create", "RoleBinding", namespace, name, binding),
    ]


def rules(account: Account, lease: str) -> list[dict[str, Any]]:
    """Of the Role: the Lease is read; the objects are read and patched, by name; replicas are patched by `scale` only."""
    found: list[dict[str, Any]] = [_rule("coordination.k8s.io", ["leases"], lease, ["get"])]
    for kind, name in account.objects:
        group, resource = _GROUPS[kind]
        found.append(_rule(group, [resource], name, ["get", "patch"]))
        if kind != "Service":
            found.append(_rule(group, [f"{resource}/scale"], name, ["patch"]))
    return found


def restore_text(account: Account, lease: str, session: str) -> str:
    """For the agent's command line."""
    charge = {"lease": lease, "session": session, "objects": [list(one) for one in account.objects]}
    return json.dumps(charge, separators=(",", ":"))


def _rule(group: str, resources: list[str], name: str, verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "resourceNames": [name], "verbs": verbs}
