"""The cluster's processes and their configuration, with what a machine without systemd, modules and much privilege needs.

Not here: the order of things and waiting (cluster.py).
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.lab.images import reference
from tests.lab.instance import Instance
from tests.lab.processes import Processes

NODE = "lab-node"

AUDIT_POLICY = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:apiserver, system:kube-scheduler, system:kube-controller-manager, system:kube-proxy]
- level: None
  userGroups: [system:nodes, "system:serviceaccounts:kube-system"]
- level: Metadata
"""


def control_plane(instance: Instance, processes: Processes, binaries: Path) -> None:
    """etcd and the API server."""
    state = instance.state
    (state / "audit.yaml").write_text(AUDIT_POLICY)
    processes.start(
        "etcd",
        binaries / "etcd",
        f"--data-dir={state}/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
        namespace=instance.node,
    )
    start_apiserver(instance, processes, binaries)


def start_apiserver(instance: Instance, processes: Processes, binaries: Path, *more: str) -> None:
    """The API server alone, for tests that have ended it; with `more` flags."""
    state, pki = instance.state, instance.state / "pki"
    processes.start(
        "apiserver",
        binaries / "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--service-cluster-ip-range={instance.services}",
        "--secure-port=6443",
        "--bind-address=::",
        f"--advertise-address={instance.api4}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--audit-policy-file={state}/audit.yaml",
        f"--audit-log-path={state}/log/audit.log",
        "--shutdown-delay-duration=0s",
        *more,
        namespace=instance.node,
    )


def container_runtime(instance: Instance, processes: Processes) -> None:
    """containerd, and the CNI configuration that it hands to the plug-ins."""
    state = instance.state
    (state / "cni").mkdir(exist_ok=True)
    (state / "cni" / "10-lab.conflist").write_text(json.dumps(_cni(instance)))
    # Pods' network namespaces lie below the state folder: after a kill they are found there like any other mount of ours.
    (state / "containerd.toml").write_text(
        f"""version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
[grpc]
  address = "{state}/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{reference("pause")}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
"""
    )
    processes.start("containerd", "containerd", "-c", state / "containerd.toml", namespace=instance.node)


def _cni(instance: Instance) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(instance.state / "ipam"),
            "ranges": [[{"subnet": instance.pods4}], [{"subnet": instance.pods6}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    firewall = {"type": "firewall", "backend": "iptables"}
    return {"cniVersion": "0.4.0", "name": instance.cni_network, "plugins": [bridge, portmap, firewall]}


def controllers(instance: Instance, processes: Processes, binaries: Path) -> None:
    """Controller manager and scheduler."""
    state, pki = instance.state, instance.state / "pki"
    processes.start(
        "controller-manager",
        binaries / "kube-controller-manager",
        f"--kubeconfig={state}/controller-manager.conf",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--root-ca-file={pki}/ca.crt",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={instance.pods}",
        "--node-cidr-mask-size-ipv4=24",
        "--node-cidr-mask-size-ipv6=64",
        f"--service-cluster-ip-range={instance.services}",
        namespace=instance.node,
    )
    processes.start(
        "scheduler",
        binaries / "kube-scheduler",
        f"--kubeconfig={state}/scheduler.conf",
        "--leader-elect=false",
        namespace=instance.node,
    )


def node(instance: Instance, processes: Processes, binaries: Path) -> None:
    """kubelet and kube-proxy."""
    state, pki = instance.state, instance.state / "pki"
    (state / "node-resolv.conf").write_text(f"nameserver {instance.link4(3, 1)}\n")
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet.key",
        "clusterDNS": [instance.cluster_dns],
        "clusterDomain": "cluster.local",
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{state}/containerd/containerd.sock",
        "resolvConf": f"{state}/node-resolv.conf",
        # A kubelet removes the logs of pods that it does not know: with a common folder, those of every other lab.
        "podLogsDir": f"{state}/pod-logs",
        # What a machine without CAP_SYS_RESOURCE, with cgroup v1 and with little to measure needs:
        "oomScoreAdj": 0,
        "failSwapOn": False,
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "1Mi"},
        # Tests wait for these:
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    }
    (state / "kubelet.yaml").write_text(json.dumps(configuration, indent=1))
    processes.start(
        "kubelet",
        binaries / "kubelet",
        f"--config={state}/kubelet.yaml",
        f"--kubeconfig={state}/kubelet.conf",
        f"--hostname-override={NODE}",
        f"--node-ip={instance.api4},{instance.api6}",
        f"--root-dir={state}/kubelet",
        namespace=instance.node,
    )
    processes.start(
        "proxy",
        binaries / "kube-proxy",
        f"--kubeconfig={state}/proxy.conf",
        "--proxy-mode=nftables",
        f"--hostname-override={NODE}",
        "--oom-score-adj=0",
        f"--cluster-cidr={instance.pods}",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        namespace=instance.node,
    )
