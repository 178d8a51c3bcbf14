"""Who owns a field of somebody's object (metadata.managedFields), and how ours is given up. Quiet.

What we change is noted under our name. While it stands there, a server-side apply of the user's that changes the field conflicts
(Kubernetes doc, "Server-Side Apply"). An update may say the entries anew, so the last request of a restoring does.

Not here: when that is due (edits.py).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from kt_net.choreography.names import FIELD_MANAGER
from kt_net.choreography.records import MAX_OWNERS, Object, Owner


def owners_of(live: Object, field: str) -> tuple[Owner, ...]:
    """Who owns `spec.FIELD`, without us."""
    return tuple(_key(entry) for entry in _entries(live) if not _ours(entry) and _has(entry, field))[:MAX_OWNERS]


def is_ours(live: Object, field: str) -> bool:
    """Whether `spec.FIELD` is as we have set it: whoever sets it after us owns it alone."""
    return any(_ours(entry) and _has(entry, field) for entry in _entries(live))


def without_ours(live: Object, field: str, owners: tuple[Owner, ...]) -> list[dict[str, Any]]:
    """The entries without ours, for a patch. `owners` have `spec.FIELD` again, unless somebody else has it by now."""
    entries = [copy.deepcopy(dict(entry)) for entry in _entries(live) if not _ours(entry)]
    if not any(_has(entry, field) for entry in entries):
        for owner in owners:
            if owner.manager != FIELD_MANAGER:
                _give(entries, owner, field)
    # A list without entries says nothing; one empty entry says that there are none (same doc, "Clearing managedFields").
    return entries or [{}]


def _give(entries: list[dict[str, Any]], owner: Owner, field: str) -> None:
    for entry in entries:
        if _key(entry) == owner:
            spec = entry.setdefault("fieldsV1", {}).setdefault("f:spec", {})
            spec[f"f:{field}"] = {}
            return
    entry = {
        "manager": owner.manager,
        "operation": owner.operation,
        "apiVersion": owner.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {f"f:{field}": {}}},
    }
    entries.append(entry | ({"subresource": owner.subresource} if owner.subresource else {}))


def _entries(live: Object) -> list[Mapping[str, Any]]:
    found = (live.get("metadata") or {}).get("managedFields") or []
    return [entry for entry in found if isinstance(entry, Mapping)]


def _ours(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("manager") == FIELD_MANAGER)


def _has(entry: Mapping[str, Any], field: str) -> bool:
    return f"f:{field}" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})


def _key(entry: Mapping[str, Any]) -> Owner:
    manager, operation, version, below = (
        str(entry.get(key) or "") for key in ("manager", "operation", "apiVersion", "subresource")
    )
    return Owner(manager, operation, version, below)
