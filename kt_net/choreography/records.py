"""How an object of the user was before we changed it, written on that object itself, so that whoever finds it can put it right. Quiet.

A closed grammar: a Service's selector, or the replicas of a Deployment or StatefulSet, and nothing else. Foreign octets: anybody who may
write the object may have written the annotation.

Not here: the requests that change and give back (edits.py), whether whoever changed it still lives (lease.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from kt_net.choreography.names import KT_SELECTOR, RECORD, SCHEMA_VERSION, annotation_safe
from kt_net.errors import RecordRefused

Object: TypeAlias = Mapping[str, Any]
Selector: TypeAlias = Mapping[str, str]
#: What was there before, or what we have put there: a selector, or a number of replicas.
Value: TypeAlias = Selector | int

#: Kind -> the field of its spec that is changed, and nothing else of it ever.
FIELDS: Final[Mapping[str, str]] = {"Service": "selector", "Deployment": "replicas", "StatefulSet": "replicas"}
#: Octets of an annotation that is looked at; all of an object's together may have 256 KiB.
MAX_RECORD: Final = 16 * 1024
MAX_OWNERS: Final = 32
_MAX_SELECTOR: Final = 64
_MAX_REPLICAS: Final = (1 << 31) - 1
_SESSION: Final = re.compile(r"[a-z0-9]{1,63}\Z")
_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z\Z")


@dataclass(frozen=True, slots=True)
class Owner:
    """A field manager that had the field (Kubernetes doc, "Server-Side Apply"); what tells entries of managedFields apart."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One object's.

    Attributes:
        session: the mark (`kt-target`) of the session that has changed it; its Lease, Job and pods carry it as a label.
        user: whose session it is, for people to read.
        since: RFC 3339, by the API server's clock.
        was: what is put back.
        ours: what we have put there. When something else stands there, somebody has changed it, and theirs stays.
        owners: who had the field before, and has it again afterwards.
        back: it is being given back: whoever holds it, hands off.
    """

    session: str
    user: str
    since: str
    was: Value
    ours: Value
    owners: tuple[Owner, ...] = ()
    back: bool = False


def record_text(kind: str, record: Record) -> str:
    """The annotation's value."""

    def plain(value: Value) -> object:
        return value if isinstance(value, int) else dict(value)

    owners = [
        {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            **({"subresource": owner.subresource} if owner.subresource else {}),
        }
        for owner in record.owners
    ]
    words = {
        "schema": SCHEMA_VERSION,
        "session": record.session,
        "user": annotation_safe(record.user),
        "since": record.since,
        FIELDS[kind]: {"was": plain(record.was), "ours": plain(record.ours)},
        "owners": owners,
        **({"back": True} if record.back else {}),
    }
    return json.dumps(words, separators=(",", ":"))


def selector_text(selector: Selector) -> str:
    """KT Connect's annotation."""
    return json.dumps(dict(selector), separators=(",", ":"))


def record_of(live: Object) -> Record | None:
    """What `live` says of itself, None when nothing.

    Raises:
        RecordRefused: it makes no sense, is of a version that we do not know, or the two annotations of a Service do not agree.
    """
    annotations = (live.get("metadata") or {}).get("annotations") or {}
    text = annotations.get(RECORD)
    if text is None:
        return None
    kind = str(live.get("kind"))
    if kind not in FIELDS:
        raise _refused(live, "objects of this kind have none")
    record = _parsed(live, kind, text)
    kts = annotations.get(KT_SELECTOR)
    if kts is not None and (kind != "Service" or parse_selector(live, kts) != record.was):
        raise _refused(live, f"{KT_SELECTOR} beside it says something else")
    return record


def parse_selector(live: Object, text: object) -> dict[str, str]:
    """A selector from a JSON text in an annotation of `live`.

    Raises:
        RecordRefused: it is none.
    """
    return _selector(live, _json(live, text))


def of_whom(record: Record) -> str:
    """Who, and since when, in words."""
    return f"{record.user or 'somebody'} has had it since {record.since}"


def name_of(live: Object) -> str:
    """Kind and name, as kubectl writes them."""
    return f"{str(live.get('kind', 'object')).lower()}/{(live.get('metadata') or {}).get('name', '?')}"


def _parsed(live: Object, kind: str, text: object) -> Record:
    words = _json(live, text)
    if not isinstance(words, dict):
        raise _refused(live, "it is no JSON object")
    if words.get("schema") != SCHEMA_VERSION:
        raise _refused(
            live, f"its schema is {annotation_safe(str(words.get('schema')), 20)!r}, known is {SCHEMA_VERSION!r}"
        )
    field = FIELDS[kind]
    if not words.keys() <= {"schema", "session", "user", "since", "owners", "back", field}:
        raise _refused(live, "it has words that are not known")
    session, user, since = (str(words.get(key, "")) for key in ("session", "user", "since"))
    values = words.get(field)
    if not (_SESSION.match(session) and _TIME.match(since)) or annotation_safe(user) != user:
        raise _refused(live, "session, user and since are not what they should be")
    if (
        not isinstance(values, dict)
        or values.keys() != {"was", "ours"}
        or not isinstance(words.get("back", False), bool)
    ):
        raise _refused(live, f"{field} is not what it should be")
    read = _selector if kind == "Service" else _replicas
    was, ours = read(live, values["was"]), read(live, values["ours"])
    return Record(session, user, since, was, ours, _owners(live, words.get("owners")), words.get("back", False))


def _json(live: Object, text: object) -> Any:
    if not isinstance(text, str) or len(text) > MAX_RECORD:
        raise _refused(live, f"it has more than {MAX_RECORD} octets")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(live, "it is no JSON") from error


def _selector(live: Object, value: object) -> dict[str, str]:
    if (
        not isinstance(value, dict)
        or not 0 < len(value) <= _MAX_SELECTOR
        or not all(isinstance(word, str) and _VALUE.match(word) for word in value.values())
        or not all(_KEY.match(key) for key in value)
    ):
        raise _refused(live, "a selector in it is none")
    return value


def _replicas(live: Object, value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_REPLICAS:
        raise _refused(live, "a number of replicas in it is none")
    return value


def _owners(live: Object, value: object) -> tuple[Owner, ...]:
    if not isinstance(value, list) or len(value) > MAX_OWNERS:
        raise _refused(live, "its owners are not what they should be")
    owners = []
    for one in value:
        if not isinstance(one, dict) or not one.keys() <= {"manager", "operation", "apiVersion", "subresource"}:
            raise _refused(live, "an owner in it is none")
        words = [one.get(key, "") for key in ("manager", "operation", "apiVersion", "subresource")]
        if not all(isinstance(word, str) and len(word) <= 253 for word in words) or words[1] not in ("Apply", "Update"):
            raise _refused(live, "an owner in it is none")
        owners.append(Owner(*words))
    return tuple(owners)


def _refused(live: Object, why: str) -> RecordRefused:
    metadata = live.get("metadata") or {}
    return RecordRefused(
        f"the annotation of {name_of(live)} in namespace {metadata.get('namespace', '?')} is not understood, and nothing is changed",
        why=why,
    )
