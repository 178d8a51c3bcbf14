"""Runs a sequence of steps against the API, and takes it back.

Not here: which steps there are.
"""

from __future__ import annotations

import logging

from kt_net.choreography.edits import Edit, GiveBack, Request, converge
from kt_net.choreography.steps import Sequence, Step
from kt_net.errors import KtError, ObjectMissing
from kt_net.kube.api import KubeApi, Object

logger = logging.getLogger(__name__)


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
        return dict(converge(edit, lambda: {**api.get(kind, namespace, name), "kind": kind}, write))
    except ObjectMissing:
        if isinstance(edit, GiveBack):
            return {}
        raise


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
