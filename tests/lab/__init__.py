"""The lab: a real single-node Kubernetes without Docker, a laptop beside it, and a piece of the rest of the world.

`python -m tests.lab up|down|status|shell|laptop|kubectl|packages|build|images`. `instance.py` says where everything is, `build.py` makes
the programs, `images.py` the images, `network.py` the namespaces, `daemons.py` the processes, `cluster.py` puts it together.

Not here: anything of the product.
"""
