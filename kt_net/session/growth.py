"""Ranges that the cluster gets while it is connected to: another ServiceCIDR, a node with pods of its own, and, where those may not be
read, an address outside of the ranges that were inferred.

A range that is gone from the cluster stays routed: nothing else is there.

Not here: watching (kt_net.kube.follow), routing them (route_keeper.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial

from kt_net.addr import IPPrefix, subtract
from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.follow import FollowedWords
from kt_net.kube.ranges import (
    POD_LENGTH,
    SERVICE_LENGTH,
    ClusterRanges,
    addresses_of,
    inferred,
    node_cidrs,
    pod_addresses,
    prefixes_of,
    service_addresses,
    service_cidrs,
)

SERVICES, PODS = "service CIDR", "pod CIDR"


class Growth:
    """Follows until closed.

    Args:
        namespace: where Services and pods are followed when the ranges may not be.
        known: the ranges at the start.
        pods: whether pods are of interest.
        grown: told what a new range is, and the range; from several threads, one at a time.
    """

    def __init__(
        self,
        api: HttpKubeApi,
        namespace: str,
        known: ClusterRanges,
        *,
        pods: bool,
        grown: Callable[[str, list[IPPrefix]], None],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._known = {SERVICES: list(known.services), PODS: list(known.pods)}
        self._seen: dict[str, frozenset[str]] = {}
        self._grown = grown
        self._lock = threading.Lock()
        self._closed = False
        self._followed: list[FollowedWords] = []
        self._follow("ServiceCIDR", None, service_cidrs, self._ranges_are, SERVICES, instead=self._follow_services)
        if pods:
            self._follow("Node", None, node_cidrs, self._ranges_are, PODS, instead=self._follow_pods)

    def close(self) -> None:
        """Follow nothing any more."""
        with self._lock:
            self._closed = True
            for followed in self._followed:
                followed.close()

    def _follow(
        self,
        kind: str,
        namespace: str | None,
        words: Callable[[Object], Iterable[str]],
        told: Callable[[str, frozenset[str]], None],
        what: str,
        *,
        instead: Callable[[], None] = lambda: None,
    ) -> None:
        with self._lock:
            if not self._closed:
                self._followed.append(
                    FollowedWords(self._api, kind, namespace, partial(told, what), words=words, refused=instead)
                )

    def _follow_services(self) -> None:
        self._follow("Service", self._namespace, service_addresses, self._addresses_are, SERVICES)

    def _follow_pods(self) -> None:
        self._follow("Pod", self._namespace, pod_addresses, self._addresses_are, PODS)

    def _ranges_are(self, what: str, words: frozenset[str]) -> None:
        self._new(what, prefixes_of(sorted(words)))

    def _addresses_are(self, what: str, words: frozenset[str]) -> None:
        new = words - self._seen.get(what, frozenset())
        self._seen[what] = words
        with self._lock:
            known = list(self._known[what])
        lengths = SERVICE_LENGTH if what is SERVICES else POD_LENGTH
        self._new(what, inferred(addresses_of(sorted(new)), lengths, known))

    def _new(self, what: str, prefixes: list[IPPrefix]) -> None:
        with self._lock:
            new = [prefix for prefix in prefixes if subtract([prefix], self._known[what])]
            self._known[what] += new
            if new and not self._closed:
                self._grown(what, new)
