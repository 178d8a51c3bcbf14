"""The resolver: which names go to the cluster, which to this machine's resolver, and what is answered. Sans-I/O.

`routing.py` decides where a name goes, `messages.py` wraps dnslib, `resolver.py` is the door.

Not here: sockets, resolv.conf (kt_net.host). Read next: kt_net.relay.
"""
