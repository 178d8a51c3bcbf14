"""The TUN device: packets of this machine's kernel. A small protocol with an in-memory twin and middleware.

`device.py` is the protocol, `linux.py` the real thing, `memory.py` its twin; `pcap.py` records, `tracer.py` tells (each a `tap.py`),
`faults.py` breaks (each a `middleware.py`). `filter.py`, `dissect.py` and `captured.py` are for those who look on: which packets, in which
words, and on their way to another process.

Not here: routes and addresses of the device (kt_net.host), what packets mean (kt_net.stack).
"""
