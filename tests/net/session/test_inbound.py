"""Callers from the cluster to programs here, with a real agent: lanes, sockets and all, in a network namespace without an API server."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kt_net.drivers.inbound as inbound_module
from kt_net.choreography.expose import parse_exposes, pod_ports
from kt_net.errors import KtError
from kt_net.session.inbound import Inbound, check_listens, find_target
from tests.net.namespaces import run_inside
from tests.net.session.test_lanes import Session, agent, session, whole

ADDRESS, ADDRESS6 = "10.198.0.1", "fd98::1"
HEADER_OCTETS = 28


@contextmanager
def inbound(
    folder: str, *exposes: str, proxy_protocol: bool = False
) -> Iterator[tuple[Session, Inbound, list[subprocess.Popen[bytes]]]]:
    """A session whose agent listens."""
    for command in (f"ip addr add {ADDRESS}/24 dev lo", f"ip -6 addr add {ADDRESS6}/64 dev lo nodad"):
        subprocess.run(command.split(), check=True)
    asked = parse_exposes(exposes)
    with session(folder) as (running, agents):
        running.wait(whole(running), "three lanes")
        listening = Inbound(
            running.loop,
            running.switchboard,
            pod_ports(asked),
            {expose: find_target(expose) for expose in asked},
            proxy_protocol=proxy_protocol,
            progress=running.said.append,
        )
        listening.start()
        listening.wait_listening(lambda: None)
        yield running, listening, agents
    listening.close()


def serve(handle: Callable[[socket.socket], None], port: int, host: str = "127.0.0.1") -> socket.socket:
    """A program here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, port), family=family, backlog=512)

    def run() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()
    return server


def echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def stop(server: socket.socket) -> None:
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def exchange(host: str, port: int, data: bytes) -> bytes:
    """Send all, half-close, read to the end."""
    with socket.create_connection((host, port), timeout=30) as connection:

        def send() -> None:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the reader sees it, too

        sender = threading.Thread(target=send)
        sender.start()
        got = bytearray()
        while piece := connection.recv(1 << 18):
            got += piece
        sender.join()
    return bytes(got)


def said_of(call: Callable[[], object]) -> str:
    """What a caller gets to see."""
    try:
        return str(call())
    except OSError as error:
        return type(error).__name__


def echoes(folder: str) -> Any:
    serve(echo, 6080)
    serve(echo, 6081, "::1")
    data = os.urandom(8 << 20)
    with inbound(folder, "6080:80", "[::1]:6081:9000") as (running, listening, _):
        equal = [exchange(host, port, data) == data for host in (ADDRESS, ADDRESS6) for port in (20080, 9000)]
        running.wait(lambda: listening.callers == 0, "no callers")
        lanes = [lane.tunnel.stats().octets_received > len(data) for lane in running.lanes._lanes.values()]
        return {"equal": equal, "control lane": lanes[0], "said": running.said}


def test_callers_of_both_families_reach_programs_of_both(tmp_path: Path) -> None:
    """8 MiB each way, half-closed; by the lanes that are for it."""
    assert run_inside(echoes, tmp_path, str(tmp_path)) == {"equal": [True] * 4, "control lane": False, "said": []}


def crowd(folder: str) -> Any:
    serve(echo, 6080)
    found: list[str] = []
    with inbound(folder, "6080:8080") as (running, listening, _):

        def one(number: int) -> None:
            found.append(said_of(lambda: exchange(ADDRESS, 8080, b"%d" % number * 1000) == b"%d" % number * 1000))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        running.wait(lambda: listening.callers == 0, "no callers")
        return {"found": sorted(set(found)), "count": len(found)}


def test_two_hundred_at_once(tmp_path: Path) -> None:
    assert run_inside(crowd, tmp_path, str(tmp_path)) == {"found": ["True"], "count": 200}


def held(folder: str) -> Any:
    """More than the descriptors that a process has by default (three for each here: caller, program, and what is between)."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 8192))
    serve(echo, 6080)
    with inbound(folder, "6080:8080") as (running, listening, _):
        callers = [socket.create_connection((ADDRESS, 8080)) for _ in range(700)]
        running.wait(lambda: listening.callers == 700, "700 callers", 30)
        for caller in callers:
            caller.sendall(b"x")
        answered = sum(caller.recv(1) == b"x" for caller in callers)
        for caller in callers:
            caller.close()
        running.wait(lambda: listening.callers == 0, "no callers", 30)
        return {"answered": answered, "said": running.said}


def test_more_callers_than_a_process_has_descriptors(tmp_path: Path) -> None:
    assert run_inside(held, tmp_path, str(tmp_path)) == {"answered": 700, "said": []}


def closed(folder: str) -> Any:
    with inbound(folder, "6080:8080") as (running, _, _):
        found = [said_of(lambda: exchange(ADDRESS, 8080, b"x")) for _ in range(5)]
        server = serve(echo, 6080)
        found += [said_of(lambda: exchange(ADDRESS, 8080, b"x")) for _ in range(3)]
        stop(server)
        found += [said_of(lambda: exchange(ADDRESS6, 8080, b"x")) for _ in range(2)]
        return {"found": found, "said": running.said}


def test_a_closed_port_resets_and_is_said_once(tmp_path: Path) -> None:
    """And once that somebody listens again."""
    silent, again = "127.0.0.1:6080: nothing listens there; callers are turned away", "127.0.0.1:6080 answers again"
    assert run_inside(closed, tmp_path, str(tmp_path)) == {
        "found": ["ConnectionResetError"] * 5 + ["b'x'"] * 3 + ["ConnectionResetError"] * 2,
        "said": [silent, again, silent],
    }


def resets(folder: str) -> Any:
    linger = struct.pack("ii", 1, 0)
    seen: list[str] = []

    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()

    def watch(connection: socket.socket) -> None:
        connection.sendall(b"!")
        seen.append(said_of(lambda: connection.recv(10)))

    serve(reset, 6080)
    serve(watch, 6081)
    with inbound(folder, "6080:8080", "6081:8081") as (running, listening, _):
        seen.append(said_of(lambda: exchange(ADDRESS, 8080, b"x")))
        with socket.create_connection((ADDRESS, 8081)) as connection:
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        running.wait(lambda: len(seen) == 2, "both")
        running.wait(lambda: listening.callers == 0, "no callers")
        return seen


def test_resets_pass_both_ways(tmp_path: Path) -> None:
    assert run_inside(resets, tmp_path, str(tmp_path)) == ["ConnectionResetError"] * 2


def proxied(folder: str) -> Any:
    serve(echo, 6080)
    with inbound(folder, "6080:8080", proxy_protocol=True) as _:
        with socket.create_connection((ADDRESS, 8080), timeout=10) as connection:
            mine = connection.getsockname()
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
            got = b""
            while piece := connection.recv(100):
                got += piece
        ports = struct.unpack("!HH", got[24:HEADER_OCTETS])
        who = [socket.inet_ntoa(got[16:20]) == mine[0], socket.inet_ntoa(got[20:24]), ports == (mine[1], 8080)]
        return {"start": got[:16].hex(), "who": who, "rest": got[HEADER_OCTETS:].decode()}


def test_proxy_protocol(tmp_path: Path) -> None:
    assert run_inside(proxied, tmp_path, str(tmp_path)) == {
        "start": "0d0a0d0a000d0a515549540a2111000c",
        "who": [True, ADDRESS, True],
        "rest": "hello",
    }


def udp(folder: str) -> Any:
    """Two callers, whom the program tells apart; then nobody is there, and then somebody again."""

    def program() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 5353))

        def run() -> None:
            while True:
                try:
                    data, sender = sock.recvfrom(65535)
                except OSError:
                    return
                if not data:
                    sock.close()
                    return
                sock.sendto(b"%d:" % sender[1] + data, sender)

        threading.Thread(target=run, daemon=True).start()
        return sock

    program()
    with inbound(folder, "5353:53/udp") as (running, _, _):
        found, senders = [], set()
        for host in (ADDRESS, ADDRESS, ADDRESS6):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as caller:
                caller.connect((host, 20053))
                caller.settimeout(5)
                for word in (b"one", b"three" * 200):
                    caller.send(word)
                    sender, _, back = caller.recv(65535).partition(b":")
                    found.append(back == word)
                senders.add(sender)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
            caller.connect((ADDRESS, 20053))
            caller.settimeout(0.2)

            def asked(word: bytes) -> bool:
                caller.send(word)
                try:
                    return caller.recv(100).endswith(b":" + word)
                except TimeoutError:
                    return False

            asked(b"")
            while len(running.said) < 1:
                asked(b"?")
            program()
            while not asked(b"again"):
                pass
            running.wait(lambda: len(running.said) == 2, "both lines")
        return {"found": found, "callers": len(senders), "said": running.said}


def test_datagrams_keep_their_boundaries_and_callers_apart(tmp_path: Path) -> None:
    assert run_inside(udp, tmp_path, str(tmp_path)) == {
        "found": [True] * 6,
        "callers": 3,
        "said": [
            "127.0.0.1:5353: nothing listens there; callers are turned away",
            "127.0.0.1:5353 answers again",
        ],
    }


def cut(folder: str) -> Any:
    """Carriers are cut in the middle of a transfer, up and down."""
    serve(echo, 6080)
    data = os.urandom(24 << 20)
    with inbound(folder, "6080:8080") as (running, _, _):
        result: list[bytes] = []
        transfer = threading.Thread(target=lambda: result.append(exchange(ADDRESS, 8080, data)))
        transfer.start()
        cuts = 0
        while transfer.is_alive() and cuts < 3:
            time.sleep(0.15)
            cuts += 1
            for carrier in list(running.carriers):
                if carrier.fileno() >= 0:
                    carrier.socket.shutdown(socket.SHUT_RDWR)
            running.wait(whole(running), "whole again")
        transfer.join(60)
        return {"equal": hashlib.sha256(b"".join(result)).digest() == hashlib.sha256(data).digest(), "cuts": cuts > 0}


def test_callers_survive_carriers(tmp_path: Path) -> None:
    assert run_inside(cut, tmp_path, str(tmp_path)) == {"equal": True, "cuts": True}


def restarted(folder: str) -> Any:
    serve(echo, 6080)
    with inbound(folder, "6080:8080") as (running, listening, agents):
        kept = socket.create_connection((ADDRESS, 8080))
        kept.sendall(b"x")
        kept.recv(1)
        agents[-1].kill()
        agents[-1].wait()
        agents.append(agent(Path(folder)))
        gone = said_of(lambda: kept.recv(1))
        running.wait(lambda: said_of(lambda: exchange(ADDRESS, 8080, b"again")) == "b'again'", "another agent listens")
        running.wait(lambda: listening.callers == 0, "no callers")
        return gone


def test_another_agent_is_asked_to_listen(tmp_path: Path) -> None:
    assert run_inside(restarted, tmp_path, str(tmp_path)) in ("ConnectionResetError", "b''")


def many(folder: str) -> Any:
    inbound_module.MAX_CALLERS = 3  # type: ignore[misc]
    serve(echo, 6080)
    with inbound(folder, "6080:8080") as (running, listening, _):
        kept = [socket.create_connection((ADDRESS, 8080)) for _ in range(3)]
        running.wait(lambda: listening.callers == 3, "three callers")
        more = said_of(lambda: exchange(ADDRESS, 8080, b"x"))
        kept[0].close()
        running.wait(lambda: listening.callers == 2, "two callers")
        return [more, said_of(lambda: exchange(ADDRESS, 8080, b"x"))]


def test_no_more_callers_than_the_cap(tmp_path: Path) -> None:
    assert run_inside(many, tmp_path, str(tmp_path)) == ["ConnectionResetError", "b'x'"]


def slow(folder: str) -> Any:
    """A program that does not read: the caller waits, and neither side keeps without bound."""

    def deaf(connection: socket.socket) -> None:
        time.sleep(60)

    serve(deaf, 6080)
    serve(echo, 6081)
    with inbound(folder, "6080:8080", "6081:8081") as _:
        with socket.create_connection((ADDRESS, 8080)) as caller:
            caller.settimeout(1)
            sent = 0
            try:
                while sent < 1 << 30:
                    sent += caller.send(bytes(1 << 20))
            except TimeoutError:
                pass
            others = exchange(ADDRESS, 8081, b"still here")
        return {"bounded": sent < 64 << 20, "others": others.decode()}


def test_a_program_that_never_reads_holds_up_its_caller_and_nobody_else(tmp_path: Path) -> None:
    assert run_inside(slow, tmp_path, str(tmp_path)) == {"bounded": True, "others": "still here"}


def taken(folder: str) -> Any:
    server = socket.create_server(("0.0.0.0", 8080))
    try:
        with inbound(folder, "9090:8080"):
            return "listens"
    except KtError as error:
        server.close()
        return [type(error).__name__, str(error), error.why]


def test_a_port_that_cannot_be_had(tmp_path: Path) -> None:
    assert run_inside(taken, tmp_path, str(tmp_path)) == [
        "ShadowFailed",
        "the shadow pod cannot listen on port 8080",
        "something in the pod has the port",
    ]


def old() -> Any:
    try:
        check_listens({"agent": "0.0.9"}, parse_exposes(["80"]))
    except KtError as error:
        return [str(error), error.why]
    return []


def test_an_older_agent_is_named(tmp_path: Path) -> None:
    assert run_inside(old, tmp_path) == [
        "the agent in the shadow pod cannot listen for TCP",
        "it is of version 0.0.9",
    ]
