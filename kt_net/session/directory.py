"""What the resolver has to know of the cluster while it runs: which namespaces there are, and which Services in those whose names are also
top-level domains.

Not here: watching (kt_net.kube.follow), what becomes of it (kt_net.dns.routing).
"""

from __future__ import annotations

from functools import partial

from kt_net.dns.resolver import Resolver
from kt_net.drivers.loop import Loop
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.follow import Followed


class Directory:
    """Tells the resolver, on the loop. Where watching is not allowed it stays with what was known at the start."""

    def __init__(self, loop: Loop, api: HttpKubeApi, resolver: Resolver) -> None:
        self._loop = loop
        self._api = api
        self._resolver = resolver
        self._followed: dict[str, Followed] = {}
        self._closed = False
        self._namespaces = Followed(
            api, "Namespace", None, lambda names: loop.call_soon(partial(self._namespaces_are, names))
        )
        loop.call_soon(self._follow_services)

    def close(self) -> None:
        """Follow nothing any more."""
        self._closed = True
        self._namespaces.close()
        for followed in list(self._followed.values()):
            followed.close()

    def _namespaces_are(self, names: frozenset[str]) -> None:
        self._resolver.update_namespaces(names)
        self._follow_services()

    def _follow_services(self) -> None:
        wanted = self._resolver.ambiguous
        for name in self._followed.keys() - wanted:
            self._followed.pop(name).close()
        for name in wanted - self._followed.keys():
            if not self._closed:
                self._followed[name] = Followed(self._api, "Service", name, partial(self._services_seen, name))

    def _services_seen(self, namespace: str, names: frozenset[str]) -> None:
        self._loop.call_soon(partial(self._services_are, namespace, names))

    def _services_are(self, namespace: str, names: frozenset[str]) -> None:
        if namespace in self._followed:
            self._resolver.update_services(namespace, names)
