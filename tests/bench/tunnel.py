"""`make bench`: the tunnel against `kubectl port-forward`, from the lab's laptop, everything side by side in one run (root; the lab).

Four ways to one pod: through the TUN of `ktctl connect`; `kubectl port-forward`; one plain port-forward websocket; and straight from
the node, which is the limit. Figures go to build/bench.json: three runs, median and spread; each ratio is ours / kubectl's of the same
run. `python -m tests.bench.tunnel profile down|up FLOWS` says where the client's time goes, and whose the processors are meanwhile.

Not here: the pod's side (far.py), one measurement (near.py, carriers.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.stack import spread
from tests.cluster.backend import LabBackend
from tests.cluster.ktctl import Ktctl

RUNS = 3
POD = "bench"
NAMESPACE = "default"
NEAR = Path(__file__).with_name("near.py")
FAR = Path(__file__).with_name("far.py")
OCTETS = 256 << 20
FLOWS = (1, 4, 16)
WAYS = ("down", "up")
EXCHANGES = 2000
CONNECTS = 2000
AT_ONCE = 32
IDLE_FLOWS = 10_000
QUESTIONS = 500
ANSWERS = 10_000
NAME = "echo.default.svc.cluster.local"
#: kubectl's local ports for the pod's.
LOCAL = {9000: 19000, 7000: 17000}
KUBECTL = ["kubectl", "port-forward", "-n", NAMESPACE, f"pod/{POD}", *(f"{at}:{port}" for port, at in LOCAL.items())]
OUTPUT = Path("build/bench.json")
#: MB/s that kubectl has had on such a machine: outside by more than 15 % is said.
EXPECTED = {"kubectl.down_1": (114, 121), "kubectl.up_1": (100, 107)}

Figures = dict[str, Any]


class Target:
    """One way to the pod: how its programs are started, and where they dial."""

    def __init__(self, name: str, argv: Any, host: str, ports: dict[int, int]) -> None:
        self.name = name
        self._argv = argv
        self.host = host
        self.ports = ports

    def run(self, what: str, **arguments: Any) -> Figures:
        """One measurement of near.py."""
        with self.begin(what, **arguments) as process:
            out, _ = process.communicate(timeout=600)
        if process.returncode:
            raise RuntimeError(f"{self.name}: {what} {arguments} failed")
        found: Figures = json.loads(out.splitlines()[-1])
        return found

    def begin(self, what: str, **arguments: Any) -> subprocess.Popen[str]:
        """The same, not waited for."""
        program = [sys.executable, str(NEAR), what, json.dumps(arguments)]
        return subprocess.Popen(
            self._argv(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", env=os.environ
        )


class Watched:
    """A process whose time and memory are read."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def cpu(self) -> float:
        """Seconds so far."""
        fields = (self._folder / "stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """MB."""
        words = (self._folder / "statm").read_text().split()
        return int(words[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def agent_pid() -> int:
    """Of the only agent there is."""
    found = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and b"agent.pyz" in _command_line(entry)
    ]
    assert len(found) == 1, found
    return found[0]


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@contextlib.contextmanager
def pod(lab: LabBackend) -> Iterator[str]:
    """The far side; its address."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": NAMESPACE},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": POD, "image": lab.python_image, "command": ["python3", "-c", FAR.read_text()]},
            ],
        },
    }
    lab.kubectl("delete", "pod", POD, "-n", NAMESPACE, "--ignore-not-found", "--wait=true")
    lab.kubectl("create", "-f", "-", given=json.dumps(manifest))
    try:
        lab.kubectl("wait", "-n", NAMESPACE, "--for=condition=Ready", f"pod/{POD}", "--timeout=60s")
        time.sleep(1)
        yield lab.kubectl("get", "pod", POD, "-n", NAMESPACE, "-o", "jsonpath={.status.podIP}")
    finally:
        lab.kubectl("delete", "pod", POD, "-n", NAMESPACE, "--wait=false")


@contextlib.contextmanager
def kubectl(lab: LabBackend) -> Iterator[subprocess.Popen[str]]:
    """`kubectl port-forward`, listening."""
    with subprocess.Popen(
        lab.laptop_argv(KUBECTL), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        try:
            for _ in range(2 * len(LOCAL)):  # a line per port and family
                process.stdout.readline()
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=20)


def node_argv(lab: LabBackend) -> Any:
    """Programs of the node."""
    return lambda command: ["nsenter", f"--net=/run/netns/{lab.lab.instance.node}", *command]


class Run:
    """Everything once."""

    def __init__(self, lab: LabBackend, address: str) -> None:
        self._lab = lab
        self._address = address
        self.found: Figures = {}

    def note(self, name: str, value: float, unit: str) -> None:
        """One figure, said."""
        self.found[name] = value
        print(f"  {name:<28} {value:9.2f} {unit}", flush=True)

    def all(self) -> Figures:
        """See above."""
        same = {9000: 9000, 7000: 7000}
        node = Target("node", node_argv(self._lab), self._address, same)
        started = time.monotonic()
        with Ktctl(self._lab, "connect", "--image", self._lab.python_image) as ours, kubectl(self._lab) as theirs:
            ours.wait_ready()
            tunnel = Target("ours", self._lab.laptop_argv, self._address, same)
            self.note("ours.connect_s", tunnel.run("first_answer", host=self._address, port=7000)["at"] - started, "s")
            forward = Target("kubectl", self._lab.laptop_argv, "127.0.0.1", LOCAL)
            processes = {"ours": [ours.process.pid, agent_pid()], "kubectl": [theirs.pid]}
            self.note("ours.rss_idle_mb", Watched(ours.process.pid).resident(), "MB")
            self.note("kubectl.rss_idle_mb", Watched(theirs.pid).resident(), "MB")
            for way in WAYS:
                # Not measured: the first transfer after a start is slower, by whichever way.
                for target in (tunnel, forward):
                    target.run("bulk", host=target.host, port=target.ports[9000], way=way, flows=1, octets=OCTETS)
            for way in WAYS:
                for flows in FLOWS:
                    for target in (tunnel, forward, node):
                        self._bulk(target, way, flows, processes.get(target.name, []))
                for kind in CARRIERS:
                    self._carrier(kind, way)
            for target in (tunnel, forward, node):
                self._small(target)
            server = ours.ready["resolver"]
            for what, fresh in (("dns", False), ("dns_cluster", True)):
                found = tunnel.run("names", server=server, name=NAME, count=QUESTIONS, fresh=fresh)
                for part in ("p50", "p99"):
                    self.note(f"ours.{what}_{part}_ms", found[part], "ms")
            found = tunnel.run("answers", server=server, name=NAME, count=ANSWERS, at_once=AT_ONCE // 2)
            self.note("ours.dns_answers_s", found["per_s"], "/s")
            self._idle(tunnel, *processes["ours"])
        return self.found

    def _bulk(self, target: Target, way: str, flows: int, pids: list[int]) -> None:
        watched = [Watched(pid) for pid in pids]
        before = [one.cpu() for one in watched]
        name = f"{target.name}.{way}_{flows}"
        found = target.run("bulk", host=target.host, port=target.ports[9000], way=way, flows=flows, octets=OCTETS)
        self.note(name, found["mb_s"], "MB/s")
        for who, one, start in zip(("client", "agent"), watched, before, strict=False):
            self.note(f"{name}.{who}_cpu_s_gb", (one.cpu() - start) / OCTETS * 1e9, "s/GB")
        if watched and flows == 4:
            self.note(f"{name}.rss_busy_mb", watched[0].resident(), "MB")

    def _carrier(self, kind: str, way: str) -> None:
        command = [sys.executable, "-m", "tests.bench.carriers", kind, NAMESPACE, POD, way, str(OCTETS)]
        out = subprocess.run(self._lab.laptop_argv(command), stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(out)
        self.note(f"{kind}.{way}", found["mb_s"], "MB/s")
        self.note(f"{kind}.{way}.cpu_s_gb", found["cpu_s_gb"], "s/GB")

    def _small(self, target: Target) -> None:
        port, bulk_port = target.ports[7000], target.ports[9000]
        for part, value in target.run("rtt", host=target.host, port=port, count=EXCHANGES).items():
            if part in ("p50", "p99"):
                self.note(f"{target.name}.rtt_{part}_ms", value, "ms")
        for way in WAYS:
            found = target.run(
                "rtt_under_bulk", host=target.host, port=port, bulk_port=bulk_port, way=way, octets=OCTETS
            )
            for part in ("p50", "p99"):
                self.note(f"{target.name}.rtt_under_{way}_{part}_ms", found[part], "ms")
        found = target.run("connects", host=target.host, port=port, count=CONNECTS, at_once=AT_ONCE)
        self.note(f"{target.name}.connects_s", found["per_s"], "/s")
        if found["failed"]:
            self.note(f"{target.name}.connects_failed", found["failed"], "")

    def _idle(self, target: Target, client: int, agent: int) -> None:
        watched = {"client": Watched(client), "agent": Watched(agent)}
        before = {who: one.resident() for who, one in watched.items()}
        with target.begin("idle", host=target.host, port=7000, count=IDLE_FLOWS) as process:
            assert process.stdout is not None
            held = json.loads(process.stdout.readline())["held"]
            self.note("ours.idle_held", held, "flows")
            for who, one in watched.items():
                self.note(f"ours.idle_{who}_kb", (one.resident() - before[who]) * 1e3 / IDLE_FLOWS, "KB a flow")
            process.communicate("\n", timeout=60)


#: Forms of port-forward, one plain websocket each.
CARRIERS = ("websocket", "spdy")


def report(runs: list[Figures], load: tuple[float, float, float]) -> Figures:
    """What is written."""

    def ratio(name: str) -> float:
        return round(float(statistics.median(run[f"ours.{name}"] / run[f"kubectl.{name}"] for run in runs)), 3)

    def of(name: str) -> float:
        return round(float(statistics.median(run[f"ours.{name}"] for run in runs)), 3)

    return {
        "ratios": {
            **{f"{way}_{flows}": ratio(f"{way}_{flows}") for flows in FLOWS for way in WAYS},
            "rtt": ratio("rtt_p50_ms"),
            "connects": ratio("connects_s"),
            "cpu_down": ratio("down_1.client_cpu_s_gb"),
            "cpu_up": ratio("up_1.client_cpu_s_gb"),
        },
        # The worse of the two ways.
        "rtt_under_bulk_ms": {part: max(of(f"rtt_under_{way}_{part}_ms") for way in WAYS) for part in ("p50", "p99")},
        "client": {
            "rss_idle_mb": of("rss_idle_mb"),
            "rss_busy_mb": max(of(f"{way}_4.rss_busy_mb") for way in WAYS),
        },
        "idle_flows": {"held": of("idle_held"), "client_kb": of("idle_client_kb"), "agent_kb": of("idle_agent_kb")},
        "dns_answers_s": of("dns_answers_s"),
        "dns_ms": {part: of(f"dns_{part}_ms") for part in ("p50", "p99")},
        "dns_cluster_ms": {part: of(f"dns_cluster_{part}_ms") for part in ("p50", "p99")},
        "connect_s": of("connect_s"),
        "raw": {name: spread([run[name] for run in runs if name in run]) for name in runs[0]},
        "baseline_commands": [
            " ".join(KUBECTL),
            *(f"python -m tests.bench.carriers {kind} {NAMESPACE} {POD} down|up {OCTETS}" for kind in CARRIERS),
            f"nsenter --net=NODE python tests/bench/near.py bulk ... (straight from the node to the pod, {OCTETS} octets)",
        ],
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "load": {"before": load, "processors": os.cpu_count(), "python": sys.version.split()[0]},
        "unexpected": [
            f"{name}: {value:.0f} MB/s, {low} to {high} is usual"
            for name, (low, high) in EXPECTED.items()
            if not low * 0.85 <= (value := statistics.median(run[name] for run in runs)) <= high * 1.15
        ],
    }


def by_process() -> dict[str, float]:
    """Processor seconds so far of everything that a transfer passes."""
    wanted = {b"ktctl\0connect": "client", b"agent.pyz": "agent", b"port-forward": "kubectl", b"near.py": "the program"}
    wanted |= {name.encode(): name for name in ("kube-apiserver", "kubelet", "containerd")}
    found: dict[str, float] = {}
    for entry in Path("/proc").iterdir():
        line = _command_line(entry) if entry.name.isdigit() else b""
        who = next((name for part, name in wanted.items() if part in line and b"nsenter" not in line), "")
        if who:
            with contextlib.suppress(OSError):
                found[who] = found.get(who, 0.0) + Watched(int(entry.name)).cpu()
    return found


def profile(way: str, flows: int) -> None:
    """One transfer of ours, watched, and one of kubectl's."""
    lab = LabBackend()
    lab.up()
    written = Path("build/profile.txt").absolute()
    written.parent.mkdir(exist_ok=True)
    watch = {"PYTHONPATH": str(Path(__file__).with_name("watch")), "WATCH_TO": str(written)}
    for watched in (False, True):
        connect = Ktctl(lab, "connect", "--image", lab.python_image, env=watch if watched else None)
        with connect as ours, pod(lab) as address, kubectl(lab):
            ours.wait_ready()
            same = Target("ours", lab.laptop_argv, address, {9000: 9000})
            for target in (same,) if watched else (same, Target("kubectl", lab.laptop_argv, "127.0.0.1", LOCAL)):
                before = by_process()
                found = target.run(
                    "bulk", host=target.host, port=target.ports[9000], way=way, flows=flows, octets=4 * OCTETS
                )
                print(
                    f"{target.name}: {found['mb_s']:.0f} MB/s{', watched' if watched else ''}; processor seconds per GB:"
                )
                for who, seconds in sorted(by_process().items()):
                    if seconds - before.get(who, 0.0) > 0.05:
                        print(f"  {who:<16} {(seconds - before.get(who, 0.0)) / (4 * OCTETS) * 1e9:.2f}")
    print(written.read_text())


def main() -> None:
    """See above."""
    if sys.argv[1:2] == ["profile"]:
        profile(sys.argv[2], int(sys.argv[3]))
        return
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    lab = LabBackend()
    lab.up()
    load = os.getloadavg()
    runs = []
    with pod(lab) as address:
        for number in range(repeats):
            print(f"run {number + 1} of {repeats}", flush=True)
            runs.append(Run(lab, address).all())
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(report(runs, load), indent=1) + "\n")
    shown = report(runs, load)
    print(json.dumps({name: part for name, part in shown.items() if name != "raw"}, indent=1))


if __name__ == "__main__":
    main()
