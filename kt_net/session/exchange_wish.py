"""What is asked of an exchange.

Not here: doing it (exchange.py, exchange_guests.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DRAIN_SECONDS: Final = 10.0
RECOVER_SECONDS: Final = 120.0


class Mode(StrEnum):
    """How callers come here: the Service selects the shadow pod; or the workload's pods are gone and it stands in for them; or an agent
    in the running pods takes them."""

    SELECTOR = "selector"
    SCALE = "scale"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class ExchangeWish:
    """What is asked for.

    Attributes:
        target: as written.
        exposes: as `--expose` has them.
        drain: seconds for callers to finish, at the end.
        mode: how callers come here.
        recover_wait: seconds for a workload's pods to be ready again, at the end, while callers still come here.
        proxy_protocol: TCP to local programs begins with the caller's address.
        environment: of an original container is wanted; `container` is its name, "" for the one with the exposed port.
    """

    target: str
    exposes: tuple[str, ...]
    drain: float = DRAIN_SECONDS
    mode: Mode = Mode.SELECTOR
    recover_wait: float = RECOVER_SECONDS
    proxy_protocol: bool = False
    environment: bool = False
    container: str = ""
