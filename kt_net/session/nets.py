"""Who brings back what a session has taken: the program at its end, its watchdog when it is killed, the agent when no Lease is renewed.

The third needs an account in the cluster: one of its own where the user may make it, an administrator's where there is one, else there
are two nets, and `ktctl clean`.

Not here: what each of them does (kt_net.choreography.edits), the processes (watchdog.py, shadow_image.restorer).
"""

from __future__ import annotations

import logging

from kt_net.choreography.lease import LEASE_SECONDS
from kt_net.choreography.names import RESTORER
from kt_net.choreography.restorer import Account
from kt_net.choreography.shadow import JOB
from kt_net.errors import KtError
from kt_net.kube.api import KubeApi
from kt_net.kube.permissions import ACCOUNT_NEEDS, missing
from kt_net.kube.shadow import Shadow
from kt_net.session.engine import Engine, SessionOptions
from kt_net.session.watchdog import Watchdog

logger = logging.getLogger(__name__)


def account_for(api: KubeApi, namespace: str, objects: tuple[tuple[str, str], ...]) -> Account | None:
    """The agent's, None when it can have none. What it has to be allowed besides is what the session itself has asked for."""
    if not missing(api, namespace, ACCOUNT_NEEDS):
        return Account(objects, own=True)
    try:
        api.get("ServiceAccount", namespace, RESTORER)
    except KtError as error:
        logger.debug("no account for the agent: %s", error)
        return None
    return Account(objects, own=False)


class Nets:
    """Those of one session.

    Args:
        objects: (kind, name): what it takes.

    Raises:
        KtError: the refusals of kt_net.kube.
    """

    def __init__(self, engine: Engine, options: SessionOptions, objects: tuple[tuple[str, str], ...]) -> None:
        self._session = engine.target
        self._objects = objects
        namespace = engine.cluster.namespace
        self.account = account_for(engine.api, namespace, objects)
        self._watchdog = Watchdog(kubeconfig=options.kubeconfig, context=options.context, namespace=namespace)
        self._watchdog.start()

    def shadow(self, shadow: Shadow) -> None:
        """There is a shadow pod, or another one."""
        self._watchdog.job(shadow.options.name, shadow.sequence.uid(JOB))

    def hold(self) -> None:
        """The objects are taken next."""
        for kind, name in self._objects:
            self._watchdog.hold(kind, name, self._session)

    @property
    def active(self) -> list[str]:
        """Which there are, in the order in which they come."""
        return [
            "client",
            *(["watchdog"] if self._watchdog.alive else []),
            *(["agent"] if self.account is not None else []),
        ]

    @property
    def words(self) -> str:
        """For people."""
        words = ["this program at its end"]
        if self._watchdog.alive:
            words.append("its watchdog when it is killed")
        if self.account is not None:
            words.append(f"the agent when its lease has not been renewed for {LEASE_SECONDS} s")
        last = (
            ""
            if self.account is not None
            else "; the agent has no account that may (deploy/restorer.yaml): else ktctl clean"
        )
        return f"given back by {', '.join(words)}{last}"

    def close(self, *, whole: bool) -> None:
        """The session is over. When not all could be given back, the watchdog goes on trying."""
        if whole:
            self._watchdog.done()
