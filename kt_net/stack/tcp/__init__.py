"""TCP as a passive end of every connection of this machine's programs.

`seq.py` arithmetic, `states.py` the table, `rtt.py` and `congestion.py` what is measured, `send.py` and `receive.py` the two halves,
`connection.py` what a segment does.

Not here: packets and their addresses (kt_net.stack.egress), which flow a segment belongs to (kt_net.stack.stack).
"""
