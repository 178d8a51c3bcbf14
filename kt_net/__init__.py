"""ktnet: a developer's machine becomes part of a Kubernetes cluster.

The floors, top to bottom (imports go down only): session, drivers, tun | host | kube, relay,
stack | tunnel | dns | choreography, wire, stats, addr | errors | findings. `docs/architecture.md` walks a packet through them.

Not here: anything that prints (kt_cli), anything that runs in the cluster (shadow_image).
"""
