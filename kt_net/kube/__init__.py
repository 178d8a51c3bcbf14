"""The Kubernetes API: configuration, calls, the port-forward carrier, running choreography's steps.

`config.py` who and where, `api.py` requests (raw JSON), `refusals.py` their errors, `run.py` steps, `shadow.py` waiting for a pod,
`carrier.py` bytes to a pod's port, `permissions.py` and `ranges.py` questions asked before connecting;
`reach.py`, `rights.py`, `policies.py`, `room.py`, `remains.py` judgements for `doctor`.

Not here: which steps there are (kt_net.choreography), what the carrier's bytes mean (kt_net.tunnel).
"""
