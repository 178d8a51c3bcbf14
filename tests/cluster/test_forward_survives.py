"""`ktctl forward deployment/X` while its pods are deleted one by one, under load."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.cluster.backend import HereBackend, LabBackend
from tests.cluster.ktctl import Ktctl
from tests.cluster.requests import PIPELINE, Asker, Benchmarks

REPLICAS = 3
ASKERS = 12
#: Between two deletions: everything has to go on meanwhile.
PAUSE = 2.0


def redis_deployment(replicas: int) -> dict[str, Any]:
    """The lab's Redis, several times."""
    container = {
        "name": "redis",
        "image": "docker.io/ktnet-lab/redis:1",
        "imagePullPolicy": "Never",
        "ports": [{"name": "redis", "containerPort": 6379}],
        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
    }
    labels = {"app": "many"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]},
            },
        },
    }


def test_pods_are_deleted_one_by_one_under_load(lab: LabBackend, namespace: Callable[..., str]) -> None:
    place = namespace()
    lab.kubectl("create", "-n", place, "-f", "-", given=json.dumps(redis_deployment(REPLICAS)))
    lab.kubectl("rollout", "status", "-n", place, "deployment/many", "--timeout=90s")
    pods = lab.kubectl("get", "pods", "-n", place, "-o", "jsonpath={.items[*].metadata.name}").split()
    assert len(pods) == REPLICAS
    arguments = ("-n", place, "--kubeconfig", str(lab.kubeconfig), "--image", lab.python_image)
    with Ktctl(HereBackend(lab), "forward", "deployment/many", "0:redis", *arguments) as running:
        port = running.wait_ready()["port"]
        askers, benchmarks, stop = [Asker(port) for _ in range(ASKERS)], Benchmarks(port), threading.Event()
        threads = [threading.Thread(target=run, args=(stop,)) for run in (*(one.run for one in askers), benchmarks.run)]
        for thread in threads:
            thread.start()
        try:
            for pod in pods:
                time.sleep(PAUSE)
                before = [one.answered for one in askers]
                lab.kubectl("delete", "pod", "-n", place, pod)
                lab.kubectl("rollout", "status", "-n", place, "deployment/many", "--timeout=60s")
                limit = time.monotonic() + 20
                while any(one.answered == count for one, count in zip(askers, before, strict=True)):
                    assert time.monotonic() < limit, "somebody gets no answers any more"
                    time.sleep(0.05)
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert benchmarks.once()
    losses = [loss for one in askers for loss in one.losses]
    assert not [wrong for one in askers for wrong in one.wrong]
    # Of each deletion a connection notices at most one: afterwards it is at a pod that stays.
    assert all(len(one.losses) <= REPLICAS for one in askers)
    assert all(loss.unanswered <= PIPELINE for loss in losses)
    known = [(number, loss.run_id) for number, one in enumerate(askers) for loss in one.losses if loss.run_id]
    assert len(set(known)) == len(known)
    assert len({run_id for _, run_id in known}) <= REPLICAS
    # A run ends at its first connection that is cut; the next one is at pods that stay.
    assert len(benchmarks.failed) <= REPLICAS, benchmarks
