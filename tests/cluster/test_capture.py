"""Packets of a running connection: lines, files, objects; ended in every way; and `status --watch`."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import jsonschema
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

import kt_cli
from tests.cluster.backend import Backend
from tests.cluster.command import PROGRAM, SECONDS, Command
from tests.cluster.ktctl import Ktctl, ktctl

SCHEMA = json.loads((Path(kt_cli.__file__).parent / "output.schema.json").read_text())
Start = Callable[..., Command]
Laptop = Callable[..., subprocess.CompletedProcess[str]]


def service(backend: Backend, name: str) -> str:
    return backend.kubectl("get", "svc", name, "-o", "jsonpath={.spec.clusterIP}").strip()


def flags_of(lines: list[str]) -> list[str]:
    """Direction and flags of each TCP line."""
    found = [re.fullmatch(r"[0-9:]{8}\.\d{6} (in |out) .* TCP (\S+) seq=\d+.* len=\d+.*\n?", line) for line in lines]
    assert all(found), lines
    return [f"{match[1].strip()} {match[2]}" for match in found if match]


def test_a_request_line_by_line(backend: Backend, start: Start, connection: Ktctl, laptop: Laptop) -> None:
    web = service(backend, "web")
    command = start("capture", "--host", web, "--port", "80")
    assert "hello" in laptop("curl", "-s", f"http://{web}/").stdout
    command.wait_until(lambda: sum("FIN" in line for line in command.lines) >= 2)
    assert command.interrupt() == 0
    said = flags_of(command.lines)
    assert said[:3] == ["out SYN", "in SYN|ACK", "out ACK"]
    assert all(f"{web}:80" in line for line in command.lines)
    assert any(line.startswith("out") and "FIN" in line for line in said)
    assert any(line.startswith("in") and "FIN" in line for line in said)
    assert command.errors[-1] == f"{len(command.lines)} packets captured, 0 dropped\n"


def test_names_and_pings(backend: Backend, start: Start, connection: Ktctl, laptop: Laptop, echo_pod: str) -> None:
    names = start("capture", "--port", "53")
    pings = start("capture", "--protocol", "icmp", "--host", "10.0.0.0/8")
    assert laptop("dig", "+short", "web.default.svc.cluster.local", "A").stdout.strip()
    address = backend.kubectl("get", "pod", echo_pod, "-o", "jsonpath={.status.podIP}")
    assert laptop("ping", "-n", "-c1", "-W5", address).returncode == 0
    names.wait_until(lambda: any("DNS answer A web.default.svc.cluster.local. NOERROR" in line for line in names.lines))
    pings.wait_until(lambda: any("echo reply" in line for line in pings.lines))
    assert any(" out " in line and "DNS query A web.default.svc.cluster.local." in line for line in names.lines)
    assert f"> {address} ICMP echo request type=8 code=0 id=" in pings.lines[0]
    assert (names.interrupt(), pings.interrupt()) == (0, 0)


def test_a_file_that_others_read(
    backend: Backend, start: Start, connection: Ktctl, laptop: Laptop, tmp_path: Path
) -> None:
    """Super-packets among it; no checksum in it is wrong."""
    file = tmp_path / "bytes.pcap"
    command = start("capture", "--protocol", "tcp", "--write", str(file))
    code = (
        "import socket\ns = socket.create_connection(('bytes', 9000), 10)\ns.sendall(b'GET 2000000 1\\n')\n"
        "n = 0\nwhile n < 2000000: n += len(s.recv(1 << 20))\nprint(n)\n"
    )
    assert laptop(sys.executable, "-c", code).stdout.strip() == "2000000"
    time.sleep(0.5)  # the end of the flow
    assert command.interrupt() == 0
    assert command.lines == []
    packets = rdpcap(str(file))
    assert command.errors[-1] == f"{len(packets)} packets captured, 0 dropped\n"
    assert [str(packet[TCP].flags) for packet in packets[:2]] == ["S", "SA"]
    assert max(len(packet) for packet in packets) > 9000
    assert sum(len(packet[TCP].payload) for packet in packets if packet[TCP].sport == 9000) >= 2000000
    for packet in packets:
        again = packet.copy()
        del again[TCP].chksum
        assert type(again)(bytes(again))[TCP].chksum == packet[TCP].chksum, packet.summary()


def test_standard_output_and_a_reader_that_goes(backend: Backend, connection: Ktctl, laptop: Laptop) -> None:
    """As in `ktctl capture -w - | tcpdump -r -`."""
    argv = backend.laptop_argv([PROGRAM, "capture", "-w", "-", "--port", "53", "--count", "2"])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/") as process:
        assert process.stdout is not None
        head = process.stdout.read(24)
        assert laptop("dig", "+short", "web.default.svc.cluster.local", "A").stdout
        rest, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, head[:4]) == (0, b"\xd4\xc3\xb2\xa1")
    first = IP if rest[16] >> 4 == 4 else IPv6
    assert first(rest[16:])[UDP].dport == 53
    assert errors.endswith(b"2 packets captured, 0 dropped\n")
    argv = backend.laptop_argv([PROGRAM, "capture", "--port", "53"])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"capturing")
        process.stdout.close()
        laptop("dig", "+short", "web.default.svc.cluster.local", "A")
        assert process.wait(SECONDS) == 0
        assert b"Traceback" not in process.stderr.read()


def test_objects_and_a_count(backend: Backend, start: Start, connection: Ktctl, laptop: Laptop) -> None:
    web = service(backend, "web")
    command = start("capture", "--host", web, "--count", "3", "--output", "json")
    while not command.lines:  # it says nothing before the first packet
        laptop("curl", "-s", f"http://{web}/")
    assert command.wait_ended() == 0
    objects = [json.loads(line) for line in command.lines]
    for one in objects:
        jsonschema.validate(one, SCHEMA)
    assert [one["event"] for one in objects] == ["packet"] * 3 + ["result"]
    assert {one["protocol"] for one in objects[:3]} == {"TCP"}
    assert all(web in (one["source"], one["destination"]) for one in objects[:3])
    assert (objects[3]["captured"], objects[3]["dropped"], objects[3]["ended"]) == (3, 0, False)


def test_words_that_make_no_sense_and_files_that_cannot_be(backend: Backend, connection: Ktctl) -> None:
    for arguments, code, kind in (
        (("--port", "http"), 2, "UsageFault"),
        (("--host", "web"), 2, "UsageFault"),
        (("--protocol", "sctp"), 2, "UsageFault"),
        (("--write", "-"), 2, "UsageFault"),
        (("--write", "/nowhere/x.pcap"), 33, "HostRefused"),
        (("--write", "/dev/full"), 33, "HostRefused"),
    ):
        came, answer = ktctl(backend, "capture", *arguments)
        assert (came, answer["error"]["class"]) == (code, kind), arguments
        assert "disconnect" not in answer["error"]["next"]


def test_a_killed_and_a_stopped_one_change_nothing(
    backend: Backend, start: Start, connection: Ktctl, laptop: Laptop
) -> None:
    killed, stopped = start("capture"), start("capture")
    stopped.process.send_signal(signal.SIGSTOP)
    code = (
        "import socket\ns = socket.create_connection(('bytes', 9000), 10)\ns.sendall(b'GET 30000000 1\\n')\n"
        "n = 0\nwhile n < 30000000: n += len(s.recv(1 << 20))\nprint(n)\n"
    )
    killed.process.kill()
    assert killed.wait_ended() == -signal.SIGKILL
    assert laptop(sys.executable, "-c", code).stdout.strip() == "30000000"
    assert connection.process.poll() is None
    stopped.process.send_signal(signal.SIGCONT)
    assert stopped.interrupt() == 0
    dropped = re.fullmatch(r"(\d+) packets captured, (\d+) dropped\n", stopped.errors[-1])
    assert dropped is not None
    assert int(dropped[2]) > 0


# -- status


def test_status_says_everything(backend: Backend, connection: Ktctl) -> None:
    code, answer = ktctl(backend, "status")
    assert (code, answer["cluster_domains"]) == (0, ["cluster.local"])
    namespaces = backend.kubectl("get", "namespaces", "-o", "name").split()
    assert answer["namespaces"] == len(namespaces)
    assert answer["agent"]["families"] == ["ipv4", "ipv6"]
    assert answer["agent"]["ping"] == ["ipv4", "ipv6"]
    assert (answer["tunnel"]["carrier"], answer["tunnel"]["lanes"] >= 3) == ("spdy", True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", answer["since"])
    began = datetime.fromisoformat(answer["since"]).timestamp()
    assert abs(began + answer["connected_s"] - time.time()) < SECONDS


def test_status_that_goes_on(backend: Backend, start: Start, connection: Ktctl, laptop: Laptop) -> None:
    """Objects come by themselves; a block only when something has changed."""
    objects, blocks = start("status", "--watch", "--output", "json"), start("status", "--watch")
    objects.wait_until(lambda: len(objects.lines) >= 3)
    blocks.wait_until(lambda: bool(blocks.lines))
    with subprocess.Popen(
        backend.laptop_argv(
            [sys.executable, "-c", "import socket\ns = socket.create_connection(('echo', 7), 10)\ninput()"]
        ),
        stdin=subprocess.PIPE,
    ) as program:
        blocks.wait_until(lambda: any(":7 ESTABLISHED" in line for line in blocks.lines))
        program.communicate(b"\n")
    assert (objects.interrupt(), blocks.interrupt()) == (0, 0)
    for line in objects.lines:
        jsonschema.validate(json.loads(line), SCHEMA)
    ages = [json.loads(line)["connected_s"] for line in objects.lines]
    assert ages == sorted(ages)
    assert (objects.errors, blocks.errors) == ([], [])


def _take_the_terminal() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_status_on_a_terminal_is_drawn_again(backend: Backend, connection: Ktctl) -> None:
    """Ctrl-C is the terminal's; the cursor that was hidden is shown again."""
    ours, terminal = pty.openpty()
    with subprocess.Popen(
        backend.laptop_argv(["env", "TERM=xterm", PROGRAM, "status", "--watch"]),
        stdin=terminal, stdout=terminal, stderr=terminal, cwd="/", start_new_session=True,
        preexec_fn=_take_the_terminal,
    ) as process:  # fmt: skip
        os.close(terminal)
        drawn, limit = b"", time.monotonic() + SECONDS
        try:
            while drawn.count(b"every second; end with Ctrl-C") < 2:
                assert time.monotonic() < limit, drawn
                if select.select([ours], [], [], 0.1)[0]:
                    drawn += os.read(ours, 65536)
            os.write(ours, b"\x03")
            code = process.wait(SECONDS)
            while select.select([ours], [], [], 0.1)[0]:
                drawn += os.read(ours, 65536)
        except OSError:
            pass  # the terminal has nobody on its other end any more
        finally:
            process.kill()
            os.close(ours)
    assert code == 0
    assert drawn.count(b"\x1b[?25l") == drawn.count(b"\x1b[?25h") == 1
    assert b"Traceback" not in drawn
