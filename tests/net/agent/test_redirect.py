"""The agent as a guest in somebody's pod: callers of the pod's program come to the client while it is there, and to the program otherwise.

The pod is the test's namespace with a program in it; callers are in another one, behind a cable.
"""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kt_net.tunnel.datagrams import frame_datagram
from kt_net.tunnel.events import HelloReceived
from kt_net.tunnel.requests import Network
from shadow_image.nft import Table
from tests.net.agent.test_agent import Client
from tests.net.agent.test_listening import answer, arrival, behind, listening, opened, say
from tests.net.namespaces import run_inside

POD, POD6 = "10.197.0.1", "fd97::1"
CALLER, PROBER, CALLER6 = "10.197.0.2", "10.197.0.3", "fd97::2"
#: The program's ports: TCP of both families, and UDP.
WEB, NAMES = 8080, 5353
#: The client is away for a second before callers are given back, looked at four times a second.
GIVEN_BACK = 20.0

CALL = """
import socket, sys
source, host, port, kind = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as s:
    s.settimeout(5)
    s.bind((source, 0))
    try:
        s.connect((host, port))
        s.send(b"question")
        print(s.recv(100).decode())
    except OSError as error:
        print(type(error).__name__)
"""


class Answer(socketserver.BaseRequestHandler):
    """The pod's own program."""

    def handle(self) -> None:
        if isinstance(self.request, tuple):
            self.request[1].sendto(b"program", self.client_address)
        else:
            self.request.recv(100)
            self.request.sendall(b"program")


class Web(socketserver.ThreadingTCPServer):
    """Both families."""

    address_family = socket.AF_INET6
    daemon_threads = True


class Callers:
    """Programs in the other namespace."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._inside = ["nsenter", f"--target={process.pid}", "--net"]

    def start(self, source: str, host: str, port: int, kind: str = "tcp") -> subprocess.Popen[str]:
        words = [*self._inside, sys.executable, "-c", CALL, source, host, str(port), kind]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def ask(self, source: str = CALLER, host: str = POD, port: int = WEB, kind: str = "tcp") -> str:
        with self.start(source, host, port, kind) as process:
            assert process.stdout is not None
            return process.stdout.read().strip()


@contextlib.contextmanager
def pod() -> Iterator[Callers]:
    """The cable, the program, and who calls it."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as other:
        time.sleep(0.3)
        near = ("ip link add eth0 type veth peer name far", "ip link set eth0 up", f"ip addr add {POD}/24 dev eth0")
        for command in (*near, f"ip addr add {POD6}/64 dev eth0 nodad", f"ip link set far netns {other.pid}"):
            subprocess.run(command.split(), check=True)
        far = ("ip link set far up", f"ip addr add {CALLER}/24 dev far", f"ip addr add {PROBER}/24 dev far")
        for command in (*far, f"ip addr add {CALLER6}/64 dev far nodad"):
            subprocess.run(["nsenter", f"--target={other.pid}", "--net", *command.split()], check=True)
        servers = (Web(("::", WEB), Answer), socketserver.ThreadingUDPServer((POD, NAMES), Answer))
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield Callers(other)
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()
            other.kill()


def guest(folder: str) -> Client:
    return Client(Path(folder), flags=("--redirect", "--untouched", PROBER))


def served(client: Client, callers: Callers, number: int, host: str = POD) -> list[object]:
    """A caller that comes to the client: what it got, and what the client learned of it."""
    with callers.start(CALLER6 if ":" in host else CALLER, host, WEB) as process:
        stream, who = arrival(client, number)
        answer(client, stream)
        say(client, stream, b"client")
        client.tunnel.finish(stream, now=time.monotonic())
        client.wait(lambda: behind(client, stream) == b"question")
        client.wait(lambda: process.poll() is not None)
        assert process.stdout is not None
        return [process.stdout.read().strip(), str(who.caller), who.port]


def until(condition: Callable[[], bool]) -> bool:
    limit = time.monotonic() + GIVEN_BACK
    while not condition():
        if time.monotonic() > limit:
            return False
    return True


def taken(folder: str) -> dict[str, object]:
    with pod() as callers:
        client = guest(folder)
        client.wait(lambda: any(isinstance(event, HelloReceived) for event in client.events))
        found: dict[str, object] = {"before": callers.ask()}
        stream = listening(client, WEB)
        found["client"] = served(client, callers, 0)
        found["client, IPv6"] = served(client, callers, 1, POD6)
        found["a prober"] = callers.ask(PROBER)
        found["another port"] = callers.ask(port=NAMES, kind="udp")
        client.tunnel.finish(stream, now=time.monotonic())
        client.turn()
        found["after"] = until(lambda: callers.ask() == "program")
        found["reports"] = next(e for e in client.events if isinstance(e, HelloReceived)).hello.report["redirect"]
        client.end()
        return found


def test_callers_come_to_the_client_with_their_addresses(tmp_path: Path) -> None:
    assert run_inside(taken, tmp_path, str(tmp_path)) == {
        "before": "program",
        "client": ["client", CALLER, WEB],
        "client, IPv6": ["client", CALLER6, WEB],
        "a prober": "program",
        "another port": "program",
        "after": True,
        "reports": "",
    }


def datagrams(folder: str) -> list[object]:
    with pod() as callers:
        client = guest(folder)
        listening(client, NAMES, Network.LISTEN_UDP)
        with callers.start(CALLER, POD, NAMES, "udp") as process:
            stream, who = arrival(client)
            answer(client, stream)
            say(client, stream, frame_datagram(b"client"))
            client.wait(lambda: process.poll() is not None)
            assert process.stdout is not None
            found = [process.stdout.read().strip(), str(who.caller), who.port, callers.ask()]
        client.end()
        return found


def test_datagrams(tmp_path: Path) -> None:
    assert run_inside(datagrams, tmp_path, str(tmp_path)) == ["client", CALLER, NAMES, "program"]


def away(folder: str) -> list[object]:
    with pod() as callers:
        client = guest(folder)
        listening(client, WEB)
        found: list[object] = [served(client, callers, 0)[0]]
        client.lose()
        found.append(callers.ask())  # comes to the client, whom the agent waits for
        found.append(until(lambda: callers.ask() == "program"))
        client.come_again()
        seen = time.monotonic() + 1.5  # the agent looks four times a second
        client.wait(lambda: time.monotonic() > seen)
        came = len(opened(client))  # callers of the seconds before it was known to be away
        found.append(served(client, callers, came)[0])
        client.process.send_signal(signal.SIGKILL)
        client.process.wait(10)
        found.append(callers.ask())
        return found


def test_a_client_that_is_away_and_an_agent_that_is_killed(tmp_path: Path) -> None:
    """A caller that waits is told so; the program again within seconds; the client again when it is back; the program at once."""
    assert run_inside(away, tmp_path, str(tmp_path)) == ["client", "ConnectionResetError", True, "client", "program"]


def expired(folder: str) -> list[object]:
    with pod() as callers, socketserver.ThreadingTCPServer((POD, 20080), Answer) as guest:
        guest.RequestHandlerClass = Ours
        threading.Thread(target=guest.serve_forever, args=(0.05,), daemon=True).start()
        table = Table("ktnet", seconds=3, untouched=[ipaddress.ip_address(PROBER)])
        table.set({("tcp", WEB): 20080})
        found: list[object] = [callers.ask(), callers.ask(PROBER)]
        found.append(until(lambda: callers.ask() == "program"))
        guest.shutdown()
        try:
            Table("ktnet", seconds=3)
        except OSError as error:
            found.append(type(error).__name__)
        table.close()
        return found


class Ours(socketserver.BaseRequestHandler):
    """Whom callers are redirected to."""

    def handle(self) -> None:
        self.request.recv(100)
        self.request.sendall(b"ours")


def test_what_nobody_sets_again_expires_in_the_kernel(tmp_path: Path) -> None:
    """As when the agent is stopped; a table of that name is its maker's only."""
    assert run_inside(expired, tmp_path, str(tmp_path)) == ["ours", "program", True, "PermissionError"]
