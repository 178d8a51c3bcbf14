"""Lanes and mux: many streams with credit of their own over one byte stream. Sans-I/O; the agent runs the same code.

Not here: websockets (kt_net.kube), anything outside the standard library. Read next: docs/tunnel-protocol.md.
"""
