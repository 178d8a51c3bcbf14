"""A Kubernetes API in memory, as much of it as the runner of steps needs. Held to the same tests as the real one (kube_api.py).

Not here: watches, admission.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from kt_net.errors import AlreadyThere, ObjectMissing, RequestRefused
from kt_net.kube.api import Object, url_path


class FakeApi:
    """See `kt_net.kube.api.KubeApi`. Deleting an owner takes what it owns at once."""

    def __init__(self, *, refuse_create: set[str] | None = None) -> None:
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._numbers = itertools.count(1)
        self._refuse_create = refuse_create or set()

    def objects(self) -> list[tuple[str, str, str]]:
        """Kind, namespace and name of everything."""
        return sorted(self._objects)

    def create(self, kind: str, namespace: str, body: Mapping[str, Any]) -> Object:
        """See `KubeApi`."""
        url_path(kind, namespace)
        key = (kind, namespace, body["metadata"]["name"])
        if key in self._objects:
            raise AlreadyThere(f"cannot create {kind} {key[2]}", why="409")
        if kind in self._refuse_create:
            raise RequestRefused(f"cannot create {kind} {key[2]}", why="409")
        made: Object = copy.deepcopy(dict(body))
        made["metadata"] |= {"uid": f"uid-{next(self._numbers)}", "resourceVersion": str(next(self._numbers))}
        self._objects[key] = made
        return copy.deepcopy(made)

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """See `KubeApi`."""
        return copy.deepcopy(self._find(kind, namespace, name))

    def patch(self, kind: str, namespace: str, name: str, body: Mapping[str, Any]) -> Object:
        """See `KubeApi`."""
        found = self._find(kind, namespace, name)
        if body.get("metadata", {}).get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
            raise RequestRefused(f"cannot patch {kind} {name}", why="409")
        _merge(found, body)
        found["metadata"]["resourceVersion"] = str(next(self._numbers))
        return copy.deepcopy(found)

    def delete(self, kind: str, namespace: str, name: str, *, uid: str = "") -> None:
        """See `KubeApi`."""
        gone = self._objects.get((kind, namespace, name))
        if gone is None or uid not in ("", gone["metadata"]["uid"]):
            return
        del self._objects[kind, namespace, name]
        uid = gone["metadata"]["uid"]
        for key, other in list(self._objects.items()):
            if any(owner["uid"] == uid for owner in other["metadata"].get("ownerReferences", ())):
                self.delete(*key)

    def list(self, kind: str, namespace: str | None, *, selector: str = "") -> Iterator[Object]:
        """See `KubeApi`."""
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        for (of_kind, where, _), found in sorted(self._objects.items()):
            labels = found["metadata"].get("labels", {})
            if of_kind == kind and namespace in (None, where) and wanted.items() <= labels.items():
                yield copy.deepcopy(found)

    def _find(self, kind: str, namespace: str, name: str) -> Object:
        found = self._objects.get((kind, namespace, name))
        if found is None:
            raise ObjectMissing(f"cannot get {kind} {name}", why="404")
        return found


def _merge(target: Object, patch: Mapping[str, Any]) -> None:
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value
