"""Writes transcripts of the tunnel protocol: `python -m tests.transcripts.record tests/transcripts/v1`.

Version 1's are written once and for all: they are replayed against every later version of the code. Record anew only for a new
version of the protocol, into a folder of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kt_net.tunnel.datagrams import frame_datagram
from kt_net.tunnel.events import TunnelEvent
from kt_net.tunnel.requests import Network, Reply, ReplyCode, Request
from kt_net.tunnel.session import Tunnel
from tests.quiet.tunnel.pair import Pair


def described(event: TunnelEvent) -> dict[str, Any]:
    """An event as JSON; payload in hex."""
    found: dict[str, Any] = {"event": type(event).__name__}
    for name in event.__slots__:
        value = getattr(event, name)
        if name == "data":
            value = bytes(value).hex()
        elif name == "hello":
            value = {
                "version": value.version,
                "session": value.session.hex(),
                "lane": value.lane,
                "report": dict(value.report),
            }
        found[name] = value
    return found


def joined(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring payload of one stream in one: pieces are not part of the protocol."""
    result: list[dict[str, Any]] = []
    for event in events:
        last = result[-1] if result else {}
        if event["event"] == last.get("event") == "StreamData" and event["stream"] == last["stream"]:
            last["data"] += event["data"]
        else:
            result.append(dict(event))
    return result


def drained(tunnel: Tunnel) -> list[dict[str, Any]]:
    """All events that wait."""
    return [described(event) for event in Pair.events(tunnel)]


def tcp(pair: Pair) -> None:
    """A connection, half-closed by the client, answered, ended."""
    stream = pair.client.open_stream(now=pair.now)
    pair.client.send(stream, Request(Network.TCP, "10.96.0.10", 80).emit(), now=pair.now)
    pair.carry()
    pair.agent.send(stream, Reply(ReplyCode.SUCCEEDED, "10.244.0.9", 40000).emit(), now=pair.now)
    pair.carry()
    pair.client.send(stream, b"question", now=pair.now)
    pair.client.finish(stream, now=pair.now)
    pair.carry()
    pair.agent.send(stream, b"answer", now=pair.now)
    pair.agent.finish(stream, now=pair.now)
    pair.carry()


def refused(pair: Pair) -> None:
    """A connection to a closed port of a name, and one that the client resets."""
    first, second = pair.client.open_stream(now=pair.now), pair.client.open_stream(now=pair.now)
    pair.client.send(first, Request(Network.TCP, "web.default.svc", 81).emit(), now=pair.now)
    pair.client.send(second, Request(Network.TCP, "fd00::10", 80).emit(), now=pair.now)
    pair.carry()
    pair.agent.send(first, Reply(ReplyCode.CONNECTION_REFUSED).emit(), now=pair.now)
    pair.agent.finish(first, now=pair.now)
    pair.client.reset(second, now=pair.now)
    pair.carry()


def datagrams(pair: Pair) -> None:
    """UDP and echo, the first datagram right behind its request."""
    for network, port, payload in ((Network.UDP, 53, b"dns"), (Network.ECHO, 7, b"\x00\x01ping")):
        stream = pair.client.open_stream(now=pair.now)
        pair.client.send(stream, Request(network, "10.96.0.10", port).emit() + frame_datagram(payload), now=pair.now)
        pair.carry()
        reply = Reply(ReplyCode.SUCCEEDED, "10.244.0.9", 5).emit() + frame_datagram(payload)
        pair.agent.send(stream, reply, now=pair.now)
        pair.carry()
        pair.agent.reset(stream, now=pair.now)
        pair.carry()


def pulse(pair: Pair) -> None:
    """A ping, its answer, and a go-away."""
    pair.carry()
    pair.client.ping(now=pair.now)
    pair.carry()
    pair.agent.go_away(now=pair.now)
    pair.carry()


SCENARIOS: dict[str, Callable[[Pair], None]] = {
    scenario.__name__: scenario for scenario in (tcp, refused, datagrams, pulse)
}


def record(scenario: Callable[[Pair], None]) -> dict[str, Any]:
    """One conversation: what went, in order, and what each side made of it."""
    pair = Pair(greet=False)
    scenario(pair)
    return {
        "protocol": 1,
        "about": scenario.__doc__,
        "octets": [{"from": "client" if client else "agent", "hex": data.hex()} for client, data in pair.transcript],
        "agent_saw": joined(drained(pair.agent)),
        "client_saw": joined(drained(pair.client)),
    }


def main(folder: Path) -> None:
    """Write all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scenario in SCENARIOS.items():
        (folder / f"{name}.json").write_text(json.dumps(record(scenario), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
