"""The agent in the shadow pod: standard library plus kt_net.tunnel only.

Not here: anything from a registry, anything privileged. Read next: docs/tunnel-protocol.md.
"""
