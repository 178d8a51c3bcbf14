"""The composition root and the public Python API: order of start, order of undo.

`connect.py` makes this machine part of the cluster, `forward.py` one port of it; `engine.py` is what both run on, `home.py` and
`control.py` how another terminal finds a running one, `doctor.py` what would be in the way.

Not here: printing, flags, exit codes (kt_cli).
"""
