"""What happens to the cluster's objects, step by step, as values.

Not here: the Kubernetes client (kt_net.kube runs the steps), clocks, randomness. Read next: kt_net.kube.
"""
