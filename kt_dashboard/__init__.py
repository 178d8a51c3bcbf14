"""The dashboard's room. Nothing is built here yet.

Not here: anything but reading kt_net.stats and the cluster's own records.
"""
