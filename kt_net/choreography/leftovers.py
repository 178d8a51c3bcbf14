"""What in a namespace is nobody's any more, and what puts each of it right; pure.

Ours are judged by the Lease of their session, a real KT Connect's by the heart beat of its pods (it has no Leases). What looks dead at one
look is a candidate only: whoever acts looks again after a while, and a Lease that has changed meanwhile lives, whatever its stamp says.

Not here: reading, waiting, acting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from kt_net.choreography.edits import Edit, ForgetCopy, GiveBack, copies, field_of, put_back
from kt_net.choreography.kt_connect import DropLock, GiveBackKt, ScaleBack, parse_config
from kt_net.choreography.lease import LEASE_SECONDS
from kt_net.choreography.names import (
    HEART_BEAT,
    KT_CONFIG,
    KT_LOCK,
    KT_SELECTOR,
    MANAGED_BY,
    MANAGER,
    RECORD,
    ROLE,
    TARGET,
    USER,
    annotation_safe,
)
from kt_net.choreography.records import FIELDS, Object, Record, Value, name_of, record_of
from kt_net.choreography.steps import Step
from kt_net.errors import RecordRefused

#: A real KT Connect's own measures, in seconds.
HEART_BEAT_SECONDS: Final = 300.0
LOCK_SECONDS: Final = 180.0
#: So young a Job may have no Lease yet.
YOUNG_SECONDS: Final = 60.0
#: Kinds that are looked at: those that are changed, and those that are made, by us or by a KT Connect.
CHANGED: Final = (*FIELDS, "ReplicaSet")
MADE: Final = ("Pod", "Job", "Lease", "ConfigMap", "Deployment", "Service")


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that is nobody's.

    Attributes:
        what: kind and name.
        namespace: of it.
        why: whose it was, and why it is not any more.
        inverse: what puts it right, in words.
        step: the same as a step.
        session: the mark of one of ours; "" for a KT Connect's.
        renewed: the stamp of the session's Lease; None when there is none.
    """

    what: str
    namespace: str
    why: str
    inverse: str
    step: Step
    session: str = ""
    renewed: str | None = None


@dataclass(slots=True)
class Judgement:
    """All that was found.

    Attributes:
        leftovers: in the order in which they are put right: what is given back before what is deleted.
        live: what is somebody's, in words.
        refused: what is not understood.
    """

    leftovers: list[Leftover] = field(default_factory=list)
    live: list[str] = field(default_factory=list)
    refused: list[RecordRefused] = field(default_factory=list)

    def confirmed(self, before: Judgement) -> list[Leftover]:
        """Those that were leftovers at an earlier look already, and whose Lease has not changed since."""
        earlier = {(one.namespace, one.step.title): one.renewed for one in before.leftovers}
        return [one for one in self.leftovers if earlier.get((one.namespace, one.step.title), "none") == one.renewed]


def judge(objects: Mapping[str, Iterable[Object]], *, now: float, threshold: float = HEART_BEAT_SECONDS) -> Judgement:
    """Everything.

    Args:
        objects: by kind; of those that are changed all, of those that are made those with our label.
        now: unix seconds of the API server.
        threshold: seconds without a heart beat after which a KT Connect's object is nobody's.
    """
    found = {kind: [{**one, "kind": kind} for one in many] for kind, many in objects.items()}
    sessions = _Sessions(found.get("Lease", ()), now)
    result = Judgement()
    for kind in FIELDS:
        for live in found.get(kind, ()):
            try:
                record = record_of(live)
            except RecordRefused as error:
                result.refused.append(error)
                continue
            if record is not None:
                _judge_record(live, record, sessions, result)
            elif kind == "Deployment":
                _judge_copies(live, found.get("ReplicaSet", ()), result)
    for job in found.get("Job", ()):
        _judge_job(job, sessions, now, result)
    for lease in found.get("Lease", ()):
        _judge_lease(lease, sessions, result)
    _judge_kt_connects(found, now, threshold, result)
    return result


class _Sessions:
    """Leases by the mark of their session: of several, as while a shadow pod is replaced, the one that was renewed last."""

    def __init__(self, leases: Iterable[Object], now: float) -> None:
        by_age = sorted(leases, key=lambda lease: abs(now - _unix((lease.get("spec") or {}).get("renewTime"), 0.0)))
        self._leases = {_label(lease, TARGET): lease for lease in reversed(by_age)}
        self._now = now

    def renewed(self, session: str) -> str | None:
        """The stamp of its Lease."""
        lease = self._leases.get(session)
        return None if lease is None else str((lease.get("spec") or {}).get("renewTime"))

    def silence(self, session: str) -> str:
        """Why the session is over, as far as one look can tell; "" when it lives."""
        lease = self._leases.get(session)
        if lease is None:
            return "it has no Lease any more"
        spec = lease.get("spec") or {}
        lasts = spec.get("leaseDurationSeconds")
        seconds = self._now - _unix(spec.get("renewTime"), self._now)
        # A stamp of the future is no sign of life either: the second look decides.
        if abs(seconds) <= float(lasts if isinstance(lasts, int) else LEASE_SECONDS):
            return ""
        return f"its Lease says nothing for {seconds:.0f} s" if seconds > 0 else "its Lease is of the future"


def _judge_record(live: Object, record: Record, sessions: _Sessions, result: Judgement) -> None:
    who = f"exchanged by {record.user or 'somebody'} since {record.since}"
    inverse, step = (
        f"{FIELDS[str(live['kind'])]} {_said(put_back(live, record))} again",
        _edit(live, GiveBack(record.session)),
    )
    _judge_ours(live, record.session, who, inverse, step, sessions, result)


def _judge_copies(deployment: Object, replica_sets: Iterable[Object], result: Judgement) -> None:
    """A Deployment is given back, and its ReplicaSets still have what its controller has copied."""
    by_name = {_name(one): one for one in replica_sets if _namespace(one) == _namespace(deployment)}
    for name in copies(by_name.values(), _name(deployment)):
        why = f"copied from {name_of(deployment)} while that was exchanged"
        step = _edit(by_name[name], ForgetCopy())
        result.leftovers.append(
            Leftover(name_of(by_name[name]), _namespace(deployment), why, "annotation removed", step)
        )


def _judge_job(job: Object, sessions: _Sessions, now: float, result: Judgement) -> None:
    metadata = job.get("metadata") or {}
    session = _label(job, TARGET)
    if (job.get("status") or {}).get("completionTime") or not session or metadata.get("deletionTimestamp"):
        return  # it goes in seconds by itself, or is not ours
    young = now - _unix(metadata.get("creationTimestamp"), now) < YOUNG_SECONDS
    inverse, step = "deleted, with all that belongs to it", _delete(job)
    _judge_ours(job, session, f"of {_user(job)}", inverse, step, sessions, result, young=young)


def _judge_lease(lease: Object, sessions: _Sessions, result: Judgement) -> None:
    """Of a guest in somebody's pod: it has no Job, and goes with the pod at the latest."""
    owners = (lease.get("metadata") or {}).get("ownerReferences") or ()
    session = _label(lease, TARGET)
    if not any(owner.get("kind") == "Pod" for owner in owners):
        return
    pod = next(owner.get("name") for owner in owners)
    who = f"of {_user(lease)}, a guest in pod {pod}"
    _judge_ours(lease, session, who, "deleted", _delete(lease), sessions, result)


def _judge_ours(
    one: Object,
    session: str,
    who: str,
    inverse: str,
    step: Step,
    sessions: _Sessions,
    result: Judgement,
    *,
    young: bool = False,
) -> None:
    """By the session's Lease; what is `young` may have none yet."""
    why, renewed = sessions.silence(session), sessions.renewed(session)
    if not why or (young and renewed is None):
        result.live.append(f"{name_of(one)}: {who}")
        return
    result.leftovers.append(Leftover(name_of(one), _namespace(one), f"{who}; {why}", inverse, step, session, renewed))


# -- a real KT Connect's


def _judge_kt_connects(found: Mapping[str, list[Any]], now: float, threshold: float, result: Judgement) -> None:
    kinds = ("Pod", "Deployment", "ConfigMap", "Service")
    made = [one for kind in kinds for one in found.get(kind, ()) if _is_kts(one)]
    dead = [one for one in made if now - _beat(one, now) > threshold]
    living = {_label(one, TARGET) for one in made if one not in dead and one["kind"] in ("Pod", "Deployment")}
    deployments = {(_namespace(one), _name(one)): one for one in found.get("Deployment", ())}
    for service in found.get("Service", ()):
        annotations = (service.get("metadata") or {}).get("annotations") or {}
        target = str(((service.get("spec") or {}).get("selector") or {}).get(TARGET, ""))
        if KT_SELECTOR in annotations and RECORD not in annotations:
            if target in living:
                result.live.append(f"{name_of(service)}: exchanged or meshed by a KT Connect")
            else:
                _give_back_kts(service, result)
        lock = str(annotations.get(KT_LOCK, ""))
        if lock.isdecimal() and len(lock) <= 12 and now - int(lock) > LOCK_SECONDS:
            why = f"locked by a KT Connect for {now - int(lock):.0f} s"
            result.leftovers.append(
                Leftover(name_of(service), _namespace(service), why, "unlocked", _edit(service, DropLock(lock)))
            )
    for one in dead:
        config = parse_config(str((one["metadata"].get("annotations") or {}).get(KT_CONFIG, "")))
        workload = deployments.get((_namespace(one), config.app))
        if workload is not None and config.replicas and field_of(workload) == 0:
            why = f"scaled to 0 by the KT Connect of {_user(one)}, silent for {now - _beat(one, now):.0f} s"
            step = _edit(workload, ScaleBack(config.replicas))
            inverse = f"replicas {config.replicas} again"
            result.leftovers.append(Leftover(name_of(workload), _namespace(workload), why, inverse, step))
    for one in dead:
        why = f"of the KT Connect of {_user(one)}, silent for {now - _beat(one, now):.0f} s"
        result.leftovers.append(Leftover(name_of(one), _namespace(one), why, "deleted", _delete(one)))
    result.live += [f"{name_of(one)}: of the KT Connect of {_user(one)}" for one in made if one not in dead]


def _give_back_kts(service: Object, result: Judgement) -> None:
    edit = GiveBackKt()
    try:
        was = edit.selector(service)
    except RecordRefused as error:
        result.refused.append(error)
        return
    why = "exchanged or meshed by a KT Connect whose pods are gone or silent"
    result.leftovers.append(
        Leftover(name_of(service), _namespace(service), why, f"selector {_said(was)} again", _edit(service, edit))
    )


def _is_kts(one: Object) -> bool:
    """Made by a real KT Connect: a heart beat, no owner, and not ours."""
    metadata = one.get("metadata") or {}
    labels, beat = metadata.get("labels") or {}, str((metadata.get("annotations") or {}).get(HEART_BEAT, ""))
    ours = labels.get(MANAGED_BY) == MANAGER or bool(metadata.get("ownerReferences"))
    return ROLE in labels and not ours and beat.isdecimal() and len(beat) <= 12


def _beat(one: Object, now: float) -> float:
    return float(str((one["metadata"].get("annotations") or {}).get(HEART_BEAT, now)))


# -- words and steps


def _edit(live: Object, edit: Edit) -> Step:
    kind, name = str(live["kind"]), _name(live)
    return Step(f"{type(edit).__name__} {kind} {name}", "edit", kind, _namespace(live), name, edit=edit)


def _delete(one: Object) -> Step:
    kind, name = str(one["kind"]), _name(one)
    return Step(f"delete {kind} {name}", "delete", kind, _namespace(one), name, uid=str(one["metadata"].get("uid", "")))


def _said(value: Value) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={word}" for key, word in value.items()) or "none"
    return str(value)


def _label(one: Object, label: str) -> str:
    return str(((one.get("metadata") or {}).get("labels") or {}).get(label, ""))


def _name(one: Object) -> str:
    return str((one.get("metadata") or {}).get("name", ""))


def _namespace(one: Object) -> str:
    return str((one.get("metadata") or {}).get("namespace", ""))


def _user(one: Object) -> str:
    return annotation_safe(str(((one.get("metadata") or {}).get("annotations") or {}).get(USER) or "somebody"))


def _unix(text: object, otherwise: float) -> float:
    """RFC 3339 as unix seconds."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError, OSError):
        return otherwise
