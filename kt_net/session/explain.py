"""What becomes of a name, step by step: for `ktctl dns`. As libc goes about it: the search list, then the name as it is, or the other way
round when it has dots enough (resolv.conf(5), "ndots").

Not here: where a name goes (kt_net.dns); printing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from kt_net.dns.messages import question, records_of
from kt_net.dns.resolver import Answer, Resolver, Transport
from kt_net.dns.routing import Upstream
from kt_net.drivers.loop import Loop
from kt_net.host.resolvconf import ResolvConf

#: For one candidate: the resolver itself gives up before.
SECONDS: Final = 15.0
DEFAULT_NDOTS: Final = 1


@dataclass(frozen=True, slots=True)
class Explainer:
    """Asks the resolver as a program would, and keeps what it says.

    Args:
        resolv_conf: of this machine as it is while connected.
        servers: who is asked, in words.
    """

    loop: Loop
    resolver: Resolver
    resolv_conf: ResolvConf
    servers: dict[Upstream, str]

    def explain(self, name: str, kind: str) -> list[dict[str, Any]]:
        """Each candidate that is asked, until one is there: its `trail` and what was answered.

        Raises:
            MalformedMessage: this is no name, or no type.
        """
        found = []
        for candidate in self._candidates(name):
            found.append(self._ask(candidate, kind))
            if found[-1]["code"] != "NXDOMAIN" and (found[-1]["records"] or found[-1]["code"] != "NOERROR"):
                break
        return found

    def _candidates(self, name: str) -> list[str]:
        if name.endswith("."):
            return [name]
        absolute, searched = f"{name}.", [f"{name}.{domain.rstrip('.')}." for domain in self.resolv_conf.search]
        ndots = DEFAULT_NDOTS
        for option in self.resolv_conf.options:
            digits = option.removeprefix("ndots:")
            if digits != option and digits.isdigit():
                ndots = int(digits)
        return [absolute, *searched] if name.count(".") >= ndots else [*searched, absolute]

    def _ask(self, name: str, kind: str) -> dict[str, Any]:
        data = question(name, kind, int.from_bytes(os.urandom(2), "big"))
        answered, answers = threading.Event(), list[Answer]()

        def take(answer: Answer) -> None:
            answers.append(answer)
            answered.set()

        self.loop.call_soon(partial(self._receive, data, take))
        if not answered.wait(SECONDS):
            return {"name": name, "trail": [], "kept": False, "code": "no answer", "records": []}
        answer = answers[0]
        code, records = records_of(answer.data)
        return {
            "name": name,
            "kept": not answer.trail,
            "trail": [
                {
                    "who": asked.step.upstream.value,
                    "server": self.servers.get(asked.step.upstream, ""),
                    "name": asked.step.name,
                    "outcome": asked.outcome,
                    "records": asked.records,
                    "seconds": round(asked.seconds, 6),
                }
                for asked in answer.trail
            ],
            "code": code,
            "records": records,
        }

    def _receive(self, data: bytes, take: Callable[[Answer], None]) -> None:
        self.resolver.receive_query(data, client=take, transport=Transport.TCP, now=self.loop.now())
