"""Errors of the API server and of the way to it, translated once.

Not here: raising them at the right moment.
"""

from __future__ import annotations

import json
import re
import ssl
from typing import Any

from kt_net.errors import (
    AdmissionRefused,
    AlreadyThere,
    ApiUnreachable,
    CertificateRejected,
    Conflict,
    CredentialsRejected,
    KtError,
    ObjectMissing,
    PermissionMissing,
    RequestRefused,
)

#: What RBAC says: User "x" cannot create resource "jobs" in API group "batch" in the namespace "default"
_CANNOT = re.compile(
    r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)"(?: in API group "(?P<group>[^"]*)")?(?P<where>.*)'
)
MAX_TEXT = 2000


def status_message(body: bytes) -> str:
    """The message of a Status object, or the beginning of whatever came instead."""
    try:
        status: Any = json.loads(body)
        if isinstance(status, dict) and isinstance(status.get("message"), str):
            return str(status["message"])[:MAX_TEXT]
    except ValueError:
        pass
    return body[:200].decode("utf-8", "replace").strip()


def refusal(code: int, body: bytes, what: str) -> KtError:
    """The error for an answer with an HTTP status of 400 and more. `what`: what was asked for, "create Job x in y"."""
    message = status_message(body)
    if code == 401:
        return CredentialsRejected("the API server does not accept the credentials", why=message)
    if code == 403:
        return forbidden(message, what)
    if code == 404:
        return ObjectMissing(f"cannot {what}", why=message)
    if code == 409 and _reason(body) == "AlreadyExists":
        return AlreadyThere(f"cannot {what}", why=message)
    if code == 409 and _reason(body) == "Conflict":
        return Conflict(f"cannot {what}", why=message)
    return RequestRefused(f"cannot {what}", why=f"{code}: {message}")


def _reason(body: bytes) -> str:
    """The reason of a Status object, "" when it is none."""
    try:
        status: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return str(status.get("reason") or "") if isinstance(status, dict) else ""


def forbidden(message: str, what: str) -> KtError:
    """403 is RBAC's word, or an admission plugin's."""
    match = _CANNOT.search(message)
    if match is None:
        return AdmissionRefused(f"cannot {what}", why=message)
    if '"system:anonymous"' in message:
        return CredentialsRejected("the kubeconfig has no credentials that the API server knows", why=message)
    place = re.search(r'in the namespace "([^"]+)"', match["where"])
    where = f"in namespace {place[1]}" if place else "in the whole cluster"
    return PermissionMissing(f"no permission to {match['verb']} {match['resource']} {where}", why=message)


def unreachable(server: str, error: BaseException) -> KtError:
    """The error for a request that got no answer."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CertificateRejected(f"the certificate of {server} is not accepted", why=cause.verify_message)
        if isinstance(cause, ssl.SSLError) and "CERTIFICATE" in (cause.reason or ""):
            return CredentialsRejected("the API server does not accept the client certificate", why=str(cause.reason))
        reason = getattr(cause, "reason", None)
        cause = reason if isinstance(reason, BaseException) else cause.__cause__ or cause.__context__
    return ApiUnreachable(f"the API server {server} does not answer", why=str(error).splitlines()[0][:MAX_TEXT])
