"""Two clusters at once: another lab, whose ranges are others, beside the usual one; the laptop is connected to both."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.asking import soon
from tests.cluster.backend import LabBackend
from tests.cluster.ktctl import Ktctl, ktctl
from tests.cluster.layouts import LayoutBackend, layout, run
from tests.cluster.test_layouts_restored import files
from tests.lab.cluster import Lab
from tests.lab.commands import run as command
from tests.lab.instance import Instance

#: An end of a cable from the laptop to the second node.
CABLE = "second"


@pytest.fixture(scope="module")
def second(backend: LabBackend) -> Iterator[Lab]:
    """Another cluster, whose API server the laptop reaches, and which has names that the first one has not."""
    if not isinstance(backend, LabBackend):
        pytest.skip("needs the lab: two clusters that one machine reaches")
    made = Lab(Instance("ktnet-two", 202, ranges=1))
    laptop, node = backend.lab.instance.laptop, made.instance.node
    try:
        made.up()
        command("ip", "link", "add", CABLE, "netns", laptop, "type", "veth", "peer", "name", CABLE, "netns", node)
        for namespace, address in ((laptop, "10.76.202.1/24"), (node, "10.76.202.2/24")):
            command("ip", "-n", namespace, "addr", "add", address, "dev", CABLE)
            command("ip", "-n", namespace, "link", "set", CABLE, "up")
        command("ip", "-n", laptop, "route", "add", f"{made.instance.api4}/32", "via", "10.76.202.2")
        made.kubectl("expose", "deploy", "web", "--name=second", "--port=80", "--target-port=http")
        made.kubectl("create", "namespace", "elsewhere")
        made.kubectl("create", "service", "externalname", "far", "--external-name=www.world.test", "-n", "elsewhere")
        yield made
    finally:
        made.down()
    assert made.left() == []


@contextlib.contextmanager
def machine(lab: LabBackend, kind: str, folder: Path) -> Iterator[LabBackend]:
    """The laptop, whose resolv.conf is a bind mount, or one of another layout."""
    if kind == "laptop":
        yield lab
    else:
        with layout(lab, kind, folder / "etc") as made:
            yield made


def as_it_is(here: LabBackend) -> object:
    """Of the machine, what is to be the same afterwards."""
    if isinstance(here, LayoutBackend):
        return files(here)
    return [here.lab.laptop_file(name).read_bytes() for name in ("resolv.conf", "hosts")] + run(
        here, "ip", "route", "show", "table", "all"
    )


def address(here: LabBackend, name: str) -> str:
    """As a program gets it from getaddrinfo; "" for none."""
    lines = run(
        here, "timeout", "1", "getent", "ahostsv4", name
    )  # what is on its way when somebody stops waits for longer
    return lines[0].split()[0] if lines else ""


def started(here: LabBackend, stack: contextlib.ExitStack, *more: str) -> Ktctl:
    running = stack.enter_context(Ktctl(here, "connect", "--image", here.python_image, "--idle-exit", "3", *more))
    running.wait_ready()
    return running


def cluster_ip(lab: LabBackend | Lab, name: str) -> str:
    return lab.kubectl("get", "svc", name, "-o", "jsonpath={.spec.clusterIP}")


FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).status)"


@pytest.mark.parametrize("ends_first", ["first", "second"])
@pytest.mark.parametrize("kind", ["laptop", "resolved"])
def test_two_clusters(lab: LabBackend, second: Lab, kind: str, ends_first: str, tmp_path: Path) -> None:
    """Names of both, of the machine, and reverse ones; each goes on without the other, and nothing is left of them."""
    with machine(lab, kind, tmp_path) as here, contextlib.ExitStack() as stack:
        before = as_it_is(here)
        one = started(here, stack)
        other = started(here, stack, "--name", "two", "--kubeconfig", str(second.kubeconfig))
        assert (one.ready["device"], other.ready["device"]) == ("kt0", "kt1")
        web, only = cluster_ip(lab, "web"), cluster_ip(second, "second")
        assert only.startswith("10.98.")
        assert soon(lambda: address(here, "second.default.svc.cluster.local") == only)
        assert address(here, "web.default.svc.cluster.local") in (web, cluster_ip(second, "web"))
        assert kind == "resolved" or address(here, "web") == web, "the first one has the file"
        assert address(here, "second") == only
        assert address(here, "far.elsewhere") == second.instance.world4, "as its own DNS knows it"
        assert address(here, "www.world.test") == lab.lab.instance.world4
        for name in (web, only):
            assert run(here, "python3", "-c", FETCH, f"http://{name}/") == ["200"]
        assert any("second.default.svc.cluster.local" in line for line in run(here, "getent", "hosts", only))

        code, answer = ktctl(here, "disconnect")
        assert (code, answer["error"]["why"]) == (2, "default, two")
        code, answer = ktctl(here, "status", "--name", "two")
        assert (code, answer["device"], answer["name"]) == (0, "kt1", "two")
        code, answer = ktctl(here, "dns", "second.default", "--name", "two")
        assert (code, answer["steps"][-1]["records"] != []) == (0, True)

        name, goes_on = ("default", "second") if ends_first == "first" else ("two", "web")
        code, answer = ktctl(here, "disconnect", "--name", name)
        assert (code, answer["connections"]) == (0, [name])
        assert soon(lambda: address(here, f"{goes_on}.default") == (only if goes_on == "second" else web))
        assert address(here, "www.world.test")
        code, answer = ktctl(here, "disconnect")
        assert (code, answer["ended"]) == (0, True), "there is only one now"
        assert (one.wait_ended(), other.wait_ended()) == (0, 0)
        assert as_it_is(here) == before


def test_the_first_is_killed(lab: LabBackend, second: Lab) -> None:
    before = as_it_is(lab)
    with contextlib.ExitStack() as stack:
        one = started(lab, stack)
        other = started(lab, stack, "--name", "two", "--kubeconfig", str(second.kubeconfig))
        one.signal(signal.SIGKILL)
        killed = time.monotonic()
        assert soon(lambda: address(lab, "www.world.test"))
        assert time.monotonic() - killed < 5
        assert soon(lambda: address(lab, "second.default"))
        other.signal(signal.SIGTERM)
        assert other.wait_ended() == 0
    assert as_it_is(lab) == before


def test_one_is_stopped(lab: LabBackend, second: Lab) -> None:
    """Names outside are there within five seconds, whichever of the two it is; and both clusters' again when it goes on."""
    before = as_it_is(lab)
    with contextlib.ExitStack() as stack:
        one = started(lab, stack)
        other = started(lab, stack, "--name", "two", "--kubeconfig", str(second.kubeconfig))
        assert soon(lambda: address(lab, "second.default"))
        for stopped, lasting in ((other, "web"), (one, "second")):
            stopped.signal(signal.SIGSTOP)
            since = time.monotonic()
            assert soon(lambda: address(lab, "www.world.test"))
            assert time.monotonic() - since < 5
            assert soon(lambda name=lasting: address(lab, f"{name}.default"))  # type: ignore[misc]
            stopped.signal(signal.SIGCONT)
            assert soon(lambda: address(lab, "second.default.svc.cluster.local") and address(lab, "echo.default"))
        assert ktctl(lab, "disconnect", "--all")[1]["connections"] == ["default", "two"]
    assert as_it_is(lab) == before


def test_ranges_that_overlap(lab: LabBackend, second: Lab) -> None:
    """The same cluster a second time: refused, and said by whom."""
    with contextlib.ExitStack() as stack:
        started(lab, stack)
        code, answer = ktctl(lab, "connect", "--name", "again", "--image", lab.python_image)
        assert (code, answer["error"]["class"]) == (32, "RouteConflict")
        assert "kt0, the device of connection default" in answer["error"]["what"]
        assert answer["error"]["next"].endswith("ktctl disconnect --name default")
        code, answer = ktctl(lab, "connect", "--image", lab.python_image)
        assert (code, answer["error"]["class"]) == (35, "AlreadyConnected")
        code, answer = ktctl(lab, "connect", "--name", "No!")
        assert (code, answer["error"]["class"]) == (2, "UsageFault")


def test_begun_at_the_same_moment(lab: LabBackend, second: Lab) -> None:
    before = as_it_is(lab)
    with contextlib.ExitStack() as stack:
        flags = ("--image", lab.python_image, "--idle-exit", "3")
        one = stack.enter_context(Ktctl(lab, "connect", *flags))
        other = stack.enter_context(
            Ktctl(lab, "connect", *flags, "--name", "two", "--kubeconfig", str(second.kubeconfig))
        )
        assert {one.wait_ready()["device"], other.wait_ready()["device"]} == {"kt0", "kt1"}
        assert soon(lambda: address(lab, "second.default") and address(lab, "echo.default"))
    assert as_it_is(lab) == before


def test_doctor_knows_them(lab: LabBackend, second: Lab) -> None:
    with contextlib.ExitStack() as stack:
        started(lab, stack)
        started(lab, stack, "--name", "two", "--kubeconfig", str(second.kubeconfig))
        for config in (lab.kubeconfig, second.kubeconfig):
            code, answer = ktctl(lab, "doctor", "--kubeconfig", str(config))
            found = [
                one for one in answer["checks"] if one["check"] in ("connection", "routes", "resolver", "leftovers")
            ]
            assert {one["level"] for one in found} == {"ok"}, found
            assert sum(one["check"] == "connection" for one in found) == 2
            assert code == 0
