"""Whether NetworkPolicies (networking.k8s.io/v1) keep the shadow pod from speaking to others; by the objects, nothing is tried. Pure.

For a connection only egress counts: the tunnel comes in through the pod's loopback, which no policy sees. Callers of an exchange come by
ingress.

Not here: reading them; what a network plug-in makes of them (some enforce none, some have policies of their own besides).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, Final

from kt_net.choreography.names import CONTROL_BY, CONTROL_BY_KT
from kt_net.findings import Finding, ok, problem, warning

CHECK: Final = "network-policies"
DNS_PORT: Final = 53
#: The cluster's DNS as most clusters have it (CoreDNS' and kube-dns' manifests). The namespace's label is the API server's own
#: (Kubernetes doc, "Labels set by the control plane").
DNS_NAMESPACE: Final = {"kubernetes.io/metadata.name": "kube-system"}
DNS_POD: Final = {"k8s-app": "kube-dns"}
#: Of CoreDNS' container port; the manifests call both 53s by these names.
DNS_PORT_NAMES: Final = {"UDP": "dns", "TCP": "dns-tcp"}

_NEXT: Final = f"have egress allowed for pods labelled {CONTROL_BY}={CONTROL_BY_KT} in this namespace, or use another: --namespace NAME"

Object = Mapping[str, Any]


class Way(IntEnum):
    """How much of what was asked for is allowed."""

    closed = 0
    partly = 1
    open = 2


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches (Kubernetes doc, "Labels and Selectors"); an empty one matches everything."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(expression, labels) for expression in selector.get("matchExpressions") or ())


def _meets(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = str(expression.get("key")), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values  # true as well where the label is missing
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def limits_egress(policy: Object) -> bool:
    """Whether the policy is one about egress: by its policyTypes, and where it has none, when it has egress rules."""
    spec = policy.get("spec") or {}
    types = spec.get("policyTypes")
    return "Egress" in types if types else bool(spec.get("egress"))


def dns_way(policies: Iterable[Object], namespace: str) -> Way:
    """Whether a pod in `namespace` may ask the cluster's DNS, by UDP. `policies`: those that select it for egress."""
    found = Way.closed
    for rule in _rules(policies):
        if _port_allowed(rule.get("ports"), "UDP", DNS_PORT):
            found = max(found, _dns_peers(rule.get("to"), namespace))
    return found


def tcp_way(policies: Iterable[Object]) -> Way:
    """Whether a pod may connect to anything, something or nothing by TCP. `policies`: those that select it for egress."""
    found = Way.closed
    families: set[int] = set()
    for rule in _rules(policies):
        ports = rule.get("ports") or ()
        if ports and not any(port.get("protocol", "TCP") == "TCP" for port in ports):
            continue
        if _is_dns_only(ports):
            continue  # allowed so that names resolve: no way for programs
        found = max(found, Way.partly)
        if not ports or any(_is_every_port(port) for port in ports):
            families |= _families(rule.get("to"))
    return Way.open if 4 in families else found


def judge_policies(policies: Iterable[Object], labels: Mapping[str, str], namespace: str) -> Finding:
    """What the policies of `namespace` mean for a pod with `labels` in it."""
    chosen = [
        policy
        for policy in policies
        if limits_egress(policy) and selects((policy.get("spec") or {}).get("podSelector"), labels)
    ]
    if not chosen:
        return ok(CHECK, "none limits what the shadow pod reaches")
    names = ", ".join(sorted(str((policy.get("metadata") or {}).get("name")) for policy in chosen))
    dns, tcp = dns_way(chosen, namespace), tcp_way(chosen)
    lost = []
    if dns is Way.closed:
        lost.append("names (DNS of the cluster, port 53)")
    if tcp is Way.closed:
        lost.append("every TCP connection")
    if lost:
        return problem(CHECK, f"{names}: the shadow pod is kept from {' and '.join(lost)}", _NEXT)
    if dns is Way.partly or tcp is Way.partly:
        return warning(CHECK, f"{names}: the shadow pod reaches only what these policies allow", _NEXT)
    return ok(CHECK, f"{names}: nothing of what the shadow pod needs is kept from it")


def limits_ingress(policy: Object) -> bool:
    """Whether the policy is one about ingress: every one is, unless its policyTypes say otherwise."""
    types = (policy.get("spec") or {}).get("policyTypes")
    return "Ingress" in types if types else True


def closed_to_callers(
    policies: Iterable[Object], labels: Mapping[str, str], ports: Iterable[tuple[str, int, str]]
) -> list[str]:
    """Of (protocol, number, name) those to which nobody may come, in words that name the policies; by the objects.

    Whom exactly a rule lets in is not looked at: some callers is enough.
    """
    chosen = [
        policy
        for policy in policies
        if limits_ingress(policy) and selects((policy.get("spec") or {}).get("podSelector"), labels)
    ]
    rules = [rule for policy in chosen for rule in (policy.get("spec") or {}).get("ingress") or ()]
    names = ", ".join(sorted(str((policy.get("metadata") or {}).get("name")) for policy in chosen))
    return [
        f"{number}{'/udp' if protocol == 'UDP' else ''} ({names})"
        for protocol, number, name in ports
        if chosen and not any(_lets_in(rule.get("ports"), protocol, number, name) for rule in rules)
    ]


def _lets_in(ports: Iterable[Object] | None, protocol: str, number: int, name: str) -> bool:
    if not ports:
        return True
    for entry in ports:
        first = entry.get("port")
        if entry.get("protocol", "TCP") != protocol:
            continue
        if first is None or (isinstance(first, str) and first == name):
            return True
        if isinstance(first, int) and first <= number <= int(entry.get("endPort") or first):
            return True
    return False


def _rules(policies: Iterable[Object]) -> Iterable[Object]:
    """All of them together: what one policy allows, no other takes away."""
    for policy in policies:
        yield from (policy.get("spec") or {}).get("egress") or ()


def _port_allowed(ports: Iterable[Object] | None, protocol: str, number: int) -> bool:
    if not ports:
        return True
    for entry in ports:
        if entry.get("protocol", "TCP") != protocol:
            continue
        first = entry.get("port")
        if first is None or first == DNS_PORT_NAMES[protocol]:
            return True
        if isinstance(first, int) and first <= number <= int(entry.get("endPort") or first):
            return True
    return False


def _is_every_port(entry: Object) -> bool:
    first, last = entry.get("port"), entry.get("endPort")
    return entry.get("protocol", "TCP") == "TCP" and (first is None or (first == 1 and last == 65535))


def _is_dns_only(ports: Iterable[Object]) -> bool:
    return bool(ports) and all(
        port.get("port") in (DNS_PORT, *DNS_PORT_NAMES.values()) and not port.get("endPort") for port in ports
    )


def _dns_peers(peers: Iterable[Object] | None, namespace: str) -> Way:
    if not peers:
        return Way.open
    return max(_dns_peer(peer, namespace) for peer in peers)


def _dns_peer(peer: Object, namespace: str) -> Way:
    """Of a block of addresses nobody knows here whether the DNS is in it: a cluster may have a cache on the node, too."""
    if peer.get("ipBlock") is not None:
        return Way.open if _is_everything(peer["ipBlock"]) else Way.partly
    if not selects(peer.get("podSelector"), DNS_POD):
        return Way.closed
    where = peer.get("namespaceSelector")
    if where is None:  # pods of the policy's own namespace
        return Way.open if namespace == DNS_NAMESPACE["kubernetes.io/metadata.name"] else Way.closed
    if selects(where, DNS_NAMESPACE):
        return Way.open
    # It may ask for labels of kube-system that somebody has put there, and that we do not know.
    asked = {*(where.get("matchLabels") or {}), *(str(one.get("key")) for one in where.get("matchExpressions") or ())}
    return Way.closed if asked <= set(DNS_NAMESPACE) else Way.partly


def _families(peers: Iterable[Object] | None) -> set[int]:
    """IP versions of which every address is reached."""
    if not peers:
        return {4, 6}
    return {version for peer in peers if (version := _is_everything(peer.get("ipBlock") or {}))}


def _is_everything(block: Object) -> int:
    """The IP version when the block is all of its addresses, else 0."""
    try:
        network = ipaddress.ip_network(str(block.get("cidr")), strict=False)
    except ValueError:
        return 0
    return network.version if network.prefixlen == 0 and not block.get("except") else 0
