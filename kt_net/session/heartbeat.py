"""Renews the session's Lease, on a thread of its own: the API may be slow, packets may not wait for it.

Not here: what the Lease says (kt_net.choreography.lease).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from kt_net.choreography.lease import RENEW_EVERY, renewal
from kt_net.errors import KtError
from kt_net.kube.api import HttpKubeApi

logger = logging.getLogger(__name__)


def micro_time(unix: float) -> str:
    """RFC 3339 with microseconds, as Kubernetes' MicroTime has it."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Heartbeat:
    """Beats until stopped. A beat that fails is logged: the next one may not.

    Args:
        beaten: called after each beat that did not fail; may raise KtError.
    """

    def __init__(
        self,
        api: HttpKubeApi,
        namespace: str,
        name: str,
        summary: Callable[[], Mapping[str, Any]],
        *,
        beaten: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._summary = summary
        self._beaten = beaten
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ktctl-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a beat that is on its way is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(RENEW_EVERY):
            now = self._api.server_time()
            body = renewal(renew_time=micro_time(now), unix_seconds=int(now), summary=self._summary())
            try:
                self._api.patch("Lease", self._namespace, self._name, body)
            except KtError as error:
                logger.warning("the lease was not renewed: %s", error)
                continue
            try:
                self._beaten()
            except KtError as error:
                logger.warning("after the lease was renewed: %s", error)
