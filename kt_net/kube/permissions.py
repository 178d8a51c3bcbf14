"""Asks the API server, before anything is created, whether everything is allowed (SelfSubjectAccessReview).

Not here: what to do about a "no".
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kt_net.errors import PermissionMissing
from kt_net.kube.api import KubeApi


@dataclass(frozen=True, slots=True)
class Need:
    """One permission in one namespace."""

    verb: str
    group: str
    resource: str
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f"/{self.subresource}" if self.subresource else "")


#: What a session with a shadow pod needs, and a way to it. A websocket is an HTTP GET; from Kubernetes 1.35 `create` is checked as well.
SESSION_NEEDS: tuple[Need, ...] = (
    Need("create", "batch", "jobs"),
    Need("delete", "batch", "jobs"),
    Need("create", "", "configmaps"),
    Need("create", "coordination.k8s.io", "leases"),
    Need("patch", "coordination.k8s.io", "leases"),
    Need("get", "", "pods"),
    Need("list", "", "pods"),
    Need("watch", "", "pods"),
)
PORT_FORWARD_NEEDS: tuple[Need, ...] = (
    Need("get", "", "pods", "portforward"),
    Need("create", "", "pods", "portforward"),
)
EXEC_NEEDS: tuple[Need, ...] = (Need("get", "", "pods", "exec"), Need("create", "", "pods", "exec"))


def missing(api: KubeApi, namespace: str, needs: tuple[Need, ...]) -> list[Need]:
    """Those that the account does not have, in order; asked all at once."""
    with ThreadPoolExecutor(max_workers=len(needs), thread_name_prefix="permissions") as pool:
        allowed = list(pool.map(lambda need: _allowed(api, namespace, need), needs))
    return [need for need, yes in zip(needs, allowed, strict=True) if not yes]


def require(api: KubeApi, namespace: str, *, carrier: str = "") -> None:
    """Nothing, when all are there. For the way to the pod exec will do where there is no port-forward.

    Args:
        carrier: the form that is to be used; "" for any.

    Raises:
        PermissionMissing: names each that is not.
    """
    lacking = missing(api, namespace, SESSION_NEEDS + PORT_FORWARD_NEEDS + EXEC_NEEDS)
    no_exec = [need for need in lacking if need in EXEC_NEEDS]
    no_forward = [need for need in lacking if need in PORT_FORWARD_NEEDS]
    if carrier == "exec" or (not carrier and not no_exec):
        lacking = [need for need in lacking if need not in no_forward]
    if carrier != "exec":
        lacking = [need for need in lacking if need not in no_exec]
    if lacking:
        raise PermissionMissing(f"no permission to {', '.join(map(str, lacking))} in namespace {namespace}")


def _allowed(api: KubeApi, namespace: str, need: Need) -> bool:
    attributes = {
        "namespace": namespace,
        "verb": need.verb,
        "group": need.group,
        "resource": need.resource,
        "subresource": need.subresource,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    return bool(api.create("SelfSubjectAccessReview", "", body).get("status", {}).get("allowed"))
