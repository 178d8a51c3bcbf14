"""Gives back what a client has taken, when its Lease is not renewed any more; then the agent ends.

Nobody's clock is trusted: what counts is the time by this process's own since the Lease was last seen to change. While the API server
does not answer nobody can renew anything, so that time does not count.

Not here: what giving back is (kt_net.choreography.edits), the requests (cluster.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kt_net.choreography.edits import GiveBack, Request, converge
from kt_net.choreography.records import FIELDS
from kt_net.errors import KtError, ObjectMissing, RequestRefused, UsageFault

logger = logging.getLogger("agent")

LOOK_SECONDS: Final = 2.0
#: How long a Lease holds that does not say it.
LEASE_SECONDS: Final = 30.0
MAX_CHARGE: Final = 16 * 1024
MAX_OBJECTS: Final = 64


class Cluster(Protocol):
    """See `shadow_image.cluster.OwnCluster`."""

    def read(self, kind: str, name: str) -> dict[str, Any]:
        """The object."""

    def write(self, kind: str, name: str, request: Request) -> dict[str, Any]:
        """The object after it."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What the agent is to give back.

    Attributes:
        lease: the session's, by name.
        session: its mark.
        objects: (kind, name).
    """

    lease: str
    session: str
    objects: tuple[tuple[str, str], ...]


def parse_charge(text: str) -> Charge:
    """From the agent's command line: {"lease", "session", "objects": [[KIND, NAME], ...]}.

    Raises:
        UsageFault: it is none.
    """
    try:
        words: Any = json.loads(text) if len(text) <= MAX_CHARGE else None
        objects = tuple((str(kind), str(name)) for kind, name in words["objects"])
        charge = Charge(str(words["lease"]), str(words["session"]), objects)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageFault("--restore: this makes no sense", why=repr(error)) from error
    if len(objects) > MAX_OBJECTS or not all(kind in FIELDS for kind, _ in objects):
        raise UsageFault("--restore: there is something that cannot be given back")
    return charge


class Restorer:
    """Looks at the Lease whenever it is told to.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, charge: Charge, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._charge = charge
        self._cluster = cluster
        self._clock = clock
        self._seen: object = None
        self._since = clock()
        self._lasts = LEASE_SECONDS

    def look(self) -> bool:
        """Whether everything is given back, because the session is over."""
        now = self._clock()
        try:
            lease: dict[str, Any] | None = self._cluster.read("Lease", self._charge.lease)
        except ObjectMissing:
            lease = None  # deleted, and not by the client, which would have ended us
        except KtError as error:
            logger.warning("the lease: %s", error)
            self._since = now
            return False
        spec = (lease or {}).get("spec") or {}
        renewed = (spec.get("renewTime"), spec.get("holderIdentity"), lease is None)
        lasts = spec.get("leaseDurationSeconds")
        self._lasts = float(lasts) if isinstance(lasts, int) and 0 < lasts <= 3600 else LEASE_SECONDS
        if renewed != self._seen:
            self._seen, self._since = renewed, now
        if now - self._since < self._lasts:
            return False
        logger.info("the lease has not been renewed for %.0f s: giving back", now - self._since)
        return self._give_back()

    def _give_back(self) -> bool:
        done = True
        for kind, name in self._charge.objects:
            try:
                converge(
                    GiveBack(self._charge.session),
                    lambda kind=kind, name=name: self._cluster.read(kind, name),  # type: ignore[misc]
                    lambda request, kind=kind, name=name: self._cluster.write(kind, name, request),  # type: ignore[misc]
                )
            except ObjectMissing:
                continue
            except RequestRefused as error:
                logger.warning("%s %s: %s (%s)", kind, name, error, error.why)
                done = False
            except KtError as error:
                logger.warning("%s %s: %s", kind, name, error)
                done = False
        return done
