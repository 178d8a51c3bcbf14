"""Brings an agent into somebody's running pod and waits for it, by watching.

Not here: what it is made of (kt_net.choreography.guest).
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import replace

from kt_net.choreography.guest import PREFIX, guest_container, guest_steps, guests, probers
from kt_net.choreography.shadow import ShadowOptions
from kt_net.choreography.steps import Sequence
from kt_net.errors import AdmissionRefused, Exchanged, ImageUnavailable, KtError, ObjectMissing, ShadowFailed
from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.run import run_sequence, undo_sequence
from kt_net.kube.shadow import IMAGE_REASONS, QueuedWatch, Shadow


def bring_guest(
    api: HttpKubeApi, pod: str, options: ShadowOptions, *, deadline_s: float, clock: Callable[[], float]
) -> Shadow:
    """An agent in the pod of that name.

    Raises:
        ObjectMissing: there is no such pod, or it does not run.
        Exchanged: somebody else has one there.
        AdmissionRefused: a policy forbids NET_ADMIN.
        ImageUnavailable, ShadowFailed, PermissionMissing and the other refusals; then nothing runs there.
    """
    options = replace(options, name=PREFIX + options.name.rpartition("-")[2])
    live = api.get("Pod", options.namespace, pod)
    if (live.get("status") or {}).get("phase") != "Running":
        raise ObjectMissing(f"pod {pod} does not run")
    if there := guests(live):
        raise Exchanged(
            f"pod/{pod} is exchanged",
            why=f"somebody's guest is in it: container {there[0]}",
            next_step="ask them to end it; it ends by itself when its client is gone",
        )
    sequence = Sequence(guest_steps(options, live, guest_container(options, probers(live))))
    try:
        run_sequence(api, sequence)
    except AdmissionRefused as error:
        raise AdmissionRefused(
            f"no container with NET_ADMIN may be added to pod {pod}",
            why=error.why,
            next_step="use --mode selector, which needs no privilege",
        ) from error
    try:
        _wait_running(api, pod, options, deadline_s=deadline_s, clock=clock)
    except BaseException:
        undo_sequence(api, sequence)
        raise
    return Shadow(pod, options, sequence)


def _wait_running(
    api: HttpKubeApi, pod: str, options: ShadowOptions, *, deadline_s: float, clock: Callable[[], float]
) -> None:
    seen: queue.Queue[tuple[str, Object] | KtError] = queue.Queue()
    fields = f"metadata.name={pod}"
    watch = QueuedWatch(api, "Pod", options.namespace, "", deadline_s, seen, fields=fields)
    end, last = clock() + deadline_s, "the kubelet has not begun"
    try:
        while (left := end - clock()) > 0:
            try:
                item = seen.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(item, KtError):
                raise item
            running, said = _judge(item[1], options.name)
            if running:
                return
            last = said or last
    finally:
        watch.close()
    raise ShadowFailed(f"the container in pod {pod} did not run within {deadline_s:g} s", why=last)


def _judge(pod: Object, name: str) -> tuple[bool, str]:
    """Whether the guest runs, and what is said of it.

    Raises:
        ImageUnavailable, ShadowFailed: it never will.
    """
    for one in (pod.get("status") or {}).get("ephemeralContainerStatuses") or ():
        if one.get("name") != name:
            continue
        state = one.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated")
        reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
        if ended is not None:
            raise ShadowFailed("the agent has ended at once", why=f"{ended.get('reason')} {ended.get('message', '')}")
        if reason in IMAGE_REASONS:
            raise ImageUnavailable(f"the image {one.get('image')} cannot be pulled", why=f"{reason}: {message}")
        return "running" in state, f"{reason} {message}".strip()
    return False, ""


def guest_gone(pod: Object, name: str) -> str:
    """Why a guest leads nowhere any more; "" when it may."""
    for one in (pod.get("status") or {}).get("ephemeralContainerStatuses") or ():
        if one.get("name") == name and "terminated" in (one.get("state") or {}):
            return f"the agent in pod {pod['metadata']['name']} has ended"
    return ""
