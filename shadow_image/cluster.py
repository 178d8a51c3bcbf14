"""The API server as an agent with an account reaches it: the pod's own service account, standard library only.

Kubernetes doc, "Accessing the Kubernetes API from a Pod". Not here: what for (restorer.py).
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kt_net.choreography.edits import Request
from kt_net.choreography.names import FIELD_MANAGER
from kt_net.errors import ApiUnreachable, Conflict, ObjectMissing, RequestRefused

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECONDS: Final = 10.0
#: etcd holds objects of 1.5 MiB.
MAX_ANSWER: Final = 4 * 1024 * 1024
_PATHS: Final = {
    "Service": "api/v1/namespaces/{}/services",
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "StatefulSet": "apis/apps/v1/namespaces/{}/statefulsets",
    "Lease": "apis/coordination.k8s.io/v1/namespaces/{}/leases",
}

Object = dict[str, Any]


class OwnCluster:
    """Requests about objects of the pod's namespace.

    Args:
        account: the folder with the account's token, certificate and namespace.
        environment: with the API server's address.
    """

    def __init__(self, account: Path = ACCOUNT, environment: Mapping[str, str] = os.environ) -> None:
        self._account = account
        self._host = environment.get("KUBERNETES_SERVICE_HOST", "")
        self._port = int(environment.get("KUBERNETES_SERVICE_PORT", "443"))

    def read(self, kind: str, name: str) -> Object:
        """The object.

        Raises:
            ObjectMissing, ApiUnreachable, RequestRefused.
        """
        return {**self._ask("GET", kind, name), "kind": kind}

    def write(self, kind: str, name: str, request: Request) -> Object:
        """The object after a merge patch.

        Raises:
            Conflict, ObjectMissing, ApiUnreachable, RequestRefused.
        """
        return self._ask("PATCH", kind, name, request)

    def _ask(self, method: str, kind: str, name: str, request: Request | None = None) -> Object:
        what = f"{method.lower()} {kind} {name}"
        headers = {"Accept": "application/json", "Content-Type": "application/merge-patch+json"}
        below = f"/{request.subresource}" if request is not None and request.subresource else ""
        manager = f"?fieldManager={FIELD_MANAGER}" if request is not None else ""
        body = None if request is None else json.dumps(request.body)
        connection = None
        try:
            # Read each time: the kubelet writes a new token every hour.
            headers["Authorization"] = f"Bearer {(self._account / 'token').read_text().strip()}"
            path = "/" + _PATHS[kind].format((self._account / "namespace").read_text().strip()) + f"/{name}{below}"
            context = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=SECONDS, context=context)
            connection.request(method, path + manager, body, headers)
            answer = connection.getresponse()
            status, data = answer.status, answer.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiUnreachable(f"cannot {what}", why=str(error)) from error
        finally:
            if connection is not None:
                connection.close()
        if status == 404:
            raise ObjectMissing(f"cannot {what}")
        if status == 409:
            raise Conflict(f"cannot {what}")
        if status >= 400:
            raise RequestRefused(f"cannot {what}", why=f"{status}: {data[:200].decode('utf-8', 'replace')}")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RequestRefused(f"cannot {what}", why="the answer is no JSON") from error
        if not isinstance(found, dict):
            raise RequestRefused(f"cannot {what}", why="the answer is no object")
        return found
