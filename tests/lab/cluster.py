"""The lab as a whole: up, down, and what tests ask of it.

It may be killed without warning at any time; `up` recognises what is stale, clears it away, and starts anew.

Not here: how each part is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab import daemons, network, pki
from tests.lab.build import binaries
from tests.lab.commands import attempt, run, say
from tests.lab.errors import LabError
from tests.lab.images import archives, reference
from tests.lab.instance import SOURCE, Instance
from tests.lab.processes import Processes, end, start_time

#: Says in the state folder that everything came up.
READY = "ready"


class Lab:
    """One instance."""

    def __init__(self, instance: Instance | None = None) -> None:
        self.instance = instance or Instance.chosen()
        self.processes = Processes(self.instance.state)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.instance.kubeconfig

    @property
    def python_image(self) -> str:
        """An image with python3."""
        return reference("python")

    # -- up and down

    def is_up(self) -> bool:
        """Whether everything runs."""
        return (self.instance.state / READY).exists() and bool(self.processes.alive()) and not self.processes.dead()

    def up(self) -> None:
        """Bring it up; a running one is left as it is.

        Raises:
            LabError: something failed; its log is shown.
        """
        if os.geteuid() != 0:
            raise LabError("the lab needs root (network namespaces, containers)")
        with self._locked():
            self.processes = Processes(self.instance.state)
            if self.is_up():
                say("the lab is up")
                return
            programs, images = binaries(), archives()
            if self.instance.state.exists():
                say("clearing away an earlier run")
                self._clear()
            self._start(programs, images)

    def _start(self, programs: Path, images: list[Path]) -> None:
        self.instance.state.mkdir(parents=True)
        self.processes = Processes(self.instance.state)
        network.up(self.instance)
        pki.make(self.instance, daemons.NODE)
        daemons.control_plane(self.instance, self.processes, programs)
        daemons.container_runtime(self.instance, self.processes)
        self._start_laptop()
        self._start_world()
        with ThreadPoolExecutor() as pool:
            imported = [pool.submit(self._import, images)]
            self._wait("the API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok")
            daemons.controllers(self.instance, self.processes, programs)
            for future in imported:
                future.result()
        daemons.node(self.instance, self.processes, programs)
        self._wait(
            "the default service account", lambda: bool(self.kubectl("get", "sa", "default", "-o", "name", check=False))
        )
        for manifest in ("dns", "samples"):
            text = (SOURCE / "manifests" / f"{manifest}.yaml").read_text()
            self.kubectl("apply", "-f", "-", given=text.replace("CLUSTER_DNS", self.instance.cluster_dns))
        self._wait(
            "the node", lambda: "True" in self.kubectl("get", "node", daemons.NODE, "-o", _READY_PATH, check=False)
        )
        self._wait("the samples", self._samples_ready, seconds=120)
        self._wait("Services", self._services_answer)
        (self.instance.state / READY).write_text("")
        say("the lab is up")

    def _samples_ready(self) -> bool:
        listed = json.loads(self.kubectl("get", "deploy,sts", "-A", "-o", "json", check=False) or "{}")
        items = listed.get("items", [])
        return bool(items) and all(item["status"].get("readyReplicas", 0) >= item["spec"]["replicas"] for item in items)

    def _services_answer(self) -> bool:
        """Whether kube-proxy has caught up: a ready pod is behind its Service's addresses only some time later."""
        listed = json.loads(self.kubectl("get", "svc", "-A", "-o", "json", check=False) or "{}")
        ends = [
            f"{address} {port['port']}"
            for item in listed.get("items", [])
            for address in item["spec"].get("clusterIPs", [])
            for port in item["spec"]["ports"]
            if address != "None" and port["protocol"] == "TCP"
        ]
        node = f"--net=/run/netns/{self.instance.node}"
        return bool(ends) and attempt("nsenter", node, sys.executable, "-c", _CONNECT, *ends)

    def _import(self, images: list[Path]) -> None:
        socket = self.instance.state / "containerd" / "containerd.sock"
        self._wait("containerd", lambda: attempt("ctr", "-a", socket, "version"))
        for archive in images:
            run("ctr", "-a", socket, "-n", "k8s.io", "images", "import", archive)

    def _start_world(self) -> None:
        code = SOURCE / "world.py"
        self.processes.start("world", sys.executable, code, self.instance.world4, namespace=self.instance.world)

    def _start_laptop(self) -> None:
        """A process that holds the laptop's mount namespace: its own resolv.conf, hosts file and state of the host helper."""
        folder = self.instance.state / "laptop"
        (folder / "home").mkdir(parents=True)
        (folder / "resolv.conf").write_text(f"nameserver {self.instance.world4}\nsearch corp.test\noptions timeout:2\n")
        (folder / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        mounts = [
            f"mount --bind {folder}/resolv.conf /etc/resolv.conf",
            f"mount --bind {folder}/hosts /etc/hosts",
            "mkdir -p /var/lib/ktctl && mount -t tmpfs -o mode=0700 tmpfs /var/lib/ktctl",
            f"touch {folder}/mounted",
            "exec sleep 2147483647",
        ]
        self.processes.start(
            "laptop", "unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(mounts),
            namespace=self.instance.laptop,
        )  # fmt: skip
        self._wait("the laptop", (folder / "mounted").exists)

    def down(self) -> None:
        """Stop everything and leave nothing."""
        with self._locked():
            self.processes = Processes(self.instance.state)
            if self.instance.state.exists() and self.processes.pid("kubelet") and self.processes.pid("apiserver"):
                say("deleting pods")
                self._delete_pods()
            say("stopping")
            self._clear()
        for left in self.left():
            say(f"left: {left}")

    def _delete_pods(self) -> None:
        for kinds in ("deploy,sts,job,ds,rs", "pods"):
            self.kubectl(
                "delete", kinds, "-A", "--all", "--grace-period=1", "--timeout=20s", "--ignore-not-found", check=False
            )

    def _clear(self) -> None:
        for name in ("kubelet", "proxy", "laptop", "world", "controller-manager", "scheduler"):
            self.processes.stop(name, seconds=3)
        # The API server ends gracefully for up to a minute; there is nobody left to be graceful to.
        for name in ("apiserver", "etcd"):
            self.processes.stop(name, number=signal.SIGKILL)
        self._end_containers()
        self.processes.stop("containerd")
        self._forget_networks()
        network.down(self.instance)
        self._unmount()
        self._remove_cgroups()
        self._remove_log_links()
        shutil.rmtree(self.instance.state, ignore_errors=True)

    def left(self) -> list[str]:
        """What of a lab that is down is still there."""
        found = network.left(self.instance)
        found += [f"mount {mount}" for mount in self._mounts()]
        found += [f"process {pid}" for pid in self._our_pids()]
        found += [f"network record {record}" for record in self._network_records()]
        found += [f"cgroup {group}" for group in self._cgroups() if not _in_use(group)]
        if self.instance.state.exists():
            found.append(f"folder {self.instance.state}")
        return found

    def _our_pids(self) -> list[int]:
        """Processes whose command line names our state folder (shims), or whose root is one of our containers'."""
        state, own = str(self.instance.state), os.getpid()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == own:
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                root = next(
                    (line for line in (entry / "mountinfo").read_text().splitlines() if line.split()[4] == "/"), ""
                )
                if ("containerd-shim" in command and f"{state}/" in command) or f"{state}/containerd/" in root:
                    found.append(int(entry.name))
        return found

    def _end_containers(self) -> None:
        for pid in self._our_pids():
            ticks = start_time(pid)
            if ticks is not None:
                end(pid, ticks, signal.SIGKILL, 2.0)

    def _network_records(self) -> list[Path]:
        """What CNI remembers about our pods: a record for our network, and by the same container one for its loopback."""
        cache = Path("/var/lib/cni/results")
        ours = list(cache.glob(f"{self.instance.cni_network}-*"))
        containers = {record.name.split("-")[1] for record in ours}
        return ours + [record for container in containers for record in cache.glob(f"cni-loopback-{container}-*")]

    def _forget_networks(self) -> None:
        for record in self._network_records():
            record.unlink(missing_ok=True)

    def _mounts(self) -> list[str]:
        points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        return [point for point in points if point.startswith(f"{self.instance.state}/")]

    def _unmount(self) -> None:
        for point in reversed(self._mounts()):
            attempt("umount", "-l", point)

    @staticmethod
    def _cgroups() -> list[Path]:
        """Groups that containerd makes for containers; those of another lab are among them, in use."""
        root = Path("/sys/fs/cgroup")
        return [
            group
            for hierarchy in (root, *root.iterdir())  # cgroup v2 has one, v1 one for each controller
            for group in (hierarchy / "k8s.io", hierarchy / "kubepods")
            if group.is_dir()
        ]

    def _remove_cgroups(self) -> None:
        """Empty groups that containers of ours had; a group in use cannot be removed."""
        for group in self._cgroups():
            for folder, _, _ in sorted(os.walk(group), key=lambda walked: -len(walked[0])):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    def _remove_log_links(self) -> None:
        """The kubelet's links to container logs: their folder is the same for every kubelet."""
        folder = Path("/var/log/containers")
        for link in folder.iterdir() if folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if str(link.readlink()).startswith(f"{self.instance.state}/"):
                    link.unlink()

    # -- for tests

    def kubectl(self, *arguments: str, check: bool = True, given: str = "") -> str:
        """kubectl as the administrator; what it printed.

        Raises:
            LabError: it failed and `check`.
        """
        command = [str(binaries() / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False, input=given)
        if check and result.returncode:
            raise LabError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def laptop_argv(self, command: list[str]) -> list[str]:
        """`command` as the laptop runs it."""
        pid = self.processes.pid("laptop")
        if pid is None:
            raise LabError("the lab is not up; run: python -m tests.lab up")
        # The environment's own: kubeconfig and ktctl's folder are the laptop's, everything else is this machine's.
        env = ["env", f"KUBECONFIG={self.kubeconfig}", f"KT_HOME={self.instance.state}/laptop/home"]
        path = f"PATH={Path(sys.executable).parent}:{binaries()}:{os.environ.get('PATH', '')}"
        return ["nsenter", f"--target={pid}", "--mount", "--net", f"--wdns={os.getcwd()}", *env, path, *command]

    def laptop_file(self, name: str) -> Path:
        """The laptop's resolv.conf or hosts, seen from here."""
        return self.instance.state / "laptop" / name

    def pid(self, name: str) -> int | None:
        """Of one of the lab's processes."""
        return self.processes.pid(name)

    def kill_apiserver(self) -> None:
        """As `kill -9` does."""
        self.processes.stop("apiserver", number=signal.SIGKILL)

    def start_apiserver(self, *flags: str) -> None:
        """And here it is again, with `flags` besides the usual ones."""
        daemons.start_apiserver(self.instance, self.processes, binaries(), *flags)
        self._wait("the API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok")

    def wait_controllers(self) -> None:
        """Until all works again after `start_apiserver`.

        Everybody who watches is begun anew: left alone they watch again one by one, half a minute and more later each.
        """
        for name in ("controller-manager", "scheduler", "kubelet", "proxy"):
            self.processes.stop(name, seconds=3)
        daemons.controllers(self.instance, self.processes, binaries())
        daemons.node(self.instance, self.processes, binaries())
        # Of an earlier wait: its objects may be there still.
        self.kubectl("delete", "job,cm", _ORPHAN, "--cascade=background", "--ignore-not-found", "--timeout=60s")
        self.kubectl("create", "-f", "-", given=json.dumps(_PROBES))
        try:
            self._wait("the Job controller, the scheduler and the kubelet", self._probe_is_seen)
            self._wait("the garbage collector", lambda: not self.kubectl("get", "cm", _ORPHAN, "--ignore-not-found"))
        finally:
            self.kubectl("delete", "job", _ORPHAN, "--cascade=background", "--wait=false")
        # It watches as well, and knows no new Service until it watches again.
        self.kubectl("rollout", "restart", "deploy/coredns", "-n", "kube-system")
        self.kubectl("rollout", "status", "deploy/coredns", "-n", "kube-system", "--timeout=90s")

    def _probe_is_seen(self) -> bool:
        path = "jsonpath={.items[*].status.containerStatuses}"
        return bool(self.kubectl("get", "pods", "-l", f"job-name={_ORPHAN}", "-o", path, check=False))

    @property
    def audit_log(self) -> Path:
        """What the API server was asked, a JSON object a line."""
        return self.instance.state / "log" / "audit.log"

    def _wait(self, what: str, condition: Callable[[], bool], *, seconds: float = 60) -> None:
        say(f"waiting for {what}")
        limit = time.monotonic() + seconds
        while not condition():
            dead = self.processes.dead()
            if dead:
                raise LabError(f"{dead[0]} has ended:\n{self.processes.log(dead[0])}")
            if time.monotonic() > limit:
                raise LabError(f"{what} did not come within {seconds:g} s; logs are in {self.instance.state}/log")
            time.sleep(0.1)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.instance.lock.parent.mkdir(parents=True, exist_ok=True)
        with open(self.instance.lock, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _in_use(group: Path) -> bool:
    """Whether a process is in a control group or below it."""
    for folder, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            if (Path(folder) / "cgroup.procs").read_text():
                return True
    return False


#: Fails unless each "address port" accepts.
_CONNECT = """import socket, sys
for end in sys.argv[1:]:
    host, port = end.split()
    socket.create_connection((host, int(port)), 1).close()
"""
#: A Job whose pod is to be made and scheduled, and a ConfigMap whose owner does not exist.
_ORPHAN = "lab-controllers-probe"
_PROBES = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": _ORPHAN, "namespace": "default"},
            "spec": {
                "backoffLimit": 0,
                "template": {
                    "spec": {
                        "restartPolicy": "Never",
                        "terminationGracePeriodSeconds": 0,
                        "containers": [{"name": "none", "image": "localhost/none", "imagePullPolicy": "Never"}],
                    }
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": _ORPHAN,
                "namespace": "default",
                "ownerReferences": [
                    {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "name": "nobody",
                        "uid": "00000000-0000-4000-8000-000000000000",
                    }
                ],
            },
        },
    ],
}
_READY_PATH = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
