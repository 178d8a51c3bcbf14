"""Recorded conversations of protocol version 1: whoever speaks it has to be understood for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kt_net.tunnel.hello import Hello
from kt_net.tunnel.mux import Role
from kt_net.tunnel.session import Tunnel
from tests.transcripts.record import drained, joined

V1 = sorted((Path(__file__).parents[2] / "transcripts" / "v1").glob("*.json"))


@pytest.mark.parametrize("file", V1, ids=lambda file: file.stem)
@pytest.mark.parametrize("size", [1 << 20, 7])
def test_the_agent_understands_recorded_clients(file: Path, size: int) -> None:
    transcript = json.loads(file.read_text())
    agent = Tunnel(role=Role.AGENT, hello=Hello(session=bytes(16)))
    for spoken in transcript["octets"]:
        data = bytes.fromhex(spoken["hex"])
        if spoken["from"] == "client":
            for at in range(0, len(data), size):
                agent.receive_data(data[at : at + size], now=0.0)
    seen = joined(drained(agent))
    # Answers decide what a stream's end looks like; data, opening and hello do not depend on them.
    wanted = [event for event in transcript["agent_saw"] if event["event"] not in ("RoomGranted",)]
    assert [event for event in seen if event in wanted] == wanted


@pytest.mark.parametrize("file", V1, ids=lambda file: file.stem)
def test_the_client_understands_recorded_agents(file: Path) -> None:
    transcript = json.loads(file.read_text())
    client = Tunnel(role=Role.CLIENT, hello=Hello(session=b"s" * 16))
    streams = {event["stream"] for event in transcript["agent_saw"] if event["event"] == "StreamOpened"}
    for _ in streams:
        client.open_stream(now=0.0)
    for spoken in transcript["octets"]:
        if spoken["from"] == "agent":
            client.receive_data(bytes.fromhex(spoken["hex"]), now=0.0)
            client.data_to_send(now=0.0)
    seen = joined(drained(client))
    assert [event for event in seen if event in transcript["client_saw"]] == transcript["client_saw"]


def test_there_are_transcripts() -> None:
    assert {file.stem for file in V1} == {"tcp", "refused", "datagrams", "pulse"}
