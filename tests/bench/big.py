"""`make bench-big`: what a big cluster costs at the start (root; the lab): 5,000 Services and 10,000 pods, objects only.

Three accounts: one that may read everything (ranges are told by ServiceCIDRs and nodes), one that may list Services and pods of all
namespaces, and one with deploy/developer-role.yaml in the one namespace that has them all. For each: the time that the question for ranges
takes in a process of its own, and the most that `ktctl connect` has resident until it is there and follows what may change. Three runs,
medians (lowest to highest); figures go to build/big.json.

Not here: the objects (tests/cluster/crowd.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.stack import spread
from tests.cluster.backend import LabBackend
from tests.cluster.crowd import crowd
from tests.cluster.ktctl import Ktctl

RUNS = 3
SERVICES, PODS = 5000, 10_000
AFTERWARDS = 8.0
ROLE = Path(__file__).parents[2] / "deploy" / "developer-role.yaml"
ACCOUNTS = ("everything", "addresses", "namespace")
OUTPUT = Path("build/big.json")

Figures = dict[str, Any]


def peak_mb(pid: int | str) -> float:
    """The most that a process has had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{pid}/status says nothing of VmHWM")


def detect(kubeconfig: str, namespace: str) -> Figures:
    """Ask for the ranges, in this process."""
    from kt_net.kube.api import HttpKubeApi
    from kt_net.kube.config import load_cluster
    from kt_net.kube.ranges import detect_ranges

    api = HttpKubeApi(load_cluster(kubeconfig=kubeconfig, namespace=namespace))
    started, used = time.monotonic(), time.process_time()
    ranges = detect_ranges(api, namespace)
    return {
        "seconds": time.monotonic() - started,
        "cpu_s": time.process_time() - used,
        "peak_mb": peak_mb("self"),
        "pods_from": ranges.pods_from,
        "services_from": ranges.services_from,
    }


@contextlib.contextmanager
def accounts(lab: LabBackend, namespace: str, folder: Path) -> Iterator[dict[str, str]]:
    """Their kubeconfigs."""
    found = {"everything": str(lab.kubeconfig)}
    lab.kubectl("apply", "-n", namespace, "-f", str(ROLE))
    for name in ACCOUNTS[1:]:
        config = json.loads(lab.kubeconfig.read_text())
        config["users"][0]["user"] = lab.credentials(name)
        found[name] = str(folder / f"{name}.conf")
        Path(found[name]).write_text(json.dumps(config))
        lab.kubectl("create", "rolebinding", name, "-n", namespace, "--role=ktctl-developer", f"--user={name}")
    wide = ("--verb=list", "--resource=pods,services")
    try:
        lab.kubectl("create", "clusterrole", "ktnet-addresses", *wide)
        lab.kubectl(
            "create", "clusterrolebinding", "ktnet-addresses", "--clusterrole=ktnet-addresses", "--user=addresses"
        )
        yield found
    finally:
        for kind, name in (("clusterrolebinding", "ktnet-addresses"), ("clusterrole", "ktnet-addresses")):
            lab.kubectl("delete", kind, name, "--ignore-not-found")
        lab.kubectl("delete", "clusterrole", "ktctl-developer-reads", "--ignore-not-found")
        for name in ACCOUNTS[1:]:
            Path(found[name]).unlink(missing_ok=True)


def measure(lab: LabBackend, name: str, kubeconfig: str, namespace: str) -> Figures:
    """One run of one account."""
    command = [sys.executable, "-m", "tests.bench.big", "detect", kubeconfig, namespace]
    out = subprocess.run(lab.laptop_argv(command), stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout
    found: Figures = json.loads(out)
    print(
        f"  {name}: {found['seconds']:.2f} s, {found['peak_mb']:.0f} MB; "
        f"{found['pods_from']}, {found['services_from']}",
        flush=True,
    )
    flags = ("--kubeconfig", kubeconfig, "-n", namespace, "--image", lab.python_image)
    with Ktctl(lab, "connect", *flags) as running:
        running.wait_ready()
        found["connect_s"] = time.monotonic() - running.started
        time.sleep(AFTERWARDS)  # what is followed is listed once more, beside the programs' traffic
        found["connect_peak_mb"] = peak_mb(running.process.pid)
    print(f"  {name}: connected after {found['connect_s']:.2f} s, {found['connect_peak_mb']:.0f} MB", flush=True)
    return found


def report(runs: dict[str, list[Figures]], load: tuple[float, float, float]) -> Figures:
    """What is written."""
    numbers = ("seconds", "cpu_s", "peak_mb", "connect_s", "connect_peak_mb")
    return {
        "services": SERVICES,
        "pods": PODS,
        "accounts": {
            name: {
                **{number: spread([run[number] for run in of]) for number in numbers},
                "pods_from": of[0]["pods_from"],
                "services_from": of[0]["services_from"],
            }
            for name, of in runs.items()
        },
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "load": {
            "before": load,
            "after": os.getloadavg(),
            "processors": os.cpu_count(),
            "python": sys.version.split()[0],
        },
    }


def stop(number: int, frame: object) -> None:
    """Whoever ends us wants the objects gone as well."""
    raise SystemExit(130)


def main() -> None:
    """See above."""
    if sys.argv[1:2] == ["detect"]:
        print(json.dumps(detect(*sys.argv[2:4])))
        return
    signal.signal(signal.SIGTERM, stop)
    lab = LabBackend()
    lab.up()
    load, runs = os.getloadavg(), {name: list[Figures]() for name in ACCOUNTS}
    OUTPUT.parent.mkdir(exist_ok=True)
    print(f"making {SERVICES} Services and {PODS} pods: some minutes", flush=True)
    with crowd(lab, services=SERVICES, pods=PODS) as namespace, accounts(lab, namespace, OUTPUT.parent) as configs:
        time.sleep(5)  # controllers have looked at them all
        for number in range(RUNS):
            print(f"run {number + 1} of {RUNS}", flush=True)
            for name in ACCOUNTS:
                runs[name].append(measure(lab, name, configs[name], namespace))
    OUTPUT.write_text(json.dumps(report(runs, load), indent=1) + "\n")
    print(OUTPUT)


if __name__ == "__main__":
    main()
