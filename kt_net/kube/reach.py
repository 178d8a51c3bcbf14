"""The way to the API server: does it answer, how fast, by which clock, and whom does it take us for.

Not here: what that account may do (kt_net.kube.permissions).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from kt_net.errors import ObjectMissing, PermissionMissing
from kt_net.findings import Finding, ok, warning
from kt_net.kube.api import HttpKubeApi

#: Seconds between the two clocks that nothing of ours is bothered by; tokens and certificates may be.
MOST_APART: Final = 30.0
#: A Date header has whole seconds (RFC 9110 section 5.6.7), and is on its way for a moment.
GRAIN: Final = 2.0


@dataclass(frozen=True, slots=True)
class Reached:
    """An API server that answers.

    Attributes:
        version: its own word, or "" where it tells nobody.
        round_trip_s: of one small request on a connection that stands.
        ahead_s: its clock against this machine's, by its Date header; negative: behind.
    """

    version: str
    round_trip_s: float
    ahead_s: float


def reach(api: HttpKubeApi) -> Reached:
    """Ask twice: the first time pays for the connection.

    Raises:
        ApiUnreachable, CertificateRejected: it does not answer, or is not the one that is meant.
        CredentialsRejected: it answers, and does not know us.
    """
    version = ""
    began = time.monotonic()
    for _ in range(2):
        began = time.monotonic()
        try:
            version = str(api.get_path("version", "read the version").get("gitVersion", ""))
        except PermissionMissing:
            pass  # hardened clusters tell it to nobody; it has answered
    taken = time.monotonic() - began
    return Reached(version, taken, api.server_time() - time.time())


def whoami(api: HttpKubeApi) -> str:
    """Whom the API server takes us for; "" where it cannot be asked (before Kubernetes 1.28).

    Raises:
        CredentialsRejected: for nobody.
        KtError: it did not answer.
    """
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = api.create("SelfSubjectReview", "", body)
    except (ObjectMissing, PermissionMissing):
        return ""
    return str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or "")


def judge_clock(ahead_s: float) -> Finding:
    """This machine's clock against the API server's."""
    if abs(ahead_s) <= GRAIN:
        return ok("clock", "as the API server's")
    words = f"{abs(ahead_s):.0f} s {'behind' if ahead_s > 0 else 'ahead of'} the API server's"
    if abs(ahead_s) <= MOST_APART:
        return ok("clock", words)
    return warning(
        "clock",
        f"{words}: certificates and tokens may be refused",
        "set this machine's clock: timedatectl set-ntp true (WSL2, virtual machines: after sleep)",
    )
