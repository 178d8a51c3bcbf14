"""Runs a sequence of steps against the API, and takes it back.

Not here: which steps there are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from kt_net.choreography.edits import Edit, ForgetCopy, GiveBack, Request, converge, copies
from kt_net.choreography.steps import Sequence, Step
from kt_net.errors import KtError, ObjectMissing
from kt_net.kube.api import KubeApi, Object

logger = logging.getLogger(__name__)

#: At a Deployment's ReplicaSets, until nothing of ours is there.
_QUIET_LOOKS: Final = 2
_LOOK_SECONDS: Final = 0.2
#: Waits so many seconds.
pause: Callable[[float], None] = time.sleep


def run_step(api: KubeApi, step: Step) -> Object:
    """One request; the object as it is after it."""
    if step.verb == "create":
        return api.create(step.kind, step.namespace, step.body or {})
    if step.verb == "patch":
        return api.patch(step.kind, step.namespace, step.name, step.body or {})
    if step.verb == "edit" and step.edit is not None:
        return run_edit(api, step.kind, step.namespace, step.name, step.edit)
    uid = step.uid
    if step.marked is not None:
        try:
            metadata = api.get(step.kind, step.namespace, step.name)["metadata"]
        except ObjectMissing:
            return {}
        if not step.marked.items() <= (metadata.get("labels") or {}).items():
            return {}  # somebody else's
        uid = metadata["uid"]
    api.delete(step.kind, step.namespace, step.name, uid=uid)
    return {}


def run_edit(api: KubeApi, kind: str, namespace: str, name: str, edit: Edit) -> Object:
    """An edit, to its end; the object as it is after it. What is to be given back and is not there any more is given back.

    Raises:
        KtError: what the edit raises, and the refusals of kt_net.kube.
    """

    def write(request: Request) -> Object:
        return api.patch(kind, namespace, name, request.body, subresource=request.subresource)

    try:
        # A list's items have no kind; edits judge by it.
        found = dict(converge(edit, lambda: {**api.get(kind, namespace, name), "kind": kind}, write))
    except ObjectMissing:
        if isinstance(edit, GiveBack):
            return {}
        raise
    if kind == "Deployment" and isinstance(edit, GiveBack):
        forget_copies(api, namespace, name)
    return found


def forget_copies(api: KubeApi, namespace: str, deployment: str) -> None:
    """Take the copies of its record off a Deployment's ReplicaSets; whoever may not leaves them to `ktctl clean`."""
    quiet = 0
    try:
        while quiet < _QUIET_LOOKS:
            names = copies(api.list("ReplicaSet", namespace), deployment)
            for name in names:
                run_edit(api, "ReplicaSet", namespace, name, ForgetCopy())
            # Its controller may be at work with what it read before: it has copied by the next look, or never will.
            quiet = 0 if names else quiet + 1
            if quiet < _QUIET_LOOKS:
                pause(_LOOK_SECONDS)
    except KtError as error:
        logger.warning("copies of the record of %s: %s", deployment, error)


def run_sequence(api: KubeApi, sequence: Sequence) -> None:
    """All steps that are left. When one fails, everything is taken back and its error raised."""
    try:
        while (step := sequence.due()) is not None:
            sequence.done(run_step(api, step))
    except BaseException:
        undo_sequence(api, sequence)
        raise


def undo_sequence(api: KubeApi, sequence: Sequence) -> list[KtError]:
    """Take everything back; what could not be is given back, and does not keep the rest from being undone."""
    failed: list[KtError] = []
    for step in sequence.undo():
        try:
            run_step(api, step)
        except KtError as error:
            logger.warning("%s: %s", step.title, error)
            failed.append(error)
    return failed
