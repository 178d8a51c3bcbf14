"""Certificates and kubeconfigs of one lab.

The authority's certificate has no key identifiers on purpose: many clusters' have none, and Python 3.13 refuses such by default.

Not here: who uses them.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.lab.commands import run
from tests.lab.instance import Instance

#: name -> (subject, group). The names that Kubernetes' default roles are bound to.
CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "apiserver-kubelet": "/O=system:masters/CN=apiserver-kubelet",
}

_CA = """[req]
distinguished_name = dn
x509_extensions = ca
[dn]
[ca]
basicConstraints = CA:TRUE
"""


def make(instance: Instance, node_name: str) -> Path:
    """All of them; the folder."""
    folder = instance.state / "pki"
    folder.mkdir(parents=True)
    (folder / "ca.cnf").write_text(_CA)
    _key(folder, "ca")
    run("openssl", "req", "-x509", "-new", "-key", folder / "ca.key", "-subj", "/CN=lab-ca", "-days", "3650",
        "-config", folder / "ca.cnf", "-out", folder / "ca.crt")  # fmt: skip
    _key(folder, "sa")
    run("openssl", "pkey", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub")
    addresses = [
        instance.api4,
        instance.api6,
        instance.link4(1, 2),
        instance.link6(1, 2),
        "127.0.0.1",
        *instance.api_service,
    ]
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    alternatives = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])
    certificate(folder, "apiserver", "/CN=kube-apiserver", alternatives)
    certificate(folder, "kubelet", f"/O=system:nodes/CN=system:node:{node_name}",
                f"DNS:{node_name},IP:{instance.api4},IP:{instance.api6},IP:127.0.0.1")  # fmt: skip
    for name, subject in CLIENTS.items():
        certificate(folder, name, subject)
    for name in (*CLIENTS, "kubelet"):
        kubeconfig(instance, name, instance.state / f"{name}.conf")
    return folder


def certificate(folder: Path, name: str, subject: str, alternatives: str = "", *, days: int = 3650) -> None:
    """A key and a certificate of the lab's authority."""
    _key(folder, name)
    request = folder / f"{name}.csr"
    run("openssl", "req", "-new", "-key", folder / f"{name}.key", "-subj", subject, "-out", request)
    extensions = folder / f"{name}.ext"
    lines = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
    if alternatives:
        lines.append(f"subjectAltName={alternatives}")
    extensions.write_text("\n".join(lines) + "\n")
    run("openssl", "x509", "-req", "-in", request, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial",
        "-days", str(days), "-extfile", extensions, "-out", folder / f"{name}.crt")  # fmt: skip


def _key(folder: Path, name: str) -> None:
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", folder / f"{name}.key")


def kubeconfig(instance: Instance, name: str, file: Path) -> None:
    """A kubeconfig with the certificate `name` (JSON is YAML)."""
    folder = instance.state / "pki"
    cluster = {"server": f"https://{instance.api4}:6443", "certificate-authority": str(folder / "ca.crt")}
    user = {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "lab", "cluster": cluster}],
                "users": [{"name": name, "user": user}],
                "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
                "current-context": "lab",
            },
            indent=1,
        )
    )
