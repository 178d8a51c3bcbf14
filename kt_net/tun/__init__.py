"""The TUN device: packets of this machine's kernel. A small protocol with an in-memory twin and middleware.

Not here: routes and addresses of the device (kt_net.host), what packets mean (kt_net.stack).
"""
