"""Every kind of name, asked by every kind of program, on machines of every layout; and names outside the cluster as before."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.backend import Backend, LabBackend
from tests.cluster.ktctl import Ktctl
from tests.cluster.layouts import layout, run
from tests.lab.build import go_program

PROGRAMS = Path(__file__).with_name("programs")
FULL = "default.svc.cluster.local"
#: A Service that is made while connected is known so many seconds later.
NEW_SERVICE_SECONDS = 1.0

#: Names that have addresses of their own: a hosts file can have them, too.
ADDRESSED = (
    "web",
    "web.default",
    "web.default.svc",
    f"web.{FULL}",
    "redis",
    "redis-0.redis",
    f"redis-0.redis.{FULL}",
    "kube-dns.kube-system",
    "shop.dev",
)
#: Names that only a resolver knows.
ASKED = ("alias", f"alias.{FULL}")
OUTSIDE = ("www.world.test", "www.site.dev", "www.site.io", "absent.site.dev", "absent.site.io", "absent.world.test")


@dataclass(frozen=True)
class Machine:
    """A machine of some layout, connected; what it said of names outside before."""

    kind: str
    backend: Backend
    programs: Path
    before: dict[str, list[str]]
    running: Ktctl

    def run(self, *command: str) -> list[str]:
        return run(self.backend, *command)

    def look_up(self, program: str, names: tuple[str, ...]) -> dict[str, list[str]]:
        """Each name's addresses, sorted, by a program of one's own resolver."""
        lines = self.run(str(self.programs / program), *names)
        return {name: sorted(addresses) for name, *addresses in (line.split() for line in lines)}


def outside(backend: Backend) -> dict[str, list[str]]:
    """What names outside the cluster are, by dig: codes and records; and what is too long for a datagram."""
    found = {}
    for name in (*OUTSIDE, "refused.world.test", "broken.world.test"):
        lines = run(backend, "dig", "+nocookie", "+tries=1", f"{name}.", "A")
        status = [line.split("status: ")[1].split(",")[0] for line in lines if "status: " in line]
        found[name] = status + [line.split()[-1] for line in lines if line and not line.startswith(";")]
    for more in ("+notcp", "+tcp", "+bufsize=512"):
        found[f"long {more}"] = sorted(run(backend, "dig", "+short", more, "long.world.test.", "TXT"))
    return found


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program on each resolver: glibc's, musl's and Go's own."""
    folder = tmp_path_factory.mktemp("programs")
    subprocess.run(["gcc", "-o", folder / "glibc", PROGRAMS / "lookup.c"], check=True)
    subprocess.run(["musl-gcc", "-static", "-o", folder / "musl", PROGRAMS / "lookup.c"], check=True)
    subprocess.run(
        [go_program(), "build", "-o", folder / "go", PROGRAMS / "lookup.go"],
        check=True,
        env={**os.environ, "CGO_ENABLED": "0"},
    )
    return folder


@pytest.fixture(scope="module")
def objects(backend: Backend) -> Iterator[None]:
    """A Service by another name, and one in a namespace that is called like a top-level domain; `io` has none."""
    for namespace in ("dev", "io"):
        backend.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=true")
        backend.kubectl("create", "namespace", namespace)
    backend.kubectl("create", "service", "clusterip", "shop", "--tcp=80", "-n", "dev")
    backend.kubectl("delete", "service", "alias", "--ignore-not-found")
    backend.kubectl("create", "service", "externalname", "alias", f"--external-name=web.{FULL}")
    yield
    backend.kubectl("delete", "service", "alias")
    backend.kubectl("delete", "namespace", "dev", "io", "--wait=false")


@pytest.fixture(scope="module", params=["bind mount", "plain", "resolved", "hosts"])
def machine(
    request: pytest.FixtureRequest,
    backend: Backend,
    objects: None,
    programs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Machine]:
    if not isinstance(backend, LabBackend):
        pytest.skip("needs the lab: a machine whose /etc may be another one")
    kind: str = request.param
    flags = ("--dns-mode", "hosts:default,kube-system,dev") if kind == "hosts" else ()
    folder = tmp_path_factory.mktemp("etc") / "etc"
    with layout(backend, kind, folder) as other:
        here = backend if kind == "bind mount" else other
        before = outside(here)
        with Ktctl(here, "connect", "--image", backend.python_image, *flags) as running:
            running.wait_ready()
            yield Machine(kind, here, programs, before, running)


def expected(machine: Machine, names: tuple[str, ...]) -> dict[str, list[str]]:
    """The addresses that Kubernetes says they have."""
    kubectl, found = machine.backend.kubectl, {}
    for name in names:
        host, _, rest = name.partition(".")
        if host in ("redis", "redis-0"):
            addresses = json.loads(kubectl("get", "pod", "redis-0", "-o", "jsonpath={.status.podIPs}"))
            found[name] = sorted(one["ip"] for one in addresses)
            continue
        namespace = {"dev": "dev", "kube-system": "kube-system"}.get(rest, "default")
        service = "web" if host == "alias" else host
        found[name] = sorted(
            json.loads(kubectl("get", "svc", service, "-n", namespace, "-o", "jsonpath={.spec.clusterIPs}"))
        )
    return found


@pytest.mark.parametrize("program", ["glibc", "musl", "go"])
def test_names_of_the_cluster(machine: Machine, program: str) -> None:
    names = ADDRESSED if machine.kind == "hosts" else ADDRESSED + ASKED
    assert machine.look_up(program, names) == expected(machine, names)


def test_getaddrinfo_of_python(machine: Machine) -> None:
    code = "import socket, sys; print(*sorted({i[4][0] for i in socket.getaddrinfo(sys.argv[1], 80)}))"
    assert machine.run("python3", "-c", code, "web")[0].split() == expected(machine, ("web",))["web"]


@pytest.mark.parametrize("flags", [("+notcp",), ("+tcp",), ("+bufsize=512",), ("+bufsize=4096",), ("+noedns",)])
def test_dig(machine: Machine, flags: tuple[str, ...]) -> None:
    """Full names: dig does not search. A hosts file is nothing that it reads."""
    names = [*(name for name in ADDRESSED + ASKED if name.endswith(FULL)), "shop.dev.svc.cluster.local"]
    wanted = expected(machine, ("web", "redis", "shop.dev"))
    for name in names:
        found = sorted(
            line
            for kind in ("A", "AAAA")
            for line in machine.run("dig", "+short", *flags, f"{name}.", kind)
            if not line.endswith(".")
        )
        kind = "shop.dev" if name.startswith("shop") else "redis" if name.startswith("redis") else "web"
        assert found == ([] if machine.kind == "hosts" else wanted[kind]), name


def test_other_records(machine: Machine) -> None:
    """Services' ports (SRV) and addresses' names (PTR)."""
    (address,) = (one for one in expected(machine, ("web",))["web"] if ":" not in one)
    if machine.kind == "hosts":
        assert machine.run("getent", "hosts", address)[0].split()[1].startswith("web")
        return
    assert machine.run("dig", "+short", "-x", address) == [f"web.{FULL}."]
    found = set(machine.run("dig", "+short", "SRV", f"_http._tcp.web.{FULL}"))
    assert found == {f"0 50 80 web.{FULL}."}
    (pod,) = (one for one in expected(machine, ("redis",))["redis"] if ":" not in one)
    assert machine.run("getent", "hosts", pod)[0].split()[1] == f"redis-0.redis.{FULL}"


def test_a_service_made_while_connected(machine: Machine) -> None:
    kubectl = machine.backend.kubectl
    kubectl("delete", "service", "made-later", "--ignore-not-found")
    assert not machine.run("getent", "ahosts", "made-later.default")
    kubectl("create", "service", "clusterip", "made-later", "--tcp=80")
    started = time.monotonic()
    try:
        while not machine.run("getent", "ahosts", "made-later.default"):
            assert time.monotonic() - started < NEW_SERVICE_SECONDS
        print(f"  known after {time.monotonic() - started:.2f} s")
    finally:
        kubectl("delete", "service", "made-later")


def test_names_outside_are_as_before(machine: Machine) -> None:
    """Records, response codes, what is too long for a datagram; also under `dev` and `io`, which are namespaces here."""
    assert outside(machine.backend) == machine.before
    assert machine.before["www.site.dev"][0] == "NOERROR"
    assert machine.before["absent.site.io"] == ["NXDOMAIN"]
    assert len(machine.before["long +tcp"]) == 10
