"""What happens to the cluster's objects, step by step, as values.

`names.py` has the words, `steps.py` what a step is and how a sequence of them is walked forwards and backwards, `shadow.py` the
sequence that brings up a shadow pod, `lease.py` the sign of life.

Not here: the Kubernetes client (kt_net.kube runs the steps), clocks, randomness. Read next: kt_net.kube.
"""
