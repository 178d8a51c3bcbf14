"""This machine's DNS servers: the next one is asked when one is not there, fails or is silent."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from dnslib import RCODE, DNSRecord

from kt_net.dns.messages import question
from kt_net.dns.resolver import Transport
from kt_net.drivers.loop import Loop
from kt_net.drivers.names import MachineNames
from kt_net.relay.relay import MachineQuestion
from tests.net.namespaces import run_inside

SERVERS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def serve(address: str, kind: str, asked: list[str]) -> None:
    """One server on both transports: "silent", "fails" or "answers"; with "away" there is none."""
    if kind == "away":
        return

    def answer(query: bytes) -> bytes | None:
        asked.append(address)
        reply = DNSRecord.parse(query).reply()
        reply.header.rcode = RCODE.SERVFAIL if kind == "fails" else 0
        return None if kind == "silent" else bytes(reply.pack())

    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, 53))
    listener = socket.create_server((address, 53))

    def over_udp() -> None:
        while True:
            query, client = datagrams.recvfrom(512)
            said = answer(query)
            if said is not None:
                datagrams.sendto(said, client)

    def over_tcp() -> None:
        kept = []
        while True:
            connection, _ = listener.accept()
            said = answer(connection.recv(512)[2:])
            if said is None:
                kept.append(connection)
                continue
            connection.sendall(len(said).to_bytes(2, "big") + said)
            connection.close()

    for run in (over_udp, over_tcp):
        threading.Thread(target=run, daemon=True).start()


def asked_twice(kinds: list[str], transport: str) -> list[Any]:
    """Two questions, one after the other: whom they went to, and the response codes."""
    asked: list[str] = []
    for address, kind in zip(SERVERS, kinds, strict=False):
        serve(address, kind, asked)
    loop, outcomes, done = Loop(), list[bytes | None](), threading.Event()

    def outcome(ask: int, data: bytes | None) -> None:
        outcomes.append(data)
        done.set()

    names = MachineNames(loop, SERVERS[: len(kinds)], outcome)
    loop.start("names")
    for number in (1, 2):
        query = MachineQuestion(number, question("www.example", "A", number), Transport(transport))
        loop.call_soon(lambda query=query: names.ask(query, now=loop.now()))  # type: ignore[misc]
        assert done.wait(10)
        done.clear()
    loop.stop()
    codes = [None if data is None else int(DNSRecord.parse(data).header.rcode) for data in outcomes]
    return [asked, codes, names._sockets, len(names._questions)]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("kinds", "asked", "codes"),
    [
        (["answers", "answers"], "1 1", [0, 0]),
        (["away", "answers"], "2 2", [0, 0]),
        (["fails", "answers"], "1 2 2", [0, 0]),
        (["silent", "away", "answers"], "1 3 3", [0, 0]),
        (["fails", "away"], "1 1", [2, 2]),
        (["away"], "", [None, None]),
    ],
)
def test_fail_over(tmp_path: Path, kinds: list[str], asked: str, codes: list[int | None], transport: str) -> None:
    servers = [f"127.0.0.{last}" for last in asked.split()]
    assert run_inside(asked_twice, tmp_path, kinds, transport) == [servers, codes, 0, 0]
