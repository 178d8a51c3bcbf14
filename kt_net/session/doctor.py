"""What is wrong, or would be in the way of a connection: all checks, in the order in which one depends on the other.

Every question to somebody else has a thread and a deadline of its own, so that whoever does not answer costs seconds and hides nothing
else. A check that needs what another one did not find says so.

Not here: judgements (kt_net.host.health, kt_net.kube's rights, policies, room, remains, reach), printing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from kt_net.choreography.names import SELECTOR, SHADOW_PREFIX
from kt_net.choreography.shadow import pod_labels
from kt_net.errors import CredentialsRejected, KtError, NotConnected, ObjectMissing, PermissionMissing
from kt_net.findings import Finding, ok, problem, skipped, warning
from kt_net.host.health import judge_machine, judge_routes
from kt_net.host.machine import Machine
from kt_net.kube.api import HttpKubeApi, Object
from kt_net.kube.config import Cluster, load_cluster
from kt_net.kube.permissions import EXEC_NEEDS, PORT_FORWARD_NEEDS, SESSION_NEEDS, WISHES, Need, allowed
from kt_net.kube.policies import judge_policies
from kt_net.kube.ranges import detect_ranges
from kt_net.kube.reach import judge_clock, reach, whoami
from kt_net.kube.remains import judge_remains, judge_unknown
from kt_net.kube.rights import judge_needs, judge_wishes
from kt_net.kube.room import judge_namespace, judge_quotas
from kt_net.session.control import Answer, ask
from kt_net.session.home import DEFAULT_NAME, connections, devices

#: For one check: what requests of ours take at most (kt_net.kube.api), on a machine that has other things to do.
SECONDS: Final = 15.0
#: For the kubeconfig: a credential plugin may ask somebody to log in.
LOGIN_SECONDS: Final = 30.0
#: For a connection of this user to say how it is.
CONTROL_SECONDS: Final = 3.0

#: Questions to the API server at one time: each connection costs it a TLS handshake, and most answers take milliseconds.
MOST_AT_ONCE: Final = 6

#: What is looked at in the cluster, in the order of saying.
CLUSTER_CHECKS: Final = (
    "permissions",
    "optional-permissions",
    "namespace",
    "quota",
    "network-policies",
    "routes",
    "cluster-leftovers",
)

Check = Callable[[], list[Finding]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user means by "the cluster"."""

    kubeconfig: str | None
    context: str | None
    namespace: str | None


def examine(asked: Asked, machine: Machine, *, seconds: float = SECONDS) -> Iterator[Finding]:
    """Findings as they come, in an order that does not change. Raises nothing of ours.

    Args:
        seconds: for each check.
    """
    loading = _Begun("kubeconfig", lambda: _load(asked), max(seconds, LOGIN_SECONDS))
    talking = _Begun("connection", lambda: _connections(machine), seconds)
    yield from judge_machine(machine)
    yield from talking.findings()
    yield from loading.findings()
    if loading.value is None:
        yield from _all_skipped(("api-server", "clock", "credentials", *CLUSTER_CHECKS), "no cluster to ask")
        return
    # Routes of connections to this cluster are no conflict, nor are those of connections of which nothing is known.
    others = {device for device, cluster in (talking.value or {}).items() if cluster != loading.value.server}
    yield from _cluster(loading.value, machine, {*machine.devices} - others, seconds)


def connected(answer: Answer, name: str = DEFAULT_NAME) -> Finding:
    """What a running connection said of itself (`status` of the control socket). Pure."""
    stats = answer.get("stats")
    named = "" if name == DEFAULT_NAME else f"{name}: "
    if not isinstance(stats, dict):
        return ok("connection", f"{named}process {answer.get('pid')} is bringing one up")
    words = f"{named}process {answer.get('pid')}, {stats.get('device')}, to cluster {stats.get('cluster')}, pod {stats.get('pod')}"
    agent = stats.get("agent")
    ping = agent.get("ping") if isinstance(agent, dict) else None
    if ping == []:
        return warning(
            "connection",
            f"{words}; the agent may not open ping sockets: ping gets no answer, TCP and UDP do",
            "ask an administrator to allow the sysctl net.ipv4.ping_group_range in this namespace",
        )
    pings = ", ".join(map(str, ping)) if isinstance(ping, list) else "unknown"
    return ok("connection", f"{words}; ping sockets: {pings}")


def unconnected(error: NotConnected, name: str = DEFAULT_NAME) -> Finding | None:
    """What it means that a connection of this user does not answer; None: that there is none. Pure."""
    if not isinstance(error.__cause__, TimeoutError):
        return None
    return problem(
        "connection",
        f"a ktctl connect of this user ({name}) runs and does not answer (stopped, or out of memory?)",
        "let it go on (kill -CONT), or end its process and run: ktctl disconnect",
    )


def strangers(devices: Iterable[str]) -> Finding:
    """What it means that there are devices of which no connection of this user knows. Pure."""
    there = list(devices)
    return warning(
        "connection",
        f"{', '.join(there)} {'are' if len(there) > 1 else 'is'} there, of another user or only starting or ending",
        "run it as that user, or: sudo ktctl doctor",
    )


def _connections(machine: Machine) -> tuple[list[Finding], dict[str, str]]:
    """A finding for each, and which API server a device is for."""
    found: list[Finding] = []
    clusters: dict[str, str] = {}
    silent = False
    for name in connections() or [DEFAULT_NAME]:
        try:
            answer = ask("status", name, within=CONTROL_SECONDS)
        except NotConnected as error:
            if (finding := unconnected(error, name)) is not None:
                found.append(finding)
                silent = True
            continue
        found.append(connected(answer, name))
        if isinstance(stats := answer.get("stats"), dict):
            clusters[str(stats.get("device"))] = str(stats.get("server"))
    others = [device for device in machine.devices if device not in clusters]
    if others and not silent:
        found.append(strangers(others))
    return found or [ok("connection", "none")], clusters


class _Begun:
    """One check on a thread of its own. `value` is what it leaves for those that depend on it.

    Args:
        seconds: until its deadline, from now.
        gate: what it waits for first.
    """

    def __init__(
        self, name: str, run: Callable[[], Any], seconds: float, gate: AbstractContextManager[Any] | None = None
    ) -> None:
        self._gate = gate or nullcontext()
        self._name = name
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._found: list[Finding] | None = None
        self.value: Any = None
        self._done = threading.Event()
        # A daemon: one that still waits for an answer must not keep ktctl from ending.
        threading.Thread(target=self._run, args=(run,), name=f"doctor-{name}", daemon=True).start()

    def findings(self) -> list[Finding]:
        """Its findings, at its deadline at the latest."""
        self._done.wait(max(0.0, self._end - time.monotonic()))
        return self._found if self._found is not None else [self._late()]

    def _late(self) -> Finding:
        return problem(
            self._name,
            f"no answer within {self._seconds:g} s",
            "see what kubectl says: kubectl get --raw /version -v=6",
        )

    def _run(self, run: Callable[[], Any]) -> None:
        try:
            with self._gate:
                found = run()
            if isinstance(found, tuple):
                found, self.value = found
        except KtError as error:
            found = [failed(self._name, error)]
        except Exception as error:  # noqa: BLE001 - top frame of the thread; one check that breaks hides no other
            words = f"the check broke ({error!r}): the answer makes no sense, or there is a bug in ktctl"
            found = [problem(self._name, words, "report it, with what ktctl doctor --debug says")]
        self._found = found
        self._done.set()


def failed(check: str, error: KtError) -> Finding:
    """What it means that a check was answered with an error. Pure."""
    words = f"{error.what}: {error.why}" if error.why else error.what
    if isinstance(error, PermissionMissing):
        return skipped(check, error.what)
    return problem(check, words, error.next_step)


def _all_skipped(checks: Iterable[str], why: str) -> Iterator[Finding]:
    return (skipped(check, why) for check in checks)


# -- the cluster


def _load(asked: Asked) -> tuple[list[Finding], Cluster]:
    cluster = load_cluster(kubeconfig=asked.kubeconfig, context=asked.context, namespace=asked.namespace)
    words = f"context {cluster.context}: cluster {cluster.name} at {cluster.server}, namespace {cluster.namespace}"
    return [ok("kubeconfig", words)], cluster


def _cluster(cluster: Cluster, machine: Machine, own: set[str], seconds: float) -> Iterator[Finding]:
    reaching = _Begun("api-server", lambda: _reach(cluster), seconds)
    yield from reaching.findings()
    if reaching.value is None:
        yield from _all_skipped(("clock", "credentials", *CLUSTER_CHECKS), "the API server does not answer")
        return
    api, rejected = reaching.value
    if rejected is not None:
        yield failed("credentials", rejected)
        yield from _all_skipped(CLUSTER_CHECKS, "the credentials are not accepted")
        return
    knowing = _Begun("credentials", lambda: _who(api, cluster), seconds)
    yield from knowing.findings()
    if knowing.value is None:
        yield from _all_skipped(CLUSTER_CHECKS, "the credentials are not accepted")
        return
    yield from _account(api, cluster.namespace, seconds, partial(_routes, api, cluster.namespace, machine, own))


def _reach(cluster: Cluster) -> tuple[list[Finding], tuple[HttpKubeApi, CredentialsRejected | None]]:
    api = HttpKubeApi(cluster)
    try:
        reached = reach(api)
    except CredentialsRejected as error:
        answers = ok("api-server", f"{cluster.server} answers")
        return [answers, judge_clock(api.server_time() - time.time())], (api, error)
    words = (
        f"{cluster.server} answers, {reached.version or 'version not told'}, in {reached.round_trip_s * 1000:.1f} ms"
    )
    return [ok("api-server", words), judge_clock(reached.ahead_s)], (api, None)


def _who(api: HttpKubeApi, cluster: Cluster) -> tuple[list[Finding], str]:
    user = whoami(api)
    name = f"as {user}" if user else f"of {cluster.user}"
    return [ok("credentials", f"accepted, {name}")], name


def _account(api: HttpKubeApi, namespace: str, seconds: float, routes: Check) -> Iterator[Finding]:
    """What depends on nothing but an account; all at once, told in order."""
    begin = partial(_Begun, seconds=seconds, gate=threading.BoundedSemaphore(MOST_AT_ONCE))
    needs = [
        (need, begin("permissions", partial(_may, api, namespace, need)))
        for need in SESSION_NEEDS + PORT_FORWARD_NEEDS + EXEC_NEEDS
    ]
    wishes = [
        (wish, begin("optional-permissions", partial(_may, api, "" if wish.everywhere else namespace, wish.need)))
        for wish in WISHES
    ]
    checks: list[tuple[str, Check]] = [
        ("namespace", lambda: [judge_namespace(api.get("Namespace", "", namespace))]),
        ("quota", lambda: [judge_quotas(api.list("ResourceQuota", namespace))]),
        ("network-policies", lambda: _policies(api, namespace)),
        ("routes", routes),
        ("cluster-leftovers", lambda: [_remains(api, namespace)]),
    ]
    others = [begin(name, check) for name, check in checks]
    unanswered = [found for _, begun in (*needs, *wishes) for found in begun.findings()]
    if unanswered:
        yield unanswered[0]  # the others say the same
    else:
        yield from judge_needs([need for need, begun in needs if not begun.value], namespace)
        yield from judge_wishes([wish for wish, begun in wishes if not begun.value], namespace)
    for begun in others:
        yield from begun.findings()


def _may(api: HttpKubeApi, namespace: str, need: Need) -> tuple[list[Finding], bool]:
    return [], allowed(api, namespace, need)


def _routes(api: HttpKubeApi, namespace: str, machine: Machine, own: set[str]) -> list[Finding]:
    return judge_routes(detect_ranges(api, namespace).all(), own, machine.routes, devices())


def _policies(api: HttpKubeApi, namespace: str) -> list[Finding]:
    # Of the labels that differ from session to session only the keys matter here.
    labels = pod_labels(f"{SHADOW_PREFIX}xxxxx", "x")
    return [judge_policies(list(api.list("NetworkPolicy", namespace)), labels, namespace)]


def _remains(api: HttpKubeApi, namespace: str) -> Finding:
    pods = list(api.list("Pod", namespace, selector=SELECTOR))
    try:
        leases = list(api.list("Lease", namespace, selector=SELECTOR))
        jobs = list(api.list("Job", namespace, selector=SELECTOR))
    except PermissionMissing as error:
        return judge_unknown(pods, error.what)
    objects: dict[str, list[Object]] = {"Pod": pods, "Lease": leases, "Job": jobs}
    # Only a real KT Connect makes Deployments; of the user's we read what is exchanged.
    for kind in ("Service", "Deployment", "StatefulSet"):
        with contextlib.suppress(PermissionMissing, ObjectMissing):
            objects[kind] = list(api.list(kind, namespace))
    return judge_remains(objects, namespace=namespace, now=api.server_time())
