"""What is in the way is named, with the next step, and nothing is left behind."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kt_net.kube.api import HttpKubeApi
from kt_net.kube.config import load_cluster
from kt_net.kube.dial import open_carrier
from tests.cluster.backend import Backend, LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import ktctl
from tests.lab import pki


def failed(backend: Backend, *arguments: str) -> dict[str, Any]:
    """The error of a connect that has to fail."""
    code, answer = ktctl(backend, "connect", "--image", backend.python_image, *arguments)
    assert code == answer["exit"] != 0
    assert answer["error"]["next"]
    wait_nothing_of_ours(backend)
    error: dict[str, Any] = answer["error"]
    return error


def test_no_kubeconfig(lab: LabBackend) -> None:
    error = failed(lab, "--kubeconfig", "/nonexistent/config")
    assert error["class"] == "NoKubeconfig"
    assert "/nonexistent/config" in error["what"]


def test_kubeconfig_that_is_none(lab: LabBackend, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("{{{ not yaml")
    assert failed(lab, "--kubeconfig", str(tmp_path / "config"))["class"] == "NoKubeconfig"


def test_unknown_context_names_the_known_ones(lab: LabBackend) -> None:
    error = failed(lab, "--context", "elsewhere")
    assert error["class"] == "NoKubeconfig"
    assert "lab" in error["next"]


def test_api_server_that_does_not_answer(lab: LabBackend, variant: Callable[..., str]) -> None:
    error = failed(lab, "--kubeconfig", variant(cluster={"server": f"https://{lab.lab.instance.api4}:6444"}))
    assert error["class"] == "ApiUnreachable"


def test_wrong_credentials(lab: LabBackend, variant: Callable[..., str]) -> None:
    assert failed(lab, "--kubeconfig", variant(user={"token": "wrong"}))["class"] == "CredentialsRejected"


def test_no_credentials_at_all(lab: LabBackend, variant: Callable[..., str]) -> None:
    assert failed(lab, "--kubeconfig", variant(user={}))["class"] == "CredentialsRejected"


def test_credential_plugin_that_fails(lab: LabBackend, variant: Callable[..., str]) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/false", "interactiveMode": "Never"}
    assert failed(lab, "--kubeconfig", variant(user={"exec": plugin}))["class"] in (
        "CredentialsRejected",
        "NoKubeconfig",
    )


def test_credential_plugin_is_honoured(lab: LabBackend, variant: Callable[..., str], tmp_path: Path) -> None:
    token = lab.kubectl("create", "token", "default").strip()
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    (tmp_path / "answer").write_text(json.dumps(answer))
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "cat",
        "args": [str(tmp_path / "answer")],
        "interactiveMode": "Never",
    }
    # The default service account may do nothing: that it is named shows that its token arrived.
    error = failed(lab, "--kubeconfig", variant(user={"exec": plugin}))
    assert error["class"] == "PermissionMissing"


def test_expired_certificate(lab: LabBackend, variant: Callable[..., str]) -> None:
    folder = lab.lab.instance.state / "pki"
    pki.certificate(folder, "expired", "/O=system:masters/CN=late", days=-1)
    user = {"client-certificate": str(folder / "expired.crt"), "client-key": str(folder / "expired.key")}
    assert failed(lab, "--kubeconfig", variant(user=user))["class"] == "CredentialsRejected"


def test_wrong_certificate_authority(lab: LabBackend, variant: Callable[..., str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=lab-ca",
         "-days", "9", "-keyout", f"{other}.key", "-out", f"{other}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    error = failed(lab, "--kubeconfig", variant(cluster={"certificate-authority": f"{other}.crt"}))
    assert error["class"] == "CertificateRejected"


def test_wrong_host_name(lab: LabBackend, variant: Callable[..., str]) -> None:
    error = failed(lab, "--kubeconfig", variant(cluster={"tls-server-name": "other.example"}))
    assert error["class"] == "CertificateRejected"


def test_authority_without_key_identifiers_is_accepted(lab: LabBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13's default is forced here: it refuses the lab's authority, and we take it all the same."""
    plain = ssl.create_default_context

    def strict(*arguments: Any, **options: Any) -> ssl.SSLContext:
        context = plain(*arguments, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    cluster = load_cluster(kubeconfig=str(lab.kubeconfig))
    authority = cluster.configuration.ssl_ca_cert
    with (
        socket.create_connection((lab.lab.instance.api4, 6443)) as connected,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        strict(cafile=authority).wrap_socket(connected, server_hostname=lab.lab.instance.api4)
    assert HttpKubeApi(cluster).get("Namespace", "", "default")["metadata"]["name"] == "default"
    pod = lab.kubectl("get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[0].metadata.name}")
    open_carrier(cluster, "default", pod, 7000).close()


@pytest.fixture
def stranger(lab: LabBackend, variant: Callable[..., str]) -> str:
    """A kubeconfig of somebody without any right."""
    return variant(user=lab.credentials("stranger"))


def test_missing_permission_names_verb_and_resource(lab: LabBackend, stranger: str) -> None:
    error = failed(lab, "--kubeconfig", stranger)
    assert error["class"] == "PermissionMissing"
    for need in ("create jobs", "get pods/portforward", "create pods/portforward", "patch leases"):
        assert need in error["what"]


def test_image_that_cannot_be_pulled_is_said_at_once(lab: LabBackend) -> None:
    code, answer = ktctl(lab, "connect", "--image", "localhost:1/nothing:1")
    assert (code, answer["error"]["class"]) == (22, "ImageUnavailable")
    assert "localhost:1/nothing" in answer["error"]["what"] + answer["error"]["why"]
    assert answer["seconds"] < 20
    wait_nothing_of_ours(lab)


def test_namespace_that_is_not_there(lab: LabBackend) -> None:
    error = failed(lab, "--namespace", "not-there")
    assert error["class"] == "ObjectMissing"
    assert "not-there" in error["what"]


def test_namespace_that_cannot_be_one(lab: LabBackend) -> None:
    assert failed(lab, "--namespace", "No_Namespace!")["class"] == "UsageFault"


def test_quota_is_explained_by_its_event(lab: LabBackend, namespace: Callable[..., str]) -> None:
    name = namespace()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": name},
        "spec": {"hard": {"pods": "0"}},
    }
    lab.kubectl("create", "-f", "-", given=json.dumps(quota))
    error = failed(lab, "--namespace", name)
    assert error["class"] == "AdmissionRefused"
    assert "quota" in error["why"]


def test_no_tun_device(lab: LabBackend) -> None:
    """In a mount namespace of its own /dev/net/tun is hidden; its copy of the laptop's files goes with it."""
    command = "mount --bind /dev/null /dev/net/tun && exec ktctl --output json connect --image " + lab.python_image
    result = subprocess.run(
        lab.laptop_argv(["unshare", "--mount", "--propagation", "private", "sh", "-c", command]),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    answer = json.loads(result.stdout.splitlines()[-1])
    assert (result.returncode, answer["error"]["class"]) == (31, "TunUnavailable")


def test_neither_root_nor_sudo(lab: LabBackend, tmp_path: Path) -> None:
    """Somebody who is not root (as far as ktctl can see), with a PATH that has no sudo."""
    home = tmp_path / "home"
    program = (
        "import os, sys; os.geteuid = lambda: 65534; os.environ['PATH'] = '/nonexistent';"
        "sys.argv = ['ktctl', '--output', 'json', 'connect']; from kt_cli.entry import run; run()"
    )
    result = subprocess.run(
        lab.laptop_argv(["env", f"KT_HOME={home}", sys.executable, "-c", program]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    answer = json.loads(result.stdout.splitlines()[-1])
    assert (result.returncode, answer["error"]["class"]) == (30, "PrivilegeMissing")
    assert "sudo" in answer["error"]["why"] + answer["error"]["next"]
