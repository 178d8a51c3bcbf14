"""What has to answer once connected: the rows of the demo's table, and of a test.

Not here: running them (inside.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.cluster.backend import Backend

INSIDE = Path(__file__).with_name("inside.py")


@dataclass(frozen=True)
class Probe:
    """One row: what is done (a function of inside.py) to what."""

    title: str
    kind: str
    target: str
    port: int = 0


def probes(backend: Backend) -> list[Probe]:
    """All rows, with the cluster's addresses as they are now."""
    pod4, pod6 = pod_addresses(backend, "app=web")
    cluster4, cluster6 = service_addresses(backend, "web")
    rows = [
        Probe("pod IPv4", "http", pod4, 8080),
        Probe("pod IPv6", "http", pod6, 8080),
        Probe("ClusterIP v4", "http", cluster4, 80),
        Probe("ClusterIP v6", "http", cluster6, 80),
        Probe("web", "http", "web", 80),
        Probe("web.default", "http", "web.default", 80),
        Probe("web.default.svc", "http", "web.default.svc", 80),
        Probe("web.default.svc.cluster.local", "http", "web.default.svc.cluster.local", 80),
        Probe("StatefulSet pod's name", "name", "redis-0.redis.default.svc.cluster.local"),
        Probe("Redis PING by name", "redis", "redis-0.redis", 6379),
        Probe("UDP echo by name", "udp", "echo", 7),
        Probe("TCP echo, half-close", "tcp", "echo", 7),
        Probe("ping of a pod", "ping", pod4),
        Probe("ping of a pod, IPv6", "ping", pod6),
        Probe("ping of a pod that is not there", "no_ping", unused_address(pod4)),
        Probe("closed port", "refused", pod4, 81),
        Probe("name that is not there", "no_name", "nothing.default.svc.cluster.local"),
    ]
    if backend.outside:
        rows.append(Probe("name outside the cluster", "http", backend.outside, 80))
    return [row for row in rows if row.target]


def pod_addresses(backend: Backend, selector: str) -> tuple[str, str]:
    """(IPv4, IPv6) of the first pod; "" for a family that it lacks."""
    pods = json.loads(backend.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    running = [
        pod for pod in pods if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    return _families([entry["ip"] for entry in running[0]["status"]["podIPs"]])


def service_addresses(backend: Backend, name: str) -> tuple[str, str]:
    """(IPv4, IPv6) of a Service."""
    return _families(json.loads(backend.kubectl("get", "service", name, "-o", "json"))["spec"]["clusterIPs"])


def unused_address(pod4: str) -> str:
    """An address of the pods' range that no pod has."""
    return f"{pod4.rpartition('.')[0]}.250" if pod4 else ""


def _families(addresses: list[str]) -> tuple[str, str]:
    return (
        next((address for address in addresses if ":" not in address), ""),
        next((address for address in addresses if ":" in address), ""),
    )


def run_probes(backend: Backend, rows: list[Probe]) -> list[dict[str, Any]]:
    """Their results, from the machine under test."""
    command = backend.laptop_argv([sys.executable, str(INSIDE), json.dumps([asdict(row) for row in rows])])
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    answers: list[dict[str, Any]] = json.loads(result.stdout)
    return answers
