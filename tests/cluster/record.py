"""Records what a real API server says on carriers, for the quiet tests of the parsers: `python -m tests.cluster.record` (root; the lab)
writes tests/quiet/wire/recorded/FORM.json. To be run again when another Kubernetes is to be understood.

Not here: what is made of it (tests/quiet/wire/test_recorded.py).
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kt_net.errors import TunnelLost
from kt_net.kube.carrier import WebsocketCarrier
from kt_net.kube.config import load_cluster
from kt_net.kube.dial import FORMS, Way, open_carrier
from kt_net.kube.tls import TlsConnection
from kt_net.wire import remotecommand
from tests.bench.tunnel import NAMESPACE, POD, pod
from tests.cluster.backend import LabBackend

FOLDER = Path(__file__).parents[1] / "quiet" / "wire" / "recorded"
ECHO_PORT, CLOSED_PORT = 7000, 7999
#: Sent and echoed: a short message, and then one that does not come in one piece.
SHORT, LONG = b"hello", bytes(range(256)) * 80
SECONDS = 15


def command(code: str) -> Way:
    """exec with a program instead of the bridge."""
    words = urlencode(
        [("command", word) for word in ("python3", "-c", code)]
        + [("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    )
    return Way("exec?" + words, remotecommand.SUBPROTOCOLS, lambda port: remotecommand.ExecBridge())


ECHO = "import os\nwhile data := os.read(0, 65536): os.write(1, data)"
FAILING = "import sys; sys.exit(3)"


def recorded(form: str, port: int, use: Callable[[WebsocketCarrier], None]) -> dict[str, Any]:
    """What the server says on a carrier that is used so; the pieces are what TLS gave at once."""
    pieces: list[bytes] = []
    original = TlsConnection.recv_into

    def recv_into(self: TlsConnection, room: memoryview) -> int:
        taken = original(self, room)
        pieces.append(bytes(room[:taken]))
        return taken

    carrier = open_carrier(load_cluster(), NAMESPACE, POD, port, form=form)
    TlsConnection.recv_into = recv_into  # type: ignore[method-assign]
    try:
        use(carrier)
    finally:
        TlsConnection.recv_into = original  # type: ignore[method-assign]
        carrier.close()
    home = str(Path.home()).encode()  # whose machine it was is nobody's business; frames keep their lengths
    plain = [piece.replace(home, b"/".ljust(len(home), b"x")) for piece in pieces]
    return {"port": port, "received": [base64.b64encode(piece).decode() for piece in plain]}


def echoed(carrier: WebsocketCarrier) -> None:
    """Both messages, there and back."""
    for message in (SHORT, LONG):
        carrier.send([message])
        back, limit = 0, time.monotonic() + SECONDS
        while back < len(message):
            assert time.monotonic() < limit
            carrier.flush()
            back += sum(map(len, carrier.receive()))
            time.sleep(0.01)


def refused(carrier: WebsocketCarrier) -> None:
    """Nobody listens there, or the program fails."""
    limit = time.monotonic() + SECONDS
    try:
        carrier.send([SHORT])
        while time.monotonic() < limit:
            carrier.flush()
            carrier.receive()
            time.sleep(0.01)
    except TunnelLost:
        return
    raise AssertionError("the server does not say that it failed")


def record(version: str) -> None:
    """Every form; on the laptop."""
    for form in list(FORMS):
        found: dict[str, Any] = {"kubernetes": version, "form": form}
        if form == "exec":
            FORMS[form] = command(ECHO)
        found["echo"] = recorded(form, ECHO_PORT, echoed) | {"payload": base64.b64encode(SHORT + LONG).decode()}
        if form == "exec":
            FORMS[form] = command(FAILING)
        found["refused"] = recorded(form, CLOSED_PORT, refused)
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{form}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(form, {way: len(found[way]["received"]) for way in ("echo", "refused")}, flush=True)


def main() -> None:
    """See above."""
    lab = LabBackend()
    lab.up()
    version = json.loads(lab.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    with pod(lab):
        subprocess.run(lab.laptop_argv([sys.executable, "-m", "tests.cluster.record", version]), check=True)


if __name__ == "__main__":
    record(sys.argv[1]) if len(sys.argv) > 1 else main()
