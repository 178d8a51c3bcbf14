"""Puts right what in the cluster is nobody's any more; and gives back one target at once, whosever it is.

Cleaning looks twice: what looks dead is watched for as long as a Lease would be renewed in, and only what has not moved is touched. Two who
clean at once do not hurt each other: every step holds for what was seen only.

Not here: the judgement (kt_net.choreography.leftovers).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from kt_net.choreography.edits import GiveBack
from kt_net.choreography.exchange import matching
from kt_net.choreography.kt_connect import DropLock, GiveBackKt, ScaleBack, parse_config
from kt_net.choreography.lease import LEASE_SECONDS, RENEW_EVERY
from kt_net.choreography.leftovers import CHANGED, HEART_BEAT_SECONDS, MADE, Judgement, Leftover, judge
from kt_net.choreography.names import (
    CONTROL_BY,
    CONTROL_BY_KT,
    KT_CONFIG,
    KT_LOCK,
    KT_SELECTOR,
    ROLE,
    ROLE_EXCHANGE,
    SELECTOR,
    TARGET,
)
from kt_net.choreography.records import Object, name_of, of_whom, record_of
from kt_net.choreography.steps import Step
from kt_net.errors import KtError, ObjectMissing, PermissionMissing, UsageFault
from kt_net.forward.targets import Kind, Target
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.run import run_edit, run_step

logger = logging.getLogger(__name__)

#: A live client renews its Lease at least once in this time, whatever its clock says.
LOOK_AGAIN_SECONDS: Final = RENEW_EVERY + 4.0
#: Where there is no Lease: its client may be about to make another shadow pod, with another one.
NO_LEASE_SECONDS: Final = float(LEASE_SECONDS)


@dataclass(slots=True)
class Cleaned:
    """What came of it.

    Attributes:
        done: what was put right; with `dry_run`, what would be.
        failed: what could not be, in words.
        unread: kinds that may not be read, and so were not judged.
        live: what is somebody's.
    """

    done: list[Leftover] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    live: list[str] = field(default_factory=list)


class Cleaner:
    """For one namespace, or all of them.

    Args:
        namespace: None for all.
        threshold: seconds without a heart beat after which a KT Connect's objects are nobody's.
        wait: waits so many seconds.
    """

    def __init__(
        self,
        api: HttpKubeApi,
        namespace: str | None,
        *,
        threshold: float = HEART_BEAT_SECONDS,
        wait: Callable[[float], None],
        progress: Callable[[str], None],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._threshold = threshold
        self._wait = wait
        self._progress = progress

    def clean(self, *, dry_run: bool) -> Cleaned:
        """Look, look again, act.

        Raises:
            KtError: the API server does not answer, or does not take the credentials.
        """
        result = Cleaned()
        first = self._look(result)
        chosen = first.leftovers
        if chosen and not dry_run:
            chosen = self._look_again(first)
            for one in chosen:
                self._act(one, result)
        else:
            result.done = chosen
        result.failed += [f"{error} ({error.why})" for error in first.refused]
        result.live = first.live
        return result

    def _look_again(self, first: Judgement) -> list[Leftover]:
        ours = [one for one in first.leftovers if one.session]
        if ours:
            seconds = NO_LEASE_SECONDS if any(one.renewed is None for one in ours) else LOOK_AGAIN_SECONDS
            self._progress(f"{len(ours)} look like nobody's; looking again in {seconds:.0f} s")
            self._wait(seconds)
        return self._look(Cleaned()).confirmed(first)

    def _act(self, one: Leftover, result: Cleaned) -> None:
        try:
            run_step(self._api, one.step)
            result.done.append(one)
        except ObjectMissing:
            pass  # somebody else was quicker
        except KtError as error:
            result.failed.append(f"{one.what}: {error}" + (f" ({error.why})" if error.why else ""))

    def _look(self, result: Cleaned) -> Judgement:
        objects: dict[str, list[Object]] = {}
        for kind in dict.fromkeys((*MADE, *CHANGED)):
            try:
                objects[kind] = list(
                    self._api.list(kind, self._namespace, selector="" if kind in CHANGED else SELECTOR)
                )
            except PermissionMissing as error:
                objects[kind] = []
                result.unread.append(f"{kind}s are not looked at: {error}")
        if any(line.startswith("Lease") for line in result.unread):
            # Without them everything of ours would look dead.
            objects = {kind: [] for kind in objects}
        return judge(objects, now=self._api.server_time(), threshold=self._threshold)


@dataclass(slots=True)
class Recovered:
    """What came of it, in words."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def recover(api: HttpKubeApi, namespace: str, target: Target) -> Recovered:
    """Give back a Service, or a workload, whoever has it and whether that one lives or not.

    Raises:
        ObjectMissing: there is no such thing.
        RecordRefused: what it says of itself is not understood.
        UsageFault: nothing of that kind is ever exchanged.
        KtError: the refusals of kt_net.kube.
    """
    if target.kind in (Kind.ANY, Kind.SERVICE):
        kind = "Service"
    elif target.kind in (Kind.DEPLOYMENT, Kind.STATEFUL_SET):
        kind = str(target.kind)
    else:
        raise UsageFault(f"{target} is never exchanged", next_step="name svc/X, deployment/X or statefulset/X")
    live = {**api.get(kind, namespace, target.name), "kind": kind}
    result = Recovered()
    _give_back(api, namespace, live, result)
    if kind == "Service":
        for workload in _behind(api, namespace, live):
            _give_back(api, namespace, workload, result)
        _recover_kt_connects(api, namespace, live, result)
    return result


def _give_back(api: HttpKubeApi, namespace: str, live: Object, result: Recovered) -> None:
    """One object of which a record says how it was; and the shadow pods of whoever had it."""
    record = record_of(live)
    if record is None:
        return
    run_edit(api, str(live["kind"]), namespace, str(live["metadata"]["name"]), GiveBack(record.session))
    result.done.append(f"{name_of(live)} is given back: {of_whom(record)}")
    selector = f"{CONTROL_BY}={CONTROL_BY_KT},{TARGET}={record.session},{ROLE}={ROLE_EXCHANGE}"
    _delete(api, "Job", namespace, selector, result)


def _behind(api: HttpKubeApi, namespace: str, service: Object) -> list[Object]:
    found: list[Object] = []
    for kind in ("Deployment", "StatefulSet"):
        try:
            for workload in api.list(kind, namespace):
                template = (workload.get("spec") or {}).get("template") or {}
                if matching([service], (template.get("metadata") or {}).get("labels") or {}):
                    found.append({**workload, "kind": kind})
        except PermissionMissing as error:
            logger.warning("%s", error)
    return found


def _recover_kt_connects(api: HttpKubeApi, namespace: str, service: Object, result: Recovered) -> None:
    """What a real KT Connect has done to it, whether it lives or not."""
    name = str(service["metadata"]["name"])
    annotations = service["metadata"].get("annotations") or {}
    selector: Mapping[str, str] = (service.get("spec") or {}).get("selector") or {}
    if KT_SELECTOR in annotations and record_of(service) is None:
        run_edit(api, "Service", namespace, name, GiveBackKt())
        result.done.append(f"{name_of(service)} is given back: a KT Connect had it")
        meshed = selector.get(ROLE) == "router"
        if TARGET in selector:
            _delete(api, "Pod", namespace, f"{TARGET}={selector[TARGET]}", result)
        if meshed:
            stems = (f"{name}-kt-stuntman", f"{name}-kt-mesh-", f"{name}-kt-router")
            for kind in ("Pod", "Service", "ConfigMap", "Deployment"):
                _delete(api, kind, namespace, SELECTOR, result, stems)
    for pod in api.list("Pod", namespace, selector=f"{SELECTOR},{ROLE}={ROLE_EXCHANGE}"):
        config = parse_config(str((pod["metadata"].get("annotations") or {}).get(KT_CONFIG, "")))
        labels = pod["metadata"].get("labels") or {}
        fits = bool(selector) and selector.items() <= labels.items()
        if config.app and config.replicas and fits and not pod["metadata"].get("ownerReferences"):
            run_edit(api, "Deployment", namespace, config.app, ScaleBack(config.replicas))
            result.done.append(f"deployment/{config.app} has its {config.replicas} replicas again: a KT Connect had it")
            gone = Step("pod", "delete", "Pod", namespace, pod["metadata"]["name"], uid=pod["metadata"]["uid"])
            _run(api, gone, result)
    if KT_LOCK in annotations:
        run_edit(api, "Service", namespace, name, DropLock(annotations[KT_LOCK]))
        result.done.append(f"{name_of(service)} is unlocked")


def _delete(
    api: HttpKubeApi, kind: str, namespace: str, selector: str, result: Recovered, stems: tuple[str, ...] = ("",)
) -> None:
    """Objects with our labels, whose names begin so."""
    try:
        found = list(api.list(kind, namespace, selector=selector))
    except PermissionMissing as error:
        result.failed.append(f"{kind}s stay: {error}")
        return
    for one in found:
        metadata = one["metadata"]
        if str(metadata["name"]).startswith(stems):
            _run(api, Step(kind, "delete", kind, namespace, metadata["name"], uid=metadata["uid"]), result)


def _run(api: HttpKubeApi, step: Step, result: Recovered) -> None:
    try:
        run_step(api, step)
        result.done.append(f"{step.kind.lower()}/{step.name} is deleted")
    except KtError as error:
        result.failed.append(f"{step.kind.lower()}/{step.name}: {error}")
