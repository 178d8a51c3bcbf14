"""This machine's routes and DNS: plans, the root helper with its undo journal, and leftovers.

`machine.py` looks, `health.py` and `layout.py` judge what it saw.

Not here: packets, Kubernetes. `helper.py` is one stdlib-only file that runs as root on its own.
"""
