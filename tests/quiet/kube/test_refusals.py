"""Answers of the API server as errors of ours; ranges from addresses."""

from __future__ import annotations

import ipaddress
import json
import ssl

import pytest

from kt_net import errors
from kt_net.kube.ranges import POD_LENGTH, inferred
from kt_net.kube.refusals import refusal, unreachable


def status(message: str) -> bytes:
    return json.dumps({"kind": "Status", "message": message}).encode()


RBAC = 'jobs.batch is forbidden: User "ada" cannot create resource "jobs" in API group "batch" in the namespace "shop"'
CLUSTER_RBAC = 'nodes is forbidden: User "ada" cannot list resource "nodes" in API group "" at the cluster scope'
NOBODY = 'x is forbidden: User "system:anonymous" cannot get resource "pods" in API group "" in the namespace "shop"'
SECURITY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'


@pytest.mark.parametrize(
    ("code", "message", "kind", "words"),
    [
        (401, "Unauthorized", errors.CredentialsRejected, "credentials"),
        (403, RBAC, errors.PermissionMissing, "create jobs in namespace shop"),
        (403, CLUSTER_RBAC, errors.PermissionMissing, "list nodes in the whole cluster"),
        (403, NOBODY, errors.CredentialsRejected, "credentials"),
        (403, SECURITY, errors.AdmissionRefused, "create"),
        (404, "not found", errors.ObjectMissing, "create"),
        (409, "already exists", errors.RequestRefused, "create"),
        (500, "boom", errors.RequestRefused, "create"),
    ],
)
def test_refusal(code: int, message: str, kind: type[errors.KtError], words: str) -> None:
    error = refusal(code, status(message), "create Job x")
    assert type(error) is kind
    assert words in error.what
    assert error.next_step


@pytest.mark.parametrize("body", [b"", b"<html>proxy</html>", b"\xff\xfe", b"[1]", b'{"message": 7}'])
def test_answers_that_are_no_status(body: bytes) -> None:
    assert type(refusal(502, body, "create Job x")) is errors.RequestRefused


def test_no_answer() -> None:
    assert type(unreachable("https://x", TimeoutError("slow"))) is errors.ApiUnreachable
    wrong = ssl.SSLCertVerificationError(1, "self-signed")
    wrong.verify_message = "self-signed"
    wrapped = RuntimeError("pool")
    wrapped.__cause__ = wrong
    assert type(unreachable("https://x", wrapped)) is errors.CertificateRejected


def test_ranges_are_inferred_around_addresses_that_no_known_one_has() -> None:
    addresses = [ipaddress.ip_address(text) for text in ("10.1.2.3", "10.1.2.9", "10.1.3.1", "fd00::7", "10.9.9.9")]
    found = inferred(addresses, POD_LENGTH, [ipaddress.ip_network("10.9.0.0/16")])
    assert [str(prefix) for prefix in found] == ["10.1.2.0/24", "10.1.3.0/24", "fd00::/64"]
