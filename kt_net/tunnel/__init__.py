"""Lanes and mux: many streams with credit of their own over one byte stream. Sans-I/O; the agent runs the same code.

`session.py` is the door (`Tunnel`). Below it `mux.py` (yamux frames, streams, credit) stands on `lane.py` (hello, records,
acknowledgements, liveness); `requests.py` and `datagrams.py` say what the streams begin with and carry.

Not here: websockets (kt_net.kube), anything outside the standard library. Read next: docs/tunnel-protocol.md.
"""
