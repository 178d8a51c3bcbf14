"""Which address ranges pods and Services have.

Asked in this order: the ServiceCIDR API and the nodes' podCIDRs; what neither tells is inferred from the live pods (never those on the
host's network: their addresses are the nodes' LAN) and Services, with no more than the right to list them in one namespace.

Not here: what is routed (kt_net.host.plan).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kt_net.addr import IPAddress, IPPrefix, collapse
from kt_net.errors import ObjectMissing, PermissionMissing, UsageFault
from kt_net.kube.api import HttpKubeApi, Object

#: What is taken around one address that no known range has. Pods: a node's usual share. Services: they come from one range, of
#: which the neighbourhood of a known one is likelier to be used than the rest.
POD_LENGTH = {4: 24, 6: 64}
SERVICE_LENGTH = {4: 20, 6: 112}
#: Pods looked at when the nodes' ranges are known: enough to see whether the network plug-in keeps to them.
SAMPLE = 500


@dataclass(frozen=True, slots=True)
class ClusterRanges:
    """Prefixes, and where they come from, in words."""

    pods: tuple[IPPrefix, ...]
    services: tuple[IPPrefix, ...]
    pods_from: str
    services_from: str

    def all(self) -> list[IPPrefix]:
        """Both."""
        return collapse([*self.pods, *self.services])


@dataclass(frozen=True, slots=True)
class RangeChoice:
    """What is routed of the ranges, and besides.

    Attributes:
        included: routed whatever the cluster says.
        excluded: never routed, also inside of a range.
        pods: whether pods are reached by their addresses.
        routed: whether there are routes at all, besides the resolver's.
    """

    included: tuple[IPPrefix, ...] = ()
    excluded: tuple[IPPrefix, ...] = ()
    pods: bool = True
    routed: bool = True

    def of(self, ranges: ClusterRanges) -> list[IPPrefix]:
        """The prefixes of the cluster that are reached; `excluded` is taken out later, with what else must be left alone."""
        return collapse([*(ranges.pods if self.pods else ()), *ranges.services, *self.included])


def parse_prefixes(words: Iterable[str], flag: str) -> tuple[IPPrefix, ...]:
    """Addresses and CIDRs; an address is a range of one.

    Raises:
        UsageFault: one is neither.
    """
    found: list[IPPrefix] = []
    for word in words:
        try:
            found.append(ipaddress.ip_network(word, strict=False))
        except ValueError as error:
            raise UsageFault(
                f"{flag}: {word} is no address and no range", next_step="write it like 10.1.0.0/16 or fd00::7"
            ) from error
        if not found[-1].prefixlen:
            raise UsageFault(f"{flag}: {word} is everything", next_step="name the ranges that are meant")
    return tuple(found)


def parse_addresses(words: Iterable[str], flag: str) -> tuple[IPAddress, ...]:
    """Addresses.

    Raises:
        UsageFault: one is none.
    """
    try:
        return tuple(ipaddress.ip_address(word) for word in words)
    except ValueError as error:
        raise UsageFault(f"{flag}: {error}", next_step="write it like 10.1.2.3 or fd00::7") from error


def detect_ranges(api: HttpKubeApi, namespace: str) -> ClusterRanges:
    """The ranges, by the best source that the account may ask.

    Raises:
        KtError: the API server does not answer, or does not know the account.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ktctl-ranges") as pool:
        asked = pool.submit(_services, api, namespace)  # beside the pods: in a large cluster both take seconds
        pods, pods_from = _pods(api, namespace)
        services, services_from = asked.result()
    return ClusterRanges(tuple(collapse(pods)), tuple(collapse(services)), pods_from, services_from)


def inferred(addresses: Iterable[IPAddress], lengths: dict[int, int], known: list[IPPrefix]) -> list[IPPrefix]:
    """Prefixes around the addresses that no known one has; in the order of the addresses."""
    around: dict[tuple[int, int], IPPrefix] = {}
    for address in addresses:
        version = address.version
        length = lengths[version]
        key = version, int(address) >> (address.max_prefixlen - length)
        if key not in around and not any(prefix.version == version and address in prefix for prefix in known):
            around[key] = ipaddress.ip_network((address, length), strict=False)
    return list(around.values())


def _services(api: HttpKubeApi, namespace: str) -> tuple[list[IPPrefix], str]:
    for version in ("v1", "v1beta1"):
        try:
            answer = api.get_path(f"apis/networking.k8s.io/{version}/servicecidrs", "list ServiceCIDRs")
        except (ObjectMissing, PermissionMissing):
            continue
        prefixes = prefixes_of(text for item in answer.get("items") or [] for text in service_cidrs(item))
        if prefixes:
            return prefixes, "ServiceCIDR API"
    addresses = [
        address
        for service in _listed(api, "Service", namespace)
        for address in addresses_of(service_addresses(service))
    ]
    return inferred(addresses, SERVICE_LENGTH, []), f"{len(addresses)} Service addresses"


def _pods(api: HttpKubeApi, namespace: str) -> tuple[list[IPPrefix], str]:
    known: list[IPPrefix] = []
    try:
        for node in api.list("Node", None):
            known += prefixes_of(node_cidrs(node))
    except PermissionMissing:
        pass
    addresses: list[IPAddress] = []
    for count, pod in enumerate(_listed(api, "Pod", namespace)):
        if known and count >= SAMPLE:
            break
        addresses += addresses_of(pod_addresses(pod))
    beyond = inferred(addresses, POD_LENGTH, known)
    source = "node podCIDRs" if known else f"{len(addresses)} pod addresses"
    if known and beyond:
        source += " and live pods"
    return known + beyond, source


def _listed(api: HttpKubeApi, kind: str, namespace: str) -> Iterable[Object]:
    """Of all namespaces, or of the one where only that is allowed."""
    everywhere = iter(api.list(kind, None))
    try:
        first = next(everywhere, None)
    except PermissionMissing:
        try:
            yield from api.list(kind, namespace)
        except PermissionMissing:
            return
        return
    if first is not None:
        yield first
        yield from everywhere


def service_cidrs(found: Object) -> list[str]:
    """The ranges of a ServiceCIDR, in text."""
    return list(found.get("spec", {}).get("cidrs") or [])


def node_cidrs(found: Object) -> list[str]:
    """The ranges of a Node's pods."""
    return list(found.get("spec", {}).get("podCIDRs") or [])


def service_addresses(found: Object) -> list[str]:
    """The addresses of a Service; "None" of a headless one."""
    return list(found.get("spec", {}).get("clusterIPs") or [])


def pod_addresses(found: Object) -> list[str]:
    """The addresses of a Pod; none on the host's network."""
    if found.get("spec", {}).get("hostNetwork"):
        return []
    return [entry.get("ip", "") for entry in found.get("status", {}).get("podIPs") or []]


def prefixes_of(texts: Iterable[str]) -> list[IPPrefix]:
    """What of them is a range."""
    found: list[IPPrefix] = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue
    return found


def addresses_of(texts: Iterable[str]) -> list[IPAddress]:
    """What of them is an address."""
    found: list[IPAddress] = []
    for text in texts:
        try:
            found.append(ipaddress.ip_address(text))
        except ValueError:
            continue  # "None" of a headless Service
    return found


def namespace_names(api: HttpKubeApi, namespace: str) -> list[str]:
    """All namespaces, or only `namespace` where listing them is not allowed."""
    try:
        return [str(item["metadata"]["name"]) for item in api.list("Namespace", None)]
    except PermissionMissing:
        return [namespace]
