"""Programs that everybody has, through the stack to a loopback relay and back: not an error, not an octet different."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.net.namespaces import run_inside
from tests.net.stack.loopback import Running, in_thread, wait_listening

GIB = 1 << 30
BLOCK = os.urandom(1 << 20)
FAR4, FAR6 = "10.96.0.10", "[fd96::10]"


class Pages(http.server.BaseHTTPRequestHandler):
    """/N: N octets, the same block again and again."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        octets = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(octets))
        self.end_headers()
        while octets > 0:
            self.wfile.write(BLOCK[:octets])
            octets -= len(BLOCK)

    def log_message(self, *what: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 2048


def digest(octets: int) -> str:
    """Of what `Pages` gives."""
    hashed = hashlib.sha256()
    while octets > 0:
        hashed.update(BLOCK[:octets])
        octets -= len(BLOCK)
    return hashed.hexdigest()


def iperf(reverse: bool, flows: int, v6: bool) -> dict[str, Any]:
    server = subprocess.Popen(["iperf3", "-s", "-1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_listening(5201)
    with Running():
        host = "fd96::10" if v6 else FAR4
        command = ["iperf3", "-c", host, "-t", "2", "-J", "-P", str(flows), *(["-R"] if reverse else [])]
        result = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
        server.wait(10)  # while there is still somebody to tell it that the client has gone
    found = json.loads(result.stdout)
    return {"error": found.get("error", ""), "octets": found.get("end", {}).get("sum_received", {}).get("bytes", 0)}


@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("flows", [1, 8])
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_iperf3(tmp_path: Path, reverse: bool, flows: int, v6: bool) -> None:
    result = run_inside(iperf, tmp_path, reverse, flows, v6)
    assert result["error"] == ""
    assert result["octets"] > 100 << 20


def curl_large(octets: int) -> dict[str, Any]:
    server = Server(("127.0.0.1", 8000), Pages)
    in_thread(server.serve_forever)
    command = f"set -o pipefail; curl -sS --fail http://{FAR4}:8000/{octets} | sha256sum"
    with Running() as running:
        result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=55, check=False)
        return {
            "code": result.returncode,
            "equal": result.stdout.split()[0] == digest(octets),
            "errors": result.stderr,
            "malformed": running.stack.stats(now=0.0).malformed,
        }


def test_curl_of_a_gibibyte(tmp_path: Path) -> None:
    assert run_inside(curl_large, tmp_path, GIB) == {"code": 0, "equal": True, "errors": "", "malformed": 0}


def curl_many(count: int, octets: int) -> dict[str, Any]:
    server = Server(("127.0.0.1", 8000), Pages)
    in_thread(server.serve_forever)
    far = [FAR4, FAR6]
    with Running() as running:
        processes = [
            subprocess.Popen(
                ["curl", "-sS", "-g", "--fail", f"http://{far[number % 2]}:8000/{octets}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for number in range(count)
        ]
        wrong = 0
        for process in processes:
            out, _ = process.communicate(timeout=100)
            wrong += process.returncode != 0 or out != BLOCK[:octets]
        until = time.monotonic() + 5
        while running.stack.stats(now=0.0).tcp_flows and time.monotonic() < until:
            time.sleep(0.1)
        return {"wrong": wrong, "left": running.stack.stats(now=0.0).tcp_flows}


def test_a_thousand_curls_at_once(tmp_path: Path) -> None:
    assert run_inside(curl_many, tmp_path, 1000, 20_000, seconds=150) == {"wrong": 0, "left": 0}


def redis() -> dict[str, Any]:
    server = subprocess.Popen(
        ["redis-server", "--port", "6379", "--save", "", "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        with Running() as running:
            command = [
                "redis-benchmark",
                "-h",
                FAR4,
                "-n",
                "20000",
                "-c",
                "50",
                "-d",
                "1000",
                "-t",
                "ping,set,get,lrange_100",
            ]
            result = subprocess.run([*command, "--csv"], capture_output=True, text=True, timeout=55, check=False)
            lines = [line for line in result.stdout.splitlines() if line.startswith('"')]
            return {
                "code": result.returncode,
                "kinds": len(lines) - 1,
                "errors": result.stderr,
                "resets": running.relay.resets,
            }
    finally:
        server.terminate()
        server.wait(10)


def test_redis_benchmark(tmp_path: Path) -> None:
    result = run_inside(redis, tmp_path)
    assert (result["code"], result["errors"]) == (0, "")
    assert result["kinds"] >= 5


def first_hop(far: str) -> dict[str, Any]:
    with Running():
        command = ["ping", "-n", "-c", "1", "-W", "2", "-t", "1", far]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return {"code": result.returncode, "said": result.stdout}


@pytest.mark.parametrize(("far", "hop"), [(FAR4, "192.0.0.8"), ("fd96::10", "fd6b:746e:6574::1")], ids=["v4", "v6"])
def test_traceroute_sees_a_first_hop(tmp_path: Path, far: str, hop: str) -> None:
    """What traceroute does: a hop limit of one, and whoever says that it was exceeded."""
    result = run_inside(first_hop, tmp_path, far)
    assert result["code"] == 1
    assert f"From {hop} icmp_seq=1 Time" in result["said"], result["said"]
    assert "xceeded" in result["said"]
