"""The Kubernetes API: configuration, calls, the port-forward carrier, running choreography's steps.

Not here: which steps there are (kt_net.choreography), what the carrier's bytes mean (kt_net.tunnel).
"""
