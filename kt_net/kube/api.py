"""Requests to the API server, in raw JSON: typed models cost 1.4 ms a pod, and we read few fields.

`KubeApi` is the port that choreography's runner needs; `HttpKubeApi` the real thing. A fake of it is held to the same conformance tests.

Not here: what to ask for.
"""

from __future__ import annotations

import builtins
import contextlib
import email.utils
import gc
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

import urllib3

from kt_net.choreography.names import FIELD_MANAGER
from kt_net.errors import CarrierProtocolError, RequestRefused, UsageFault
from kt_net.kube.config import Cluster
from kt_net.kube.refusals import refusal, unreachable

#: kind -> (path of its group and version, plural, namespaced)
KINDS: dict[str, tuple[str, str, bool]] = {
    "ConfigMap": ("api/v1", "configmaps", True),
    "Deployment": ("apis/apps/v1", "deployments", True),
    "EndpointSlice": ("apis/discovery.k8s.io/v1", "endpointslices", True),
    "Event": ("api/v1", "events", True),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers", True),
    "Ingress": ("apis/networking.k8s.io/v1", "ingresses", True),
    "Job": ("apis/batch/v1", "jobs", True),
    "Lease": ("apis/coordination.k8s.io/v1", "leases", True),
    "Namespace": ("api/v1", "namespaces", False),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies", True),
    "Node": ("api/v1", "nodes", False),
    "Pod": ("api/v1", "pods", True),
    "ReplicaSet": ("apis/apps/v1", "replicasets", True),
    "ResourceQuota": ("api/v1", "resourcequotas", True),
    "Role": ("apis/rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1", "rolebindings", True),
    "Secret": ("api/v1", "secrets", True),
    "SelfSubjectAccessReview": ("apis/authorization.k8s.io/v1", "selfsubjectaccessreviews", False),
    "SelfSubjectReview": ("apis/authentication.k8s.io/v1", "selfsubjectreviews", False),
    "Service": ("api/v1", "services", True),
    "ServiceAccount": ("api/v1", "serviceaccounts", True),
    "StatefulSet": ("apis/apps/v1", "statefulsets", True),
    "ServiceCIDR": ("apis/networking.k8s.io/v1", "servicecidrs", False),
}
_NO_SEGMENT = frozenset("/%?#")
PAGE = 500
#: A token that leads to the next page lives for five minutes (--etcd-compaction-interval). So often may it be too old in one list.
GONE = 410
#: A precondition does not hold: the object is another one (Kubernetes doc, "API concepts").
CONFLICT = 409
MAX_EXPIRED = 5
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
#: One line of a watch; etcd holds objects of 1.5 MiB.
MAX_WATCH_LINE = 4 * 1024 * 1024

Object = dict[str, Any]
T = TypeVar("T")
_MANAGER = {"fieldManager": FIELD_MANAGER}


class KubeApi(Protocol):
    """Requests; every one raises the errors of `refusals`."""

    def create(self, kind: str, namespace: str, body: Mapping[str, Any]) -> Object:
        """The object as created. AlreadyThere when there is one of that name."""

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """The object. ObjectMissing when it is not there."""

    def patch(self, kind: str, namespace: str, name: str, body: Mapping[str, Any], *, subresource: str = "") -> Object:
        """The object, or its subresource, after a JSON merge patch (RFC 7386) as field manager "ktctl".

        Conflict when the patch has another uid or resourceVersion than the object.
        """

    def delete(self, kind: str, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete it, and by the garbage collector what it owns. One that is not there is no error, nor one with another `uid`."""

    def list(self, kind: str, namespace: str | None, *, selector: str = "") -> Iterator[Object]:
        """All objects of a namespace, or of all namespaces, page by page."""


class HttpKubeApi:
    """See `KubeApi`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        options: dict[str, Any] = {"maxsize": 16, "retries": False}
        context = cluster.ssl_context()
        if context is not None:
            options["ssl_context"] = context
            if cluster.server_name:
                options["server_hostname"] = cluster.server_name
        proxy = cluster.proxy
        if proxy:
            self._pool: urllib3.PoolManager = urllib3.ProxyManager(
                proxy, proxy_headers=cluster.proxy_headers(), **options
            )
        else:
            self._pool = urllib3.PoolManager(**options)
        self._clock_offset = 0.0

    def server_time(self) -> float:
        """Unix seconds by the API server's clock, as its last answer's Date header had them."""
        return time.time() + self._clock_offset

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    def create(self, kind: str, namespace: str, body: Mapping[str, Any]) -> Object:
        """See `KubeApi`."""
        name = body.get("metadata", {}).get("name", "")
        return self._json(
            "POST", url_path(kind, namespace), body, what=f"create {kind} {name}".rstrip(), query=_MANAGER
        )

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """See `KubeApi`."""
        return self._json("GET", url_path(kind, namespace, name), what=f"get {kind} {name}")

    def patch(self, kind: str, namespace: str, name: str, body: Mapping[str, Any], *, subresource: str = "") -> Object:
        """See `KubeApi`."""
        below = f"/{subresource}" if subresource else ""
        return self._json(
            "PATCH",
            url_path(kind, namespace, name) + below,
            body,
            what=f"patch {kind} {name}{below}",
            query=_MANAGER,
            content_type="application/merge-patch+json",
        )

    def delete(self, kind: str, namespace: str, name: str, *, uid: str = "") -> None:
        """See `KubeApi`."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        response = self._request("DELETE", url_path(kind, namespace, name), options)
        if response.status >= 400 and response.status != 404 and not (uid and response.status == CONFLICT):
            raise refusal(response.status, response.data, f"delete {kind} {name}")

    def list(self, kind: str, namespace: str | None, *, selector: str = "") -> Iterator[Object]:
        """See `KubeApi`. Where reading takes so long that the API server has forgotten how it began, the rest is as it is by then."""
        for page in self._pages(kind, namespace, selector):
            yield from page.pop("items", None) or []  # so that nothing of it is left when the next is read

    def list_at(
        self, kind: str, namespace: str | None, part: Callable[[Object], T], *, selector: str = "", fields: str = ""
    ) -> tuple[builtins.list[T], str]:
        """A part of each object, and the version from which a watch goes on (Kubernetes doc, "Resource versions").

        Args:
            part: what is wanted of an object: thousands of whole ones would take tens of megabytes.
            selector: on labels (Kubernetes doc, "Labels and Selectors").
            fields: a selector on fields ("Field Selectors").
        """
        found: builtins.list[T] = []
        version = ""
        for page in self._pages(kind, namespace, selector, fields):
            found += map(part, page.pop("items", None) or [])
            version = version or str(page.get("metadata", {}).get("resourceVersion") or "")
        return found, version

    def _pages(self, kind: str, namespace: str | None, selector: str, fields: str = "") -> Iterator[Object]:
        what = f"list {kind}s"
        following, expired = "", 0
        while True:
            query = {
                "limit": str(PAGE),
                "labelSelector": selector,
                "fieldSelector": fields,
                "continue": following,
            }
            response = self._request("GET", url_path(kind, namespace), query=query)
            status, data = response.status, response.data
            del response  # it keeps its octets: a page of pods has megabytes
            if status == GONE and following and expired < MAX_EXPIRED:
                # Its token for the rest as it is now; without one everything once more (Kubernetes doc, "Retrieving large results
                # sets in chunks"): who reads sees objects twice then, and none is missed.
                expired += 1
                following = _continue_of(data)
                continue
            if status >= 400:
                raise refusal(status, data, what)
            with _without_collector():
                page = _parsed(data, what)
            del data
            yield page
            following = str(page.get("metadata", {}).get("continue") or "")
            if not following:
                return

    def get_path(self, path: str, what: str) -> Object:
        """Any path, as JSON."""
        return self._json("GET", path, what=what)

    def watch(
        self,
        kind: str,
        namespace: str | None,
        *,
        selector: str = "",
        fields: str = "",
        since: str = "",
        seconds: float,
        opened: Callable[[Any], None],
    ) -> Iterator[tuple[str, Object]]:
        """(type, object) as it comes, for at most `seconds`.

        Args:
            since: the version after which; without one existing objects come first.
            opened: given the response; see `WatchEnd`.
        """
        query = {
            "watch": "true",
            "labelSelector": selector,
            "fieldSelector": fields,
            "resourceVersion": since,
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        response = self._request("GET", url_path(kind, namespace), query=query, stream=True, seconds=seconds + 5)
        opened(response)
        if response.status >= 400:
            raise refusal(response.status, response.read(), f"watch {kind}s")
        waiting = b""
        for piece in response.stream(65536, decode_content=True):
            waiting += piece
            *lines, waiting = waiting.split(b"\n")
            if len(waiting) > MAX_WATCH_LINE:
                raise CarrierProtocolError("a watch event without end")
            for line in lines:
                event = _parsed(line, f"watch {kind}s")
                yield str(event.get("type")), event.get("object") or {}

    def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        response = self._request(method, path, body, query=query, content_type=content_type)
        if response.status >= 400:
            raise refusal(response.status, response.data, what)
        return _parsed(response.data, what)

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        stream: bool = False,
        seconds: float = ANSWER_SECONDS,
    ) -> Any:
        headers = {**self.cluster.headers(), "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body).encode()
        asked = {key: value for key, value in (query or {}).items() if value}
        url = f"{self.cluster.server}/{path}" + (f"?{urlencode(asked)}" if asked else "")
        try:
            response = self._pool.request(
                method,
                url,
                body=data,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds),
                preload_content=not stream,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(self.cluster.server, error) from error
        self._see_date(response.headers.get("Date"))
        return response

    def _see_date(self, text: str | None) -> None:
        if text:
            try:
                self._clock_offset = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
            except ValueError:
                pass


class WatchEnd:
    """Ends a watch from another thread: it blocks in a read that only the socket's end wakes."""

    def __init__(self) -> None:
        #: Whether somebody wanted it.
        self.wanted = False
        self._response: Any = None

    def opened(self, response: Any) -> None:
        """For `HttpKubeApi.watch`."""
        self._response = response
        if self.wanted:
            self.end()

    def end(self) -> None:
        """Now, or as soon as it has begun."""
        self.wanted = True
        if self._response is not None:
            with contextlib.suppress(Exception):
                self._response.connection.sock.shutdown(socket.SHUT_RDWR)


def url_path(kind: str, namespace: str | None, name: str = "") -> str:
    """The path of a kind's objects, or of one.

    Raises:
        UsageFault: a kind that we do not know, or a name that would lead elsewhere (Kubernetes doc, "Path Segment Names").
    """
    if kind not in KINDS:
        raise UsageFault(f"no path for kind {kind}")
    for segment in (namespace or "", name):
        if segment in (".", "..") or _NO_SEGMENT & set(segment):
            raise UsageFault(f"{segment!r} is no name of an object")
    group, plural, namespaced = KINDS[kind]
    place = f"namespaces/{namespace}/" if namespaced and namespace else ""
    return f"{group}/{place}{plural}" + (f"/{name}" if name else "")


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """What JSON becomes has no cycles: while a page of it is parsed, looking for some takes as long again as parsing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _continue_of(status: bytes) -> str:
    """The token for the remainder, in an answer that says that the one before is too old; "" when there is none."""
    try:
        return str(_parsed(status, "list").get("metadata", {}).get("continue") or "")
    except (RequestRefused, AttributeError):
        return ""


def _parsed(data: bytes, what: str) -> Object:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"cannot {what}", why="the API server's answer is no JSON") from error
    if not isinstance(parsed, dict):
        raise RequestRefused(f"cannot {what}", why="the API server's answer is no object")
    return parsed
