"""A Kubernetes API in memory, as much of it as the runner of steps needs. Held to the same tests as the real one (kube_api.py).

Of managedFields as much as restoring needs: who has set which label, annotation and field of the spec.

Not here: watches, admission, apply.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from kt_net.choreography.names import FIELD_MANAGER
from kt_net.errors import AlreadyThere, Conflict, ObjectMissing, RequestRefused
from kt_net.kube.api import Object, url_path

_Json = TypeVar("_Json")


class FakeApi:
    """See `kt_net.kube.api.KubeApi`. Deleting an owner takes what it owns at once."""

    def __init__(self, *, refuse_create: set[str] | None = None) -> None:
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._numbers = itertools.count(1)
        self._refuse_create = refuse_create or set()
        #: Under which name changes are noted.
        self.manager = FIELD_MANAGER
        #: Told of every request before it is done; may raise.
        self.before: Callable[[str, str, str], None] = lambda verb, kind, name: None

    def objects(self) -> list[tuple[str, str, str]]:
        """Kind, namespace and name of everything."""
        return sorted(self._objects)

    def create(self, kind: str, namespace: str, body: Mapping[str, Any]) -> Object:
        """See `KubeApi`."""
        self.before("create", kind, body["metadata"]["name"])
        url_path(kind, namespace)
        key = (kind, namespace, body["metadata"]["name"])
        if key in self._objects:
            raise AlreadyThere(f"cannot create {kind} {key[2]}", why="409")
        if kind in self._refuse_create:
            raise RequestRefused(f"cannot create {kind} {key[2]}", why="409")
        made: Object = _sent(dict(body))
        made["kind"] = kind
        made["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        made["metadata"] |= {"uid": f"uid-{next(self._numbers)}", "resourceVersion": str(next(self._numbers))}
        _own({}, made, self.manager, "")
        self._objects[key] = made
        return _sent(made)

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """See `KubeApi`."""
        self.before("get", kind, name)
        return _sent(self._find(kind, namespace, name))

    def patch(self, kind: str, namespace: str, name: str, body: Mapping[str, Any], *, subresource: str = "") -> Object:
        """See `KubeApi`."""
        self.before("patch", kind, name)
        found = self._find(kind, namespace, name)
        for key in ("uid", "resourceVersion"):
            if body.get("metadata", {}).get(key, found["metadata"][key]) != found["metadata"][key]:
                raise Conflict(f"cannot patch {kind} {name}", why="409")
        before = _sent(found)
        if subresource:
            field = {"scale": "replicas", "ephemeralcontainers": "ephemeralContainers"}[subresource]
            _merge(found["spec"], {field: body["spec"][field]})
        else:
            _merge(found, body)
        _own(before, found, self.manager, subresource)
        found["metadata"]["resourceVersion"] = str(next(self._numbers))
        return _sent(found)

    def delete(self, kind: str, namespace: str, name: str, *, uid: str = "") -> None:
        """See `KubeApi`."""
        self.before("delete", kind, name)
        self._remove(kind, namespace, name, uid)

    def _remove(self, kind: str, namespace: str, name: str, uid: str) -> None:
        gone = self._objects.get((kind, namespace, name))
        if gone is None or uid not in ("", gone["metadata"]["uid"]):
            return
        del self._objects[kind, namespace, name]
        uid = gone["metadata"]["uid"]
        for key, other in list(self._objects.items()):
            if any(owner["uid"] == uid for owner in other["metadata"].get("ownerReferences", ())):
                self._remove(*key, "")

    def list(self, kind: str, namespace: str | None, *, selector: str = "") -> Iterator[Object]:
        """See `KubeApi`."""
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        for (of_kind, where, _), found in sorted(self._objects.items()):
            labels = found["metadata"].get("labels", {})
            if of_kind == kind and namespace in (None, where) and wanted.items() <= labels.items():
                yield _sent(found)

    def _find(self, kind: str, namespace: str, name: str) -> Object:
        found = self._objects.get((kind, namespace, name))
        if found is None:
            raise ObjectMissing(f"cannot get {kind} {name}", why="404")
        return found


def _merge(target: Object, patch: Mapping[str, Any]) -> None:
    """RFC 7386; maps that are empty then are not there, as the API server has it."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            _merge(target.setdefault(key, {}), value)
            if not target[key] and key in ("annotations", "labels", "selector"):
                del target[key]
        else:
            target[key] = _sent(value)


def _sent(value: _Json) -> _Json:
    """As it comes over the wire: JSON, and nobody else's object."""
    sent: _Json = json.loads(json.dumps(value))
    return sent


def _own(before: Object, after: Object, manager: str, subresource: str) -> None:
    """Note who has set what: `manager` what is other than before, everybody less what is not as it was."""
    metadata = after["metadata"]
    entries = metadata.get("managedFields")
    if subresource or not entries:
        entries = before.get("metadata", {}).get("managedFields") or []
    elif entries == [{}]:
        entries = []
    was, now = _leaves(before), _leaves(after)
    changed = {path for path in now if now[path] != was.get(path)}
    owned = {_entry(entry): _paths(entry["fieldsV1"]) for entry in entries}
    for key in owned:
        owned[key] = {path for path in owned[key] if path in now and path not in changed}
    if changed:
        owned.setdefault((manager, "Update", after.get("apiVersion", "v1"), subresource), set()).update(changed)
    metadata["managedFields"] = [
        {
            "manager": key[0],
            "operation": key[1],
            "apiVersion": key[2],
            "fieldsType": "FieldsV1",
            "fieldsV1": _fields(paths),
            **({"subresource": key[3]} if key[3] else {}),
        }
        for key, paths in owned.items()
        if paths
    ]


def _leaves(found: Object) -> dict[tuple[str, ...], Any]:
    """Labels and annotations one by one, fields of the spec and data as wholes."""
    metadata = found.get("metadata", {})
    parts = {
        ("f:metadata", "f:labels"): metadata.get("labels"),
        ("f:metadata", "f:annotations"): metadata.get("annotations"),
        ("f:spec",): found.get("spec"),
        ("f:data",): found.get("data"),
    }
    return {(*way, f"f:{key}"): value for way, part in parts.items() for key, value in (part or {}).items()}


def _entry(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return entry["manager"], entry["operation"], entry["apiVersion"], entry.get("subresource", "")


def _paths(fields: Mapping[str, Any], way: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    depth = {"f:metadata": 3}.get(way[0] if way else "", 2)
    if len(way) == depth:
        return {way}
    return set().union(*(_paths(inner, (*way, key)) for key, inner in fields.items()))


def _fields(paths: set[tuple[str, ...]]) -> Object:
    fields: Object = {}
    for path in sorted(paths):
        inner = fields
        for word in path:
            inner = inner.setdefault(word, {})
    return fields
