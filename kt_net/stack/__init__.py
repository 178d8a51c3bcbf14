"""TCP/IP for the programs of this machine: packets in, flows out. Sans-I/O.

Not here: sockets, clocks, randomness, the tunnel. Read next: kt_net.relay, which joins flows to tunnel streams.
"""
