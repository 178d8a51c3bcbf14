"""The command line: flags, what is printed, exit codes.

Not here: networking or Kubernetes logic (kt_net.session is the public Python API).
"""
