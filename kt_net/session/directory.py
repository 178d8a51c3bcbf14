"""What the resolver has to know of the cluster while it runs: which namespaces there are, which Services in those whose names are also
top-level domains, which Services of our own namespace give their pods names, and which hosts Ingress objects have.

Not here: watching (kt_net.kube.follow), what becomes of it (kt_net.dns.routing).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kt_net.dns.resolver import Resolver
from kt_net.drivers.loop import Loop
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.follow import Followed, FollowedWords, Key


class Directory:
    """Tells the resolver, on the loop. Where watching is not allowed it stays with what was known at the start.

    Args:
        namespace: our own.
        ingress: whether Ingress objects are followed, those of our namespace where all may not be.
        changed: told that `Resolver.routed` may be another one.
    """

    def __init__(
        self,
        loop: Loop,
        api: HttpKubeApi,
        resolver: Resolver,
        *,
        namespace: str,
        ingress: bool = False,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._api = api
        self._resolver = resolver
        self._changed = changed
        self._followed: dict[str, FollowedWords] = {}
        self._closed = False
        self._namespaces = FollowedWords(
            api, "Namespace", None, lambda names: loop.call_soon(partial(self._namespaces_are, names))
        )
        self._hosts: Followed[frozenset[str]] | None = None
        if ingress:
            self._hosts = Followed(api, "Ingress", None, self._hosts_seen, keep=hosts_of, rather=namespace)
        self._own = Followed(api, "Service", namespace, self._own_seen, keep=is_headless)
        loop.call_soon(self._follow_services)

    def close(self) -> None:
        """Follow nothing any more."""
        self._closed = True
        self._namespaces.close()
        self._own.close()
        if self._hosts is not None:
            self._hosts.close()
        for followed in list(self._followed.values()):
            followed.close()

    def _namespaces_are(self, names: frozenset[str]) -> None:
        self._resolver.update_namespaces(names)
        self._follow_services()
        self._changed()

    def _follow_services(self) -> None:
        wanted = self._resolver.ambiguous
        for name in self._followed.keys() - wanted:
            self._followed.pop(name).close()
        for name in wanted - self._followed.keys():
            if not self._closed:
                self._followed[name] = FollowedWords(self._api, "Service", name, partial(self._services_seen, name))

    def _services_seen(self, namespace: str, names: frozenset[str]) -> None:
        self._loop.call_soon(partial(self._services_are, namespace, names))

    def _services_are(self, namespace: str, names: frozenset[str]) -> None:
        if namespace in self._followed:
            self._resolver.update_services(namespace, names)
            self._changed()

    def _own_seen(self, kept: Mapping[Key, bool]) -> None:
        headless = frozenset(name for (_, name), without_address in kept.items() if without_address)
        self._loop.call_soon(partial(self._headless_are, headless))

    def _headless_are(self, services: frozenset[str]) -> None:
        self._resolver.update_headless(services)
        self._changed()

    def _hosts_seen(self, kept: Mapping[Key, frozenset[str]]) -> None:
        self._loop.call_soon(partial(self._hosts_are, frozenset[str]().union(*kept.values())))

    def _hosts_are(self, hosts: frozenset[str]) -> None:
        self._resolver.update_hosts(hosts)
        self._changed()


def is_headless(service: Mapping[str, Any]) -> bool:
    """Whether a Service has no address, but its pods names (Kubernetes doc, "Headless Services")."""
    return bool(service.get("spec", {}).get("clusterIP") == "None")


def hosts_of(ingress: Mapping[str, Any]) -> frozenset[str]:
    """The hosts that an Ingress (networking.k8s.io/v1) has rules for."""
    rules = ingress.get("spec", {}).get("rules") or []
    return frozenset(str(rule["host"]) for rule in rules if rule.get("host"))
