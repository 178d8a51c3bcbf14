"""TCP as the far end of every connection of this machine's programs.

`table.py` finds the connection, `connection.py` is what a segment does to it; `states.py` the table of states, `seq.py` numbers and
positions, `timestamps.py` clocks; `receive.py` the receiving half; `sender.py` the sending one, on `send.py` (what is in flight),
`rtt.py` (how long to wait), `rack.py` (what is lost) and `congestion.py` (how much).

Not here: packets and their addresses (kt_net.stack.egress).
"""
