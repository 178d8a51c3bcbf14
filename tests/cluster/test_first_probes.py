"""After connecting: does the cluster answer the shadow pod? What blocks it is said at once. And what looks on ends with the connection.

Nothing in the lab enforces NetworkPolicies: rules in the node's own network namespace stand for them.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.backend import LabBackend
from tests.cluster.command import SECONDS, Command
from tests.cluster.ktctl import Ktctl, ktctl
from tests.lab.commands import attempt, run
from tests.lab.instance import Instance

Start = Callable[..., Command]
Block = Callable[..., None]

TABLE = "ktnet_test_policy"
DNS, API = "10.97.0.10", "10.97.0.1"
#: Before kube-proxy's rules: the addresses are still those of the Services. Connections that are there stay.
FROM_PODS = f"ip saddr {Instance.chosen().pods4} ip daddr"
DNS_DROPPED = f"{FROM_PODS} {DNS} udp dport 53 drop"
DNS_REFUSED = f"{FROM_PODS} {DNS} udp dport 53 reject with icmp type port-unreachable"
API_DROPPED = f"{FROM_PODS} {API} tcp dport 443 tcp flags & (syn | ack) == syn drop"
API_REFUSED = f"{FROM_PODS} {API} tcp dport 443 tcp flags & (syn | ack) == syn reject with tcp reset"

WRONG = "the cluster does not answer the shadow pod as it should: "
POLICY = "; a NetworkPolicy may keep the shadow pod from it"


@pytest.fixture
def block(lab: LabBackend) -> Iterator[Block]:
    """Gives the node these rules, and no others of ours."""
    node = ("ip", "netns", "exec", lab.lab.instance.node, "nft")

    def set_rules(*rules: str) -> None:
        attempt(*node, "delete", "table", "inet", TABLE)
        chain = "type filter hook prerouting priority -300; policy accept;"
        lines = (f"table inet {TABLE} {{", "chain pods {", chain, *rules, "}", "}", "")
        run(*node, "-f", "-", given="\n".join(lines))

    yield set_rules
    attempt(*node, "delete", "table", "inet", TABLE)


def steps(connection: Ktctl) -> list[str]:
    """What it said to users; it is ended for that."""
    connection.signal(signal.SIGTERM)
    _, errors = connection.process.communicate(timeout=SECONDS)
    return [json.loads(line)["text"] for line in errors.splitlines()]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ((DNS_DROPPED,), f"no answer from DNS {DNS} within 2 s{POLICY}"),
        ((DNS_REFUSED,), f"DNS {DNS} refuses: nothing listens there"),
        ((API_DROPPED,), f"no answer from {API}:443 within 2 s{POLICY}"),
        ((API_REFUSED,), f"{API}:443 refuses: nothing listens there"),
        ((DNS_DROPPED, API_DROPPED), f"no answer from DNS {DNS} nor {API}:443 within 2 s{POLICY}"),
    ],
    ids=["DNS silent", "DNS refused", "TCP silent", "TCP refused", "all silent"],
)
def test_a_blocked_cluster_is_said(lab: LabBackend, block: Block, rules: tuple[str, ...], said: str) -> None:
    block(*rules)
    with Ktctl(lab, "connect", "--image", lab.python_image) as running:
        running.wait_ready()
        lines = steps(running)
    assert f"{WRONG}{said}; next: ktctl doctor" in lines


def test_a_cluster_that_answers_and_one_that_answers_late(lab: LabBackend, block: Block) -> None:
    with Ktctl(lab, "connect", "--image", lab.python_image) as running:
        running.wait_ready()
        lines = steps(running)
    (fine,) = [line for line in lines if line.startswith("cluster answers: ")]
    assert f"DNS {DNS} in " in fine
    assert f"{API}:443 in " in fine
    block(DNS_DROPPED)
    with Ktctl(lab, "connect", "--image", lab.python_image) as running:
        running.wait_ready()
        block()
        time.sleep(3)  # within it the question goes out again
        lines = steps(running)
    assert any(line.startswith(f"{WRONG}no answer from DNS") for line in lines)
    assert any(line.startswith(f"the cluster answers later than it should: DNS {DNS} in ") for line in lines), lines


def test_both_end_with_the_connection(lab: LabBackend, start: Start) -> None:
    with Ktctl(lab, "connect", "--image", lab.python_image) as running:
        running.wait_ready()
        looking = start("capture", "--port", "1")
        watching = start("status", "--watch")
        watching.wait_until(lambda: bool(watching.lines))
        running.signal(signal.SIGTERM)
        running.wait_ended()
        assert (looking.wait_ended(), watching.wait_ended()) == (0, 0)
    assert looking.errors[-1] == "the connection has ended; 0 packets captured, 0 dropped\n"
    assert watching.lines[-1] == "the connection has ended\n"
    for command in ("capture", "status"):
        code, answer = ktctl(lab, command)
        assert (code, answer["error"]["class"]) == (36, "NotConnected")
