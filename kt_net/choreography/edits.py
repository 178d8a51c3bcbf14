"""Changes to somebody's live object: each says, for the object as it is, which request is next. Quiet.

An edit has no state. Whoever carries it out reads the object, sends what `request` says, and reads again, until nothing is left: so it can
be broken off after every request and gone on with by anybody, and two who do the same come to the same. Every request holds only for
the object as it was read (resourceVersion): of two who want to be first, one is told so.

Not here: what a record says (records.py), the requests themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Final, Protocol

from kt_net.choreography.names import KT_SELECTOR, RECORD, ROLE, ROLE_EXCHANGE, TARGET
from kt_net.choreography.ownership import is_ours, owners_of, without_ours
from kt_net.choreography.records import (
    FIELDS,
    Object,
    Record,
    Selector,
    Value,
    name_of,
    of_whom,
    record_of,
    record_text,
    selector_text,
)
from kt_net.errors import Conflict, Exchanged, GivenBack, UsageFault

#: Of an edit; each takes two or three requests, and some more when others write the object at the same time.
MAX_ROUNDS: Final = 50


@dataclass(frozen=True, slots=True)
class Request:
    """A merge patch (RFC 7386) of the object, or of its subresource."""

    body: Mapping[str, Any]
    subresource: str = ""


class Edit(Protocol):
    """One change."""

    def request(self, live: Object) -> Request | None:
        """What is next for the object as it is; None: nothing."""


class Standing(Enum):
    """What has become of an object that a session holds."""

    HELD = auto()
    #: Somebody has changed it: to be taken again, and what stands there now is what will be put back.
    CHANGED = auto()
    #: Hands off.
    GIVEN_BACK = auto()
    ANOTHERS = auto()
    #: There is no such object.
    GONE = auto()


def exchange_selector(session: str) -> dict[str, str]:
    """What a Service selects while the session has it: its shadow pods, by KT Connect's labels."""
    return {ROLE: ROLE_EXCHANGE, TARGET: session}


@dataclass(frozen=True, slots=True)
class TakeSelector:
    """A Service leads to the session's shadow pods.

    Attributes:
        session: the mark.
        user, since: for the record.
        known: what the session remembers to have been there, in case that somebody has removed the record.
    """

    session: str
    user: str
    since: str
    known: Selector | None = None

    def request(self, live: Object) -> Request | None:
        """See `Edit`.

        Raises:
            Exchanged, GivenBack: it is not ours to take.
            RecordRefused: see `record_of`.
            UsageFault: it has no selector.
        """
        record, selector, ours = record_of(live), field_of(live), exchange_selector(self.session)
        refuse_anothers(live, record, self.session)
        if record is not None and selector == ours:
            return None
        was = _less(selector, ours, self.known if record is None else record.was)
        if not isinstance(was, Mapping) or not was:
            raise UsageFault(
                f"{name_of(live)} has no selector",
                why="somebody else says where it leads",
                next_step="change its EndpointSlices or its external name instead",
            )
        owners = owners_of(live, "selector") or (record.owners if record is not None else ())
        taken = Record(self.session, self.user, self.since, was, ours, owners)
        return request_of(
            live,
            {RECORD: record_text("Service", taken), KT_SELECTOR: selector_text(was)},
            {"selector": merged(selector, ours)},
        )


@dataclass(frozen=True, slots=True)
class TakeReplicas:
    """A Deployment or StatefulSet has no pods for as long as the session lasts. The number goes by the `scale` subresource.

    Attributes:
        session, user, since, known: see `TakeSelector`.
    """

    session: str
    user: str
    since: str
    known: int | None = None

    def request(self, live: Object) -> Request | None:
        """See `Edit`.

        Raises:
            Exchanged, GivenBack: it is not ours to take.
            RecordRefused: see `record_of`.
            UsageFault: it has no pods.
        """
        record, replicas = record_of(live), field_of(live)
        refuse_anothers(live, record, self.session)
        if record is not None and replicas == 0:
            return None
        if record is None and self.known is not None and still_ours(live, self.session):
            replicas = self.known
        if record is None or record.was != replicas:
            if replicas == 0:
                raise UsageFault(
                    f"{name_of(live)} has no pods", why="its replicas are 0", next_step="scale it up first"
                )
            owners = owners_of(live, "replicas") or (record.owners if record is not None else ())
            taken = Record(self.session, self.user, self.since, replicas, 0, owners)
            return request_of(live, {RECORD: record_text(str(live["kind"]), taken)})
        return request_of(live, {}, {"replicas": 0}, "scale")


@dataclass(frozen=True, slots=True)
class GiveBack:
    """As it was before: the field, the annotations, and nothing of ours in managedFields.

    What somebody else has put there meanwhile stays: it is theirs. An object without a record is left alone.

    Attributes:
        session: only when it is this one's; "" whosever it is.
        known: the record that the session remembers, in case that somebody has removed it.
    """

    session: str = ""
    known: Record | None = None

    def request(self, live: Object) -> Request | None:
        """See `Edit`.

        Raises:
            RecordRefused: see `record_of`.
        """
        record, now = record_of(live), field_of(live)
        if record is None and self.known is not None and still_ours(live, self.known.session):
            record = self.known
        if record is None or self.session not in ("", record.session):
            return None
        kind = str(live["kind"])
        by_scale = kind != "Service"
        put: dict[str, Any] = {}
        wanted = put_back(live, record)
        if wanted != now:
            put = {FIELDS[kind]: wanted if by_scale else merged(now, wanted)}
        if not record.back:
            # First of all: whoever still holds it must not take it again. Another field manager cannot keep us from writing an
            # annotation of our own, so this and a Service's selector go together.
            if isinstance(wanted, Mapping) and put and wanted != record.was:
                record = replace(record, was=wanted, owners=owners_of(live, FIELDS[kind]) or record.owners)
            kts = {KT_SELECTOR: selector_text(record.was)} if isinstance(record.was, Mapping) else {}
            marked = record_text(kind, replace(record, back=True))
            return request_of(live, {RECORD: marked, **kts}, {} if by_scale else put)
        if put:
            return request_of(live, {}, put, "scale" if by_scale else "")
        managed = without_ours(live, FIELDS[kind], record.owners if now == record.was else ())
        removed: dict[str, Any] = {RECORD: None, **({} if by_scale else {KT_SELECTOR: None})}
        return request_of(live, removed, managed=managed)


@dataclass(frozen=True, slots=True)
class ForgetCopy:
    """A ReplicaSet has no copy of its Deployment's record: its controller copies annotations, and a rollback would bring them back."""

    def request(self, live: Object) -> Request | None:
        """See `Edit`."""
        annotations = (live.get("metadata") or {}).get("annotations") or {}
        return request_of(live, {RECORD: None}) if RECORD in annotations else None


def copies(replica_sets: Iterable[Object], deployment: str) -> list[str]:
    """Names of the Deployment's ReplicaSets that have a copy of its record."""
    return [
        str(one["metadata"]["name"])
        for one in replica_sets
        if RECORD in (one["metadata"].get("annotations") or {})
        and any(
            (owner.get("kind"), owner.get("name")) == ("Deployment", deployment)
            for owner in one["metadata"].get("ownerReferences") or ()
        )
    ]


def standing(live: Object | None, session: str, uid: str) -> Standing:
    """What has become of the object that `session` holds.

    Args:
        uid: of the object that was taken last. Another one has been made anew, and has not been given back by anybody.

    Raises:
        RecordRefused: see `record_of`.
    """
    if live is None:
        return Standing.GONE
    record = record_of(live)
    if record is None:
        anew = (live.get("metadata") or {}).get("uid") != uid
        return Standing.CHANGED if anew or still_ours(live, session) else Standing.GIVEN_BACK
    if record.session != session:
        return Standing.ANOTHERS
    if record.back:
        return Standing.GIVEN_BACK
    return Standing.HELD if field_of(live) == record.ours else Standing.CHANGED


def field_of(live: Object) -> Value:
    """What we would change: a Service's selector, a workload's replicas (1 where nothing is said)."""
    spec = live.get("spec") or {}
    if live.get("kind") == "Service":
        selector = spec.get("selector") or {}
        return {str(key): str(value) for key, value in selector.items()}
    replicas = spec.get("replicas")
    return replicas if isinstance(replicas, int) else 1


def refuse_anothers(live: Object, record: Record | None, session: str) -> None:
    """Nothing, when nobody has it but `session`.

    Raises:
        Exchanged: somebody else has; who, since when, and how that ends.
        GivenBack: it has been taken from us.
    """
    recover = f"run: ktctl recover {name_of(live).replace('service/', '')}"
    if record is None:
        if KT_SELECTOR in ((live.get("metadata") or {}).get("annotations") or {}) and not still_ours(live, session):
            raise Exchanged(
                f"{name_of(live)} is exchanged", why="by a KT Connect, which has left its annotation", next_step=recover
            )
        return
    if record.session != session:
        raise Exchanged(
            f"{name_of(live)} is exchanged", why=of_whom(record), next_step=f"ask them to end it, or {recover}"
        )
    if record.back:
        raise GivenBack(f"{name_of(live)} is given back")


def converge(edit: Edit, read: Callable[[], Object], write: Callable[[Request], object]) -> Object:
    """Carry out an edit; the object as it is afterwards.

    Args:
        read: the object.
        write: a request; raises Conflict when the object is not as it was read any more.

    Raises:
        KtError: what `edit`, `read` and `write` raise. Conflict: others write it all the time.
    """
    for _ in range(MAX_ROUNDS):
        live = read()
        request = edit.request(live)
        if request is None:
            return live
        try:
            write(request)
        except Conflict:
            continue
    raise Conflict(f"{name_of(live)} is never as it was read", why=f"{MAX_ROUNDS} attempts")


def still_ours(live: Object, session: str) -> bool:
    """Whether what stands there is the session's, when no record says so: its mark in a selector; replicas that nobody has set since."""
    field = field_of(live)
    if isinstance(field, Mapping):
        return field.get(TARGET) == session
    return field == 0 and is_ours(live, FIELDS[str(live["kind"])])


def put_back(live: Object, record: Record) -> Value:
    """What is to stand there when the record's session is over.

    What was there before where ours stands; else what somebody has put there meanwhile, less what is left of ours: a client-side
    `kubectl apply` merges maps, and knows of no key that it has not written itself.
    """
    now = field_of(live)
    if not isinstance(now, Mapping):
        return record.was if now == record.ours else now
    theirs = _less(now, record.ours, record.was)
    return now if theirs is None else theirs


def _less(now: Value, ours: Value, otherwise: Value | None) -> Value | None:
    """A selector without what is ours; `otherwise` when there was nothing else."""
    if not isinstance(now, Mapping) or not isinstance(ours, Mapping):
        return otherwise
    theirs = {key: value for key, value in now.items() if ours.get(key) != value}
    return otherwise if now and not theirs else theirs


def merged(now: Value, wanted: Value) -> dict[str, str | None]:
    """A merge patch that makes one map of another."""
    gone = dict.fromkeys(now) if isinstance(now, Mapping) else {}
    return {**gone, **(wanted if isinstance(wanted, Mapping) else {})}


def request_of(
    live: Object,
    annotations: Mapping[str, str | None],
    spec: Mapping[str, Any] | None = None,
    subresource: str = "",
    *,
    managed: list[dict[str, Any]] | None = None,
) -> Request:
    """A request that holds for the object as it was read only.

    Args:
        managed: what metadata.managedFields says from then on.
    """
    metadata: dict[str, Any] = {"resourceVersion": live["metadata"]["resourceVersion"]}
    if annotations:
        metadata["annotations"] = dict(annotations)
    if managed is not None:
        metadata["managedFields"] = managed
    return Request({"metadata": metadata, **({"spec": dict(spec)} if spec else {})}, subresource)
