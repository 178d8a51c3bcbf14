"""Asks the API server, before anything is created, whether everything is allowed (SelfSubjectAccessReview).

`deploy/developer-role.yaml` has a rule for each of these; a test holds the two against each other.

Not here: what to do about a "no".
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kt_net.errors import PermissionMissing
from kt_net.kube.api import KubeApi


@dataclass(frozen=True, slots=True)
class Need:
    """One permission."""

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
#: What `preview` needs besides: its Service is made, looked at before it is deleted, moved to another shadow pod, and kept from KT Connect.
PREVIEW_NEEDS: tuple[Need, ...] = (
    Need("create", "", "services"),
    Need("get", "", "services"),
    Need("patch", "", "services"),
    Need("delete", "", "services"),
)
#: What `exchange` needs besides: its Service is looked at, changed and given back, and watched, for it may be deployed anew meanwhile; its
#: EndpointSlices say when callers come here.
EXCHANGE_NEEDS: tuple[Need, ...] = (
    Need("get", "", "services"),
    Need("patch", "", "services"),
    Need("list", "", "services"),
    Need("watch", "", "services"),
    Need("list", "discovery.k8s.io", "endpointslices"),
)
#: What `exchange --mode scale` needs: the workload is looked at, its record written and taken off, its replicas changed by `scale` only;
#: the shadow pod gets the labels of its pods once it listens.
SCALE_NEEDS: tuple[Need, ...] = (
    Need("list", "", "services"),
    Need("list", "discovery.k8s.io", "endpointslices"),
    Need("patch", "", "pods"),
    Need("list", "apps", "replicasets"),
    Need("patch", "apps", "replicasets"),
    *(
        need
        for resource in ("deployments", "statefulsets")
        for need in (
            *(Need(verb, "apps", resource) for verb in ("get", "list", "watch", "patch")),
            Need("patch", "apps", resource, "scale"),
        )
    ),
)
#: What `exchange --mode ephemeral` needs: a container is added to the pods; no object is changed that would have to be brought back.
EPHEMERAL_NEEDS: tuple[Need, ...] = (
    Need("list", "", "services"),
    Need("patch", "", "pods", "ephemeralcontainers"),
    Need("get", "coordination.k8s.io", "leases"),
    Need("delete", "coordination.k8s.io", "leases"),
)
#: For an account of its own for the agent, which gives back what the client has taken when that is gone: a Role may give only what
#: whoever makes it has (Kubernetes doc, "Using RBAC Authorization", privilege escalation).
ACCOUNT_NEEDS: tuple[Need, ...] = (
    Need("create", "", "serviceaccounts"),
    Need("create", "rbac.authorization.k8s.io", "roles"),
    Need("create", "rbac.authorization.k8s.io", "rolebindings"),
    Need("patch", "batch", "jobs"),
    Need("get", "coordination.k8s.io", "leases"),
)
EXEC_NEEDS: tuple[Need, ...] = (Need("get", "", "pods", "exec"), Need("create", "", "pods", "exec"))


@dataclass(frozen=True, slots=True)
class Wish:
    """A permission that sessions do without.

    Attributes:
        everywhere: in the whole cluster, not in one namespace.
        lost: what there is less of without it.
    """

    need: Need
    everywhere: bool
    lost: str


_GUESSED = "ranges are guessed from the addresses in use"
_OWN_ONLY = "for that guess only the addresses of the own namespace are seen"
_NAMESPACES = "names like web.NAMESPACE of other namespaces are looked for by the search list only"
_HOSTS = "with --dns-mode hosts, no names of headless Services; no ktctl forward to pods of Services"
_INGRESS = "with --ingress-ip, no hosts of Ingress objects"
_TARGETS = "no ktctl forward to them"
_CLEAN = "ktctl clean and recover do not see all that is left"
_GROWTH = "a range that the cluster gets later is guessed from addresses, too"
WISHES: tuple[Wish, ...] = (
    Wish(Need("watch", "", "events"), False, "why a shadow pod does not start is not said while it happens"),
    Wish(Need("get", "", "services"), False, "no ktctl forward to them, no ktctl preview, no ktctl exchange"),
    Wish(Need("get", "apps", "deployments"), False, _TARGETS),
    Wish(Need("get", "apps", "statefulsets"), False, _TARGETS),
    Wish(Need("list", "", "services"), False, "no addresses of Services to guess their range from"),
    Wish(
        Need("watch", "", "services"),
        False,
        "new headless Services, and in a namespace called like a domain all, go unnoticed",
    ),
    Wish(Need("list", "discovery.k8s.io", "endpointslices"), False, _HOSTS),
    Wish(Need("watch", "discovery.k8s.io", "endpointslices"), False, _HOSTS),
    Wish(Need("list", "networking.k8s.io", "ingresses"), False, _INGRESS),
    Wish(Need("watch", "networking.k8s.io", "ingresses"), False, _INGRESS),
    Wish(Need("list", "networking.k8s.io", "servicecidrs"), True, _GUESSED),
    Wish(Need("list", "", "nodes"), True, _GUESSED),
    Wish(Need("watch", "networking.k8s.io", "servicecidrs"), True, _GROWTH),
    Wish(Need("watch", "", "nodes"), True, _GROWTH),
    Wish(Need("list", "", "pods"), True, _OWN_ONLY),
    Wish(Need("list", "", "services"), True, _OWN_ONLY),
    Wish(Need("get", "", "namespaces"), True, "a namespace that is not there is noticed late"),
    Wish(Need("list", "", "namespaces"), True, _NAMESPACES),
    Wish(Need("watch", "", "namespaces"), True, _NAMESPACES),
    Wish(Need("create", "", "services"), False, "no ktctl preview"),
    Wish(Need("delete", "", "services"), False, "no ktctl preview"),
    Wish(Need("patch", "", "services"), False, "no ktctl preview, no ktctl exchange"),
    *(
        Wish(Need("list", group, resource), False, _CLEAN)
        for group, resource in (
            ("batch", "jobs"),
            ("coordination.k8s.io", "leases"),
            ("apps", "deployments"),
            ("apps", "statefulsets"),
        )
    ),
    Wish(Need("get", "", "serviceaccounts"), False, "an administrator's account for agents is not found"),
)


def missing(api: KubeApi, namespace: str, needs: tuple[Need, ...]) -> list[Need]:
    """Those that the account does not have, in order; asked all at once."""
    with ThreadPoolExecutor(max_workers=len(needs), thread_name_prefix="permissions") as pool:
        answers = list(pool.map(lambda need: allowed(api, namespace, need), needs))
    return [need for need, yes in zip(needs, answers, strict=True) if not yes]


def require(api: KubeApi, namespace: str, *, carrier: str = "", besides: tuple[Need, ...] = ()) -> None:
    """Nothing, when all are there. For the way to the pod exec will do where there is no port-forward.

    Args:
        carrier: the form that is to be used; "" for any.
        besides: what this session needs more than every other.

    Raises:
        PermissionMissing: names each that is not.
    """
    lacking = in_the_way(
        missing(api, namespace, SESSION_NEEDS + besides + PORT_FORWARD_NEEDS + EXEC_NEEDS), carrier=carrier
    )
    if lacking:
        raise PermissionMissing(f"no permission to {', '.join(map(str, lacking))} in namespace {namespace}")


def in_the_way(lacking: list[Need], *, carrier: str = "") -> list[Need]:
    """Those of `lacking` without which there is no session: of the two ways to the pod one is enough."""
    no_exec = [need for need in lacking if need in EXEC_NEEDS]
    no_forward = [need for need in lacking if need in PORT_FORWARD_NEEDS]
    if carrier == "exec" or (not carrier and not no_exec):
        lacking = [need for need in lacking if need not in no_forward]
    if carrier != "exec":
        lacking = [need for need in lacking if need not in no_exec]
    return lacking


def allowed(api: KubeApi, namespace: str, need: Need) -> bool:
    """Whether the account may; a namespace of "" stands for the whole cluster."""
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
