"""Brings an agent into somebody's running pod and waits for it, by watching.

Not here: what it is made of (kt_net.choreography.guest).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kt_net.choreography.guest import (
    anothers,
    guest_steps,
    guests,
    refuse_host_network,
    takes_config_maps,
)
from kt_net.choreography.shadow import ShadowOptions
from kt_net.choreography.steps import Sequence
from kt_net.errors import AdmissionRefused, ImageUnavailable, KtError, ObjectMissing, ShadowFailed
from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.run import run_sequence, undo_sequence
from kt_net.kube.shadow import IMAGE_REASONS, Shadow
from kt_net.kube.waiting import Patience, Watched, watch_until

#: An agent ends at once when its client says so; the kubelet looks at its containers every second, and says what it saw when it can.
ENDS_SECONDS: Final = 30.0


def bring_guest(api: HttpKubeApi, pod: str, options: ShadowOptions, patience: Patience) -> Shadow:
    """An agent in the pod of that name.

    Raises:
        ObjectMissing: there is no such pod, or it does not run.
        Exchanged: somebody else has one there.
        UsageFault: the pod is on its node's network.
        AdmissionRefused: a policy forbids NET_ADMIN.
        ImageUnavailable, ShadowFailed, PermissionMissing and the other refusals; then nothing runs there.
    """
    live, passed = _wait_until_ending_ones_are_gone(api, pod, options.namespace, patience)
    refuse_host_network(live)
    sequence = Sequence(guest_steps(options, live, passed, inline=not _takes_config_maps(api)))
    if patience.given_up.is_set():
        raise ShadowFailed(f"no container is added to pod {pod}", why="it is not wanted any more")
    try:
        run_sequence(api, sequence)
    except AdmissionRefused as error:
        if "ephemeralcontainers" not in error.what:
            raise
        raise AdmissionRefused(
            f"no container with NET_ADMIN may be added to pod {pod}",
            why=error.why,
            next_step="use --mode selector, which needs no privilege",
        ) from error
    try:
        watch_until(
            api,
            options.namespace,
            [Watched("Pod", fields=f"metadata.name={pod}", gone=f"pod {pod} is gone")],
            lambda _, seen: _judge(seen, options.name),
            patience,
            late=f"the container in pod {pod} did not run",
            last="the kubelet has not begun",
        )
    except BaseException:
        undo_sequence(api, sequence)
        raise
    return Shadow(pod, options, sequence)


def _takes_config_maps(api: HttpKubeApi) -> bool:
    try:
        return takes_config_maps(api.get_path("version", "read the version"))
    except KtError:
        return True


def _wait_until_ending_ones_are_gone(
    api: HttpKubeApi, pod: str, namespace: str, patience: Patience
) -> tuple[Object, list[str]]:
    """The pod, and which guests in it are nobody's any more: those that run still have ended, which the kubelet says some seconds later.

    Raises:
        Exchanged: somebody has one there that lives, or that is about to.
        ObjectMissing: the pod does not run.
        ShadowFailed: one does not end.
    """
    live = api.get("Pod", namespace, pod)
    if (live.get("status") or {}).get("phase") != "Running":
        raise ObjectMissing(f"pod {pod} does not run")
    passed = guests(live)
    for name in passed:
        try:
            api.get("Lease", namespace, name)
        except ObjectMissing:
            continue
        raise anothers(pod, name)
    # One that has never begun, of an image that is not there, cannot be taken out of the pod again: nobody waits for it.
    ending = set(guests(live, running=True))
    if not ending:
        return live, passed
    live = watch_until(
        api,
        namespace,
        [Watched("Pod", fields=f"metadata.name={pod}", gone=f"pod {pod} is gone")],
        lambda _, seen: (None if ending & set(guests(seen, running=True)) else seen, ""),
        replace(patience, seconds=ENDS_SECONDS),
        late=f"container {min(ending)} in pod {pod}, whose exchange is over, did not end",
        last="the kubelet does not say",
    )
    return live, passed


def _judge(pod: Object, name: str) -> tuple[bool | None, str]:
    """True when the guest runs, and what is said of it.

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
        return "running" in state or None, f"{reason} {message}".strip()
    return None, ""


def guest_gone(pod: Object, name: str) -> str:
    """Why a guest leads nowhere any more; "" when it may."""
    for one in (pod.get("status") or {}).get("ephemeralContainerStatuses") or ():
        if one.get("name") == name and "terminated" in (one.get("state") or {}):
            return f"the agent in pod {pod['metadata']['name']} has ended"
    return ""
