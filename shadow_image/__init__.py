"""The agent in the shadow pod: standard library plus kt_net.tunnel only.

`__main__.py` reads the flags, `server.py` accepts carriers on loopback, `session.py` serves one, `tcp.py` and `datagrams.py` are its
connections, which see it as `streams.py` says; `policy.py` says what may be dialled, `caps.py` how much of everything. `bundle.py`
runs on the developer's machine: it packs all this into one file.

Not here: anything from a registry, anything privileged. Read next: docs/tunnel-protocol.md.
"""
