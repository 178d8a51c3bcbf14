"""What `ktctl forward` decides without the cluster and without sockets.

`targets.py` reads what users name, `ports.py` which ports of it they want, `places.py` takes from Kubernetes' objects where these are,
`choice.py` picks one for each connection.

Not here: reading objects (kt_net.session), sockets (kt_net.drivers). Read next: kt_net.session.forward.
"""
