"""A user with only deploy/developer-role.yaml: what they can, that they need all of it, and that what is missing is named."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kt_net.kube.permissions import PORT_FORWARD_NEEDS, PREVIEW_NEEDS, SESSION_NEEDS
from tests.cluster.asking import found
from tests.cluster.backend import HereBackend, LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl, ktctl
from tests.cluster.local import Hello, program
from tests.cluster.test_exchange import as_it_was, exchange, wait_says
from tests.cluster.test_guards import AGENT_SECONDS, COLLECTOR_SECONDS, kill, watchdog_pid

MANIFEST = Path(__file__).parents[2] / "deploy" / "developer-role.yaml"
USER = "developer"
#: A lease is renewed so often.
RENEWED = 40.0

#: (verb, resource with its subresource)
Right = tuple[str, str]


def manifest(kind: str) -> dict[str, Any]:
    """The object of that kind in the file."""
    (one,) = (part for part in yaml.safe_load_all(MANIFEST.read_text()) if part["kind"] == kind)
    found: dict[str, Any] = one
    return found


def rights(kind: str) -> set[Right]:
    """What the rules of the file's Role or ClusterRole allow."""
    return {
        (verb, resource) for rule in manifest(kind)["rules"] for verb in rule["verbs"] for resource in rule["resources"]
    }


def without(right: Right | None, kind: str = "Role") -> dict[str, Any]:
    """The Role (or ClusterRole), less one right."""
    role = manifest(kind)
    rules = []
    for rule in role["rules"]:
        for resource in rule["resources"]:
            verbs = [verb for verb in rule["verbs"] if (verb, resource) != right]
            if verbs:
                rules.append({"apiGroups": rule["apiGroups"], "resources": [resource], "verbs": verbs})
    return {**role, "rules": rules}


@pytest.fixture
def developer(lab: LabBackend, variant: Callable[..., str]) -> Iterator[str]:
    """The kubeconfig of a user with the Role; bound in `default`, as it is without the cluster-wide reads."""
    config = variant(user=lab.credentials(USER))
    give(lab, None)
    lab.kubectl("delete", "rolebinding", USER, "-n", "default", "--ignore-not-found")
    lab.kubectl("create", "rolebinding", USER, "-n", "default", "--role=ktctl-developer", f"--user={USER}")
    yield config
    lab.kubectl("delete", "rolebinding", USER, "-n", "default")
    lab.kubectl("delete", "clusterrolebinding", USER, "--ignore-not-found")
    lab.kubectl("delete", "role", "ktctl-developer", "-n", "default")


def give(lab: LabBackend, less: Right | None) -> None:
    """The Role, less one right."""
    lab.kubectl("delete", "role", "ktctl-developer", "-n", "default", "--ignore-not-found")
    lab.kubectl("create", "-n", "default", "-f", "-", given=json.dumps(without(less)))


def used(lab: LabBackend, since: int, user: str = USER) -> set[Right]:
    """What the user was allowed, by the API server's audit log behind `since`."""
    found: set[Right] = set()
    with open(lab.lab.audit_log, "rb") as file:
        file.seek(since)
        for line in file:
            event = json.loads(line)
            about = event.get("objectRef") or {}
            if event["user"]["username"] == user and event.get("responseStatus", {}).get("code", 0) < 400:
                resource = about.get("resource", "")
                found.add((event["verb"], "/".join(filter(None, (resource, about.get("subresource", ""))))))
    return found


def test_the_role_is_enough_and_nothing_in_it_is_unused(lab: LabBackend, developer: str) -> None:
    """Everything but `create` of pods/portforward, which Kubernetes asks for from 1.35 on, is seen in the audit log."""
    since = lab.lab.audit_log.stat().st_size
    flags = (
        "--kubeconfig",
        developer,
        "--image",
        lab.python_image,
        "--dns-mode",
        "hosts",
        "--ingress-ip",
        "192.0.2.80",
    )
    with Ktctl(lab, "connect", *flags) as running:
        running.wait_ready()
        assert found(lab, "echo")
        lab.kubectl("delete", "pod", running.ready["pod"], "--wait=false")
        previewed = {(need.verb, need.resource) for need in PREVIEW_NEEDS}
        wanted = rights("Role") - {("create", "pods/portforward")} - previewed
        later = {("delete", "jobs"), ("get", "deployments"), ("get", "statefulsets"), ("get", "serviceaccounts")}
        later |= {("list", resource) for resource in ("jobs", "leases", "deployments", "statefulsets")}
        limit = time.monotonic() + RENEWED
        while not wanted <= used(lab, since) | later:
            assert time.monotonic() < limit, wanted - used(lab, since)
            time.sleep(0.5)
        assert found(lab, "echo")
        for target in ("svc/web", "deployment/web", "statefulset/redis"):
            with Ktctl(
                lab, "forward", target, "0:" + ("redis" if "redis" in target else "http"), *flags[:4]
            ) as forwarding:
                forwarding.wait_ready()
    with Ktctl(lab, "preview", "roles", "--expose", "8080", *flags[:4]) as running:
        running.wait_ready()
        lab.kubectl("delete", "pod", "-l", "kt-role=shadow-preview", "--wait=false")
        limit = time.monotonic() + RENEWED
        while ("patch", "services") not in used(lab, since):
            assert time.monotonic() < limit
            time.sleep(0.5)
    restorer = MANIFEST.with_name("restorer.yaml")
    lab.kubectl("apply", "-f", str(restorer))
    with Ktctl(lab, "exchange", "web", "--expose", "8080:80", *flags[:4]) as running:
        assert running.wait_ready()["services"][0]["nets"] == ["client", "watchdog", "agent"]
        code, answer = ktctl(lab, "clean", *flags[:2])
        assert (code, answer["cleaned"]) == (0, [])
        assert any("ConfigMaps are not looked at" in line for line in answer["unread"])
        assert ktctl(lab, "recover", "web", *flags[:2])[0] == 0
        running.wait_ended()
    lab.kubectl("delete", "-f", str(restorer))
    wanted |= previewed
    assert wanted == rights("Role") - {("create", "pods/portforward")}
    assert wanted <= used(lab, since), wanted - used(lab, since)
    wait_nothing_of_ours(lab)


def test_the_clusters_reads_are_used(lab: LabBackend, developer: str) -> None:
    lab.kubectl("apply", "-f", "-", given=json.dumps(manifest("ClusterRole")))
    lab.kubectl("create", "clusterrolebinding", USER, "--clusterrole=ktctl-developer-reads", f"--user={USER}")
    since = lab.lab.audit_log.stat().st_size
    with Ktctl(lab, "connect", "--kubeconfig", developer, "--image", lab.python_image) as running:
        running.wait_ready()
        assert {lab.lab.instance.pods4, lab.lab.instance.pods6} <= set(running.ready["routes"])
        limit = time.monotonic() + RENEWED
        wanted = rights("ClusterRole") - {("list", "services")}  # for a cluster without ServiceCIDRs
        while not wanted <= used(lab, since):
            assert time.monotonic() < limit, wanted - used(lab, since)
            time.sleep(0.5)
    lab.kubectl("delete", "clusterrole", "ktctl-developer-reads")
    wait_nothing_of_ours(lab)


NEEDED = sorted(
    {
        (need.verb, need.resource + f"/{need.subresource}" * bool(need.subresource))
        for need in SESSION_NEEDS + PORT_FORWARD_NEEDS
    }
)


@pytest.mark.parametrize("right", NEEDED, ids=" ".join)
def test_what_is_taken_away_is_named_by_connect(lab: LabBackend, developer: str, right: Right) -> None:
    give(lab, right)
    arguments = ("--kubeconfig", developer, "--image", lab.python_image)
    code, answer = ktctl(lab, "connect", *arguments)
    assert (code, answer["error"]["class"]) == (14, "PermissionMissing")
    assert answer["error"]["what"] == f"no permission to {' '.join(right)} in namespace default"


@pytest.mark.parametrize("verb", [need.verb for need in PREVIEW_NEEDS])
def test_what_is_taken_away_is_named_by_preview(lab: LabBackend, developer: str, verb: str) -> None:
    give(lab, (verb, "services"))
    code, answer = ktctl(lab, "preview", "roles", "--expose", "8080", "--kubeconfig", developer)
    assert (code, answer["error"]["class"]) == (14, "PermissionMissing")
    assert answer["error"]["what"] == f"no permission to {verb} services in namespace default"


def test_all_that_is_needed_is_in_the_role() -> None:
    assert set(NEEDED) <= rights("Role")
    explained = {"services", "events", "endpointslices", "ingresses", "deployments", "statefulsets", "serviceaccounts"}
    explained |= {"jobs", "leases"}
    assert {resource for _, resource in rights("Role") - set(NEEDED)} == explained


def test_exchange_without_any_account_for_the_agent(lab: LabBackend, developer: str) -> None:
    """Two nets, and that is said; what mode scale needs is named."""
    arguments = ("--kubeconfig", developer, "--image", lab.python_image)
    with Ktctl(lab, "exchange", "web", "--expose", "8080:80", *arguments) as running:
        assert running.wait_ready()["services"][0]["nets"] == ["client", "watchdog"]
    assert "deploy/restorer.yaml" in running.said
    code, answer = ktctl(lab, "exchange", "web", "--expose", "8080:80", "--mode", "scale", *arguments)
    assert (code, answer["error"]["class"]) == (14, "PermissionMissing")
    assert "patch deployments/scale" in answer["error"]["what"]
    wait_nothing_of_ours(lab)


@pytest.mark.parametrize("verb", ["get", "patch", "list", "watch"])
def test_what_is_taken_away_is_named_by_exchange(lab: LabBackend, developer: str, verb: str) -> None:
    give(lab, (verb, "services"))
    code, answer = ktctl(lab, "exchange", "web", "--expose", "8080:80", "--kubeconfig", developer)
    assert (code, answer["error"]["class"]) == (14, "PermissionMissing")
    assert answer["error"]["what"] == f"no permission to {verb} services in namespace default"


def test_the_workloads_role_is_enough_for_mode_scale(lab: LabBackend, developer: str) -> None:
    file = MANIFEST.with_name("developer-workloads.yaml")
    lab.kubectl("apply", "-f", str(file))
    lab.kubectl("create", "rolebinding", "workloads", "--role=ktctl-developer-workloads", f"--user={USER}")
    arguments = ("--kubeconfig", developer, "--image", lab.python_image)
    since = lab.lab.audit_log.stat().st_size
    try:
        for target in ("deployment/web", "sts/redis"):
            port = "8080:80" if "web" in target else "8080:6379"
            with Ktctl(lab, "exchange", target, "--expose", port, "--mode", "scale", *arguments) as running:
                running.wait_ready()
        for target in ("web", "redis"):
            assert ktctl(lab, "recover", target, *arguments[:2])[0] == 0
    finally:
        lab.kubectl("delete", "rolebinding", "workloads")
        lab.kubectl("delete", "-f", str(file))
    for what in ("deploy/web", "sts/redis"):
        lab.kubectl("rollout", "status", what, "--timeout=60s")
    rules = yaml.safe_load(file.read_text())["rules"]
    wanted = {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
    wanted -= {("patch", "replicasets")}  # only where a Deployment's controller has been quick enough to copy something
    assert wanted <= used(lab, since), wanted - used(lab, since)
    wait_nothing_of_ours(lab)


def test_the_restorers_role_is_enough_for_the_agents_and_nothing_in_it_is_unused(
    lab: LabBackend, developer: str
) -> None:
    """Clients and watchdogs are killed; the agents of one Service and two workloads are an administrator's account."""
    files = [MANIFEST.with_name(name) for name in ("developer-workloads.yaml", "restorer.yaml")]
    for file in files:
        lab.kubectl("apply", "-f", str(file))
    lab.kubectl("create", "rolebinding", "workloads", "--role=ktctl-developer-workloads", f"--user={USER}")
    targets = [
        ("service", "web", "8080:80", "selector"),
        ("deployment", "echo", "8080:7", "scale"),
        ("statefulset", "redis", "8080:6379", "scale"),
    ]
    before = [as_it_was(lab, name, kind) for kind, name, _, _ in targets]
    since = lab.lab.audit_log.stat().st_size
    try:
        with contextlib.ExitStack() as stack:
            doomed: list[int] = []
            for kind, name, port, mode in targets:
                words = ("exchange", f"{kind}/{name}", "--expose", port, "--mode", mode)
                running = Ktctl(lab, *words, "--kubeconfig", developer, "--image", lab.python_image)
                assert stack.enter_context(running).wait_ready()["services"][0]["nets"] == [
                    "client",
                    "watchdog",
                    "agent",
                ]
                doomed += [watchdog_pid(running), running.process.pid]
            kill(*doomed)
            limit = time.monotonic() + AGENT_SECONDS
            while [as_it_was(lab, name, kind) for kind, name, _, _ in targets] != before:
                assert time.monotonic() < limit
                time.sleep(0.2)
    finally:
        lab.kubectl("delete", "rolebinding", "workloads")
        for file in files:
            lab.kubectl("delete", "-f", str(file))
    (role,) = (part for part in yaml.safe_load_all(files[1].read_text()) if part["kind"] == "Role")
    wanted = {(verb, resource) for rule in role["rules"] for verb in rule["verbs"] for resource in rule["resources"]}
    assert wanted == used(lab, since, "system:serviceaccount:default:ktctl-restorer")
    for what in ("deploy/echo", "sts/redis"):
        lab.kubectl("rollout", "status", what, "--timeout=60s")
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)
    # What the Deployment's controller has copied to its ReplicaSets is not the agent's to take off.
    code, answer = ktctl(HereBackend(lab), "clean", "--kubeconfig", str(lab.kubeconfig))
    assert code == 0
    assert {one["inverse"] for one in answer["cleaned"]} <= {"annotation removed"}
    assert "kt-record" not in lab.kubectl("get", "replicasets", "-o", "json")


def test_the_ephemeral_role_is_enough_for_mode_ephemeral(lab: LabBackend, developer: str) -> None:
    """Whether another's guest lives is asked only where one is."""
    file = MANIFEST.with_name("developer-ephemeral.yaml")
    lab.kubectl("apply", "-f", str(file))
    lab.kubectl("create", "rolebinding", "guests", "--role=ktctl-developer-ephemeral", f"--user={USER}")
    arguments = ("--expose", "8080:80", "--mode", "ephemeral", "--kubeconfig", developer, "--image", lab.python_image)
    since = lab.lab.audit_log.stat().st_size
    try:
        for _ in range(2):  # the second finds the first one's guests, which end
            with Ktctl(lab, "exchange", "web", *arguments) as running:
                running.wait_ready()
                code, answer = ktctl(lab, "exchange", "web", *arguments)
                assert (code, answer["error"]["class"]) == (26, "Exchanged")
    finally:
        lab.kubectl("delete", "rolebinding", "guests")
        lab.kubectl("delete", "-f", str(file))
    code, answer = ktctl(lab, "exchange", "web", *arguments)
    assert (code, answer["error"]["class"]) == (14, "PermissionMissing")
    assert "patch pods/ephemeralcontainers" in answer["error"]["what"]
    rules = yaml.safe_load(file.read_text())["rules"]
    wanted = {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
    assert wanted <= used(lab, since), wanted - used(lab, since)
    lab.kubectl("rollout", "restart", "deploy/web")  # guests stay in the list of a pod's containers
    lab.kubectl("rollout", "status", "deploy/web", "--timeout=90s")
    wait_nothing_of_ours(lab)


def test_a_living_session_is_not_touched_by_others_who_clean_all_the_time(lab: LabBackend, developer: str) -> None:
    """For longer than a Lease holds; previews and exchanges; by the administrator, and by a developer who may do no more than the Role."""
    over = threading.Event()
    said: list[dict[str, Any]] = []

    here = HereBackend(lab)

    def keep_cleaning() -> None:
        while not over.is_set():
            said.extend(ktctl(here, "clean", "--kubeconfig", config)[1] for config in (str(lab.kubeconfig), developer))

    flags = ("--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image)
    with program(Hello) as port, exchange(lab, "web", "--expose", f"{port}:80") as running:
        running.wait_ready()
        with Ktctl(here, "preview", "mine", "--expose", f"{port}:80", *flags) as preview:
            preview.wait_ready()
            cleaner = threading.Thread(target=keep_cleaning)
            cleaner.start()
            time.sleep(40)
            over.set()
            cleaner.join()
            assert running.process.poll() is None
            assert preview.process.poll() is None
            wait_says(lab, "from the laptop", "web")
            wait_says(lab, "from the laptop", "mine")
    assert said
    assert all(one["cleaned"] == [] for one in said), said
    assert any("service/web: exchanged by" in line for line in said[0]["live"])
    wait_nothing_of_ours(lab, COLLECTOR_SECONDS)
