"""Which cluster, as whom: kubeconfig by way of the `kubernetes` library, and the TLS context for everything that dials.

Not here: requests.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import ssl
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kt_net.addr import IPAddress
from kt_net.choreography.names import check_namespace
from kt_net.errors import ApiUnreachable, CredentialsRejected, NoKubeconfig

logger = logging.getLogger(__name__)

DEFAULT_NAMESPACE = "default"


@dataclass(slots=True)
class Cluster:
    """One context of a kubeconfig.

    Attributes:
        server: base URL without a final slash.
        namespace: asked for, else the context's, else "default".
        configuration: of the `kubernetes` library; authentication is taken from it at each request, so tokens are refreshed.
    """

    context: str
    name: str
    server: str
    namespace: str
    user: str
    configuration: Any

    @property
    def host(self) -> str:
        """Of the API server."""
        return urlsplit(self.server).hostname or ""

    @property
    def port(self) -> int:
        """Of the API server."""
        parts = urlsplit(self.server)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def proxy(self) -> str | None:
        """URL of an HTTP proxy, from the kubeconfig or the environment; None where NO_PROXY says so.

        Raises:
            ApiUnreachable: a proxy that cannot be used.
        """
        from urllib.request import getproxies, proxy_bypass

        found: str | None = self.configuration.proxy
        if not found and not proxy_bypass(self.host):
            found = getproxies().get(urlsplit(self.server).scheme)
        return _proxy_url(found) if found else None

    def proxy_headers(self) -> dict[str, str]:
        """What the proxy wants of us: the name and password of its URL (RFC 7617)."""
        parts = urlsplit(self.proxy or "")
        if not parts.username:
            return {}
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return {"Proxy-Authorization": "Basic " + b64encode(user.encode()).decode()}

    def addresses(self) -> list[IPAddress]:
        """Of the API server (of the proxy, when one is used), as this machine resolves them now.

        Raises:
            ApiUnreachable: the name has no address.
        """
        proxy = self.proxy
        host = (urlsplit(proxy).hostname or self.host) if proxy else self.host
        try:
            infos = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ApiUnreachable(f"the API server {host} has no address", why=str(error)) from error
        return list({ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos})

    def headers(self) -> dict[str, str]:
        """Authentication, fresh.

        Raises:
            CredentialsRejected: an exec plugin failed.
        """
        configuration = self.configuration
        try:
            authorization = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        except Exception as error:
            raise CredentialsRejected("no credentials for the cluster", why=str(error)) from error
        headers = {"User-Agent": "ktctl"}
        if authorization:
            headers["Authorization"] = authorization
        elif configuration.username and configuration.password:
            headers["Authorization"] = configuration.get_basic_auth_token()
        return headers

    def ssl_context(self) -> ssl.SSLContext | None:
        """For TLS to the API server; None for plain HTTP.

        Chain and host name are verified. VERIFY_X509_STRICT, which Python 3.13 switches on, is switched off: it wants extensions
        (RFC 5280 key identifiers) that the certificate authorities of many clusters lack, and which no other client asks for.

        Raises:
            NoKubeconfig: certificate or key cannot be read.
        """
        if not self.server.startswith("https:"):
            return None
        configuration = self.configuration
        try:
            context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if not configuration.verify_ssl:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if configuration.cert_file:
                context.load_cert_chain(configuration.cert_file, configuration.key_file or None)
        except (OSError, ssl.SSLError) as error:
            raise NoKubeconfig("a certificate of the kubeconfig cannot be used", why=str(error)) from error
        return context

    @property
    def server_name(self) -> str | None:
        """The name in the server's certificate, where it is not its host name."""
        name: str | None = getattr(self.configuration, "tls_server_name", None)
        return name


def _proxy_url(text: str) -> str:
    """A proxy as people write it: without a scheme it is an HTTP proxy, as for curl.

    Raises:
        ApiUnreachable: of another kind, or no URL.
    """
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and (parts.port or 80) > 0
    except ValueError:
        whole = False
    if not whole:
        raise ApiUnreachable(
            "the proxy's address is none", why=url.rpartition("@")[2], next_step="name it http://HOST:PORT"
        )
    if parts.scheme not in ("http", "https"):
        raise ApiUnreachable(f"a proxy of kind {parts.scheme} cannot be used", next_step="name an HTTP proxy, http://")
    return url


def _check_server(server: str) -> None:
    try:
        parts = urlsplit(server)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port or 443) > 0:
            return
    except ValueError:
        pass
    raise NoKubeconfig(f"the kubeconfig's server is no URL: {server}", next_step="it is https://HOST:PORT")


def load_cluster(*, kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None) -> Cluster:
    """The cluster that the user means: flags, else KUBECONFIG, else ~/.kube/config.

    Raises:
        NoKubeconfig: there is no kubeconfig, it makes no sense, or it has no such context.
        UsageFault: `namespace` cannot be one.
    """
    from kubernetes import client, config

    where = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    paths = [Path(part).expanduser() for part in where.split(os.pathsep) if part]
    if not any(path.is_file() for path in paths):
        raise NoKubeconfig(f"no kubeconfig at {where}")
    try:
        contexts, active = config.list_kube_config_contexts(config_file=where)
        chosen = _choose(contexts, active, context)
        configuration = client.Configuration()
        # It is the environment's, taken without a look at NO_PROXY; the kubeconfig's comes with the next line.
        configuration.proxy = None
        config.load_kube_config(
            config_file=where, context=chosen["name"], client_configuration=configuration, persist_config=False
        )
    except NoKubeconfig:
        raise
    except Exception as error:
        if isinstance(error, TypeError | AttributeError | KeyError | IndexError):
            # Text that is YAML and no kubeconfig: what the library stumbles over says nothing to its user.
            raise NoKubeconfig(f"{where} is no kubeconfig") from error
        raise NoKubeconfig(f"the kubeconfig {where} cannot be used", why=_first_line(error)) from error
    details = chosen.get("context") or {}
    server = str(configuration.host).rstrip("/")
    _check_server(server)
    return Cluster(
        context=chosen["name"],
        name=str(details.get("cluster", "")),
        server=server,
        namespace=check_namespace(namespace or details.get("namespace") or DEFAULT_NAMESPACE),
        user=str(details.get("user", "")),
        configuration=configuration,
    )


def _choose(contexts: list[dict[str, Any]], active: dict[str, Any] | None, wanted: str | None) -> dict[str, Any]:
    if wanted is None:
        if active is None:
            raise NoKubeconfig("the kubeconfig has no current context", next_step="name one with --context")
        return active
    for candidate in contexts:
        if candidate["name"] == wanted:
            return candidate
    names = ", ".join(sorted(str(candidate["name"]) for candidate in contexts))
    raise NoKubeconfig(f"the kubeconfig has no context {wanted}", next_step=f"use one of: {names}")


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
