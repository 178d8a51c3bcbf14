"""Joins the flows of the stack to the streams of the tunnel; back-pressure lives here.

Not here: sockets, threads, clocks. Read next: kt_net.drivers, which feeds it.
"""
