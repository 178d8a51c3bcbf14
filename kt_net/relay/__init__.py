"""Joins the flows of the stack to the streams of the tunnel; back-pressure lives here.

`streams.py` opens streams and tells their owner what came of it; `tcp.py`, `datagrams.py` and `names.py` are such owners, one per kind of
flow; `relay.py` is the room's door.

Not here: sockets, threads, clocks. Read next: kt_net.drivers, which feeds it.
"""
