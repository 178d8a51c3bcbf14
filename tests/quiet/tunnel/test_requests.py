"""Requests, replies and datagrams: round trips, in any pieces, and foreign octets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.addr import IPAddress
from kt_net.errors import TunnelProtocolError
from kt_net.tunnel.datagrams import DatagramParser, frame_datagram
from kt_net.tunnel.requests import (
    Arrival,
    Network,
    Reply,
    ReplyCode,
    Request,
    parse_arrival,
    parse_reply,
    parse_request,
)

hosts = st.ip_addresses().map(str) | st.from_regex(r"[a-z][a-z0-9.-]{0,60}", fullmatch=True)
ports = st.integers(0, 65535)


@given(st.sampled_from(Network), hosts, ports, st.binary(max_size=20))
def test_request(network: Network, host: str, port: int, rest: bytes) -> None:
    request = Request(network, host, port)
    data = request.emit()
    assert parse_request(data + rest) == (request, len(data))
    assert all(parse_request(data[:length]) is None for length in range(len(data)))


@given(st.sampled_from(ReplyCode), st.ip_addresses().map(str), ports)
def test_reply(code: ReplyCode, host: str, port: int) -> None:
    reply = Reply(code, host, port)
    assert parse_reply(reply.emit()) == (reply, len(reply.emit()))


@given(
    st.sampled_from([Network.TCP, Network.UDP]),
    st.ip_addresses(),
    ports,
    st.ip_addresses(),
    ports,
    st.binary(max_size=9),
)
def test_arrival(network: Network, address: IPAddress, port: int, caller: IPAddress, theirs: int, rest: bytes) -> None:
    arrival = Arrival(network, address, port, caller, theirs)
    data = arrival.emit()
    assert parse_arrival(data + rest) == (arrival, len(data))
    assert all(parse_arrival(data[:length]) is None for length in range(len(data)))


@pytest.mark.parametrize(
    "data",
    [
        Request(Network.ECHO, "10.0.0.1", 1).emit(),
        Request(Network.LISTEN_TCP, "10.0.0.1", 1).emit(),
        Request(Network.TCP, "a.name", 80).emit() + b"\x01" + bytes(6),
        Request(Network.TCP, "10.0.0.1", 80).emit() + b"\x03\x01a\x00\x50",
        Request(Network.TCP, "10.0.0.1", 80).emit() + b"\x07\x00",
    ],
    ids=["echo", "listen", "a name", "a caller's name", "no address"],
)
def test_what_is_no_arrival(data: bytes) -> None:
    with pytest.raises(TunnelProtocolError):
        parse_arrival(data)


@pytest.mark.parametrize(
    "data", [b"\x04", b"\x05\x04\x00\x01" + bytes(6), b"\x05\x01\x00\x07" + bytes(9), b"\x05\x01\x00\x03\x00\x00\x50"]
)
def test_what_is_no_request(data: bytes) -> None:
    with pytest.raises(TunnelProtocolError):
        parse_request(data)


@pytest.mark.parametrize("host", ["", "x" * 256, "bücher"])
def test_names_that_cannot_be_asked_for(host: str) -> None:
    with pytest.raises(TunnelProtocolError):
        Request(Network.TCP, host, 1).emit()


@given(st.binary(max_size=80))
def test_foreign_octets(data: bytes) -> None:
    for parse in (parse_request, parse_reply, parse_arrival):
        try:
            parse(data)
        except TunnelProtocolError:
            pass


@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(1, 70))
def test_datagrams_in_pieces(datagrams: list[bytes], size: int) -> None:
    stream = b"".join(map(frame_datagram, datagrams))
    parser = DatagramParser()
    got = [found for at in range(0, len(stream), size) for found in parser.receive(stream[at : at + size])]
    assert got == datagrams
