"""Brings a shadow pod up and waits for it, by watching; Events explain a failure while it happens.

Not here: what the pod is made of (kt_net.choreography.shadow).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kt_net.choreography.shadow import ShadowOptions, shadow_steps
from kt_net.choreography.steps import Sequence
from kt_net.errors import AdmissionRefused, ImageUnavailable, ShadowFailed
from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.run import run_sequence, undo_sequence
from kt_net.kube.waiting import Patience, Watched, watch_until

IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
)


@dataclass(slots=True)
class Shadow:
    """A shadow pod that is up. `lost` names what admission did not allow."""

    pod: str
    options: ShadowOptions
    sequence: Sequence
    lost: tuple[str, ...] = ()


def start_shadow(api: HttpKubeApi, options: ShadowOptions, patience: Patience) -> Shadow:
    """Create everything and wait until the pod runs; with less where admission wants less.

    Raises:
        ImageUnavailable, AdmissionRefused, ShadowFailed, PermissionMissing and the other refusals; then nothing is left behind.
    """
    lost: list[str] = []
    while True:
        sequence = Sequence(shadow_steps(options))
        try:
            run_sequence(api, sequence)
            try:
                pod = wait_running(api, options.namespace, options.name, patience)
            except BaseException:
                undo_sequence(api, sequence)
                raise
            return Shadow(pod, options, sequence, tuple(lost))
        except AdmissionRefused as error:
            said = f"{error.what} {error.why}".lower()
            if options.sysctls and "sysctl" in said:
                lost.append("ping (admission refuses the sysctl net.ipv4.ping_group_range)")
                options = replace(options, sysctls=False, name=options.name + "a")
            elif options.uid is not None and ("runasuser" in said or "uid" in said):
                options = replace(options, uid=None, name=options.name + "b")
            else:
                raise


def wait_running(api: HttpKubeApi, namespace: str, job: str, patience: Patience) -> str:
    """The name of the Job's pod, once its container runs.

    Raises:
        ImageUnavailable, AdmissionRefused, ShadowFailed: as soon as pod or Events say so, or at the end of patience.
    """

    def judge(kind: str, seen: Object) -> tuple[str | None, str]:
        if kind == "Event":
            return None, _judge_event(seen, job)
        running, said = _judge_pod(seen)
        return str(seen["metadata"]["name"]) if running else None, said

    return watch_until(
        api,
        namespace,
        (Watched("Pod", selector=f"job-name={job}"), Watched("Event", needed=False)),
        judge,
        patience,
        late="the shadow pod did not run",
        last="no pod was created",
    )


def _judge_pod(pod: Object) -> tuple[bool, str]:
    """Whether the container runs, and what the pod says of itself.

    Raises:
        ImageUnavailable, AdmissionRefused, ShadowFailed: it never will.
    """
    status = pod.get("status") or {}
    if status.get("reason") == "SysctlForbidden":
        raise AdmissionRefused("the node refuses the pod", why=f"SysctlForbidden: {status.get('message', '')}")
    if status.get("phase") == "Failed":
        raise ShadowFailed(
            "the shadow pod failed", why=f"{status.get('reason', '')} {status.get('message', '')}".strip()
        )
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        waiting = state.get("waiting") or {}
        reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
        if reason in IMAGE_REASONS:
            raise ImageUnavailable(f"the image {container.get('image')} cannot be pulled", why=f"{reason}: {message}")
        if reason == "CrashLoopBackOff":
            raise ShadowFailed("the agent does not start", why=message)
        if "running" in state:
            return True, ""
        if reason:
            return False, f"{reason} {message}".strip()
    return False, ""


def _judge_event(event: Object, job: str) -> str:
    """What an Event about our Job or pod says, "" for others.

    Raises:
        AdmissionRefused: no pod will be created.
        ImageUnavailable: the image cannot be pulled.
    """
    involved = event.get("involvedObject") or {}
    if not str(involved.get("name", "")).startswith(job):
        return ""
    reason, message = str(event.get("reason", "")), str(event.get("message", ""))
    if reason == "FailedCreate":
        raise AdmissionRefused("no shadow pod may be created", why=message)
    if reason == "Failed" and ("pull" in message.lower() or "image" in message.lower()):
        raise ImageUnavailable("the image of the shadow pod cannot be pulled", why=message)
    return f"{reason}: {message}" if event.get("type") == "Warning" else ""
