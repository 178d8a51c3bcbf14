"""Flags that every command takes, before or after its name; and KT Connect's camelCase spellings of them.

Not here: what they do.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer

from kt_cli.output import Format

Kubeconfig: TypeAlias = Annotated[
    str | None, typer.Option("--kubeconfig", "-c", metavar="FILE", help="kubeconfig to use")
]
Context: TypeAlias = Annotated[str | None, typer.Option("--context", metavar="NAME", help="context of the kubeconfig")]
Namespace: TypeAlias = Annotated[
    str | None, typer.Option("--namespace", "-n", metavar="NAME", help="namespace (default: the context's)")
]
Image: TypeAlias = Annotated[
    str | None, typer.Option("--image", "-i", metavar="NAME", help="image of the shadow pod: any with python3")
]
Output: TypeAlias = Annotated[Format | None, typer.Option("--output", "-o", help="what to print")]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", "-d", help="log what happens; tracebacks of errors")]
PodTimeout: TypeAlias = Annotated[
    float | None,
    typer.Option("--pod-creation-timeout", "--podCreationTimeout", metavar="SECONDS", help="for the shadow pod to run"),
]
IdleExit: TypeAlias = Annotated[
    float | None,
    typer.Option("--idle-exit", metavar="SECONDS", help="without a client the shadow pod ends after (default 600)"),
]


Name: TypeAlias = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="which connection, when several run")
]

StateDir: TypeAlias = Annotated[
    str | None,
    typer.Option("--state-dir", metavar="DIR", help="where the host helper keeps its undo journal", hidden=True),
]


def state_folder(asked: str | None) -> str:
    """Where the host helper keeps its undo journal."""
    from kt_net.host.client import DEFAULT_STATE

    return asked or os.environ.get("KT_STATE_DIR") or DEFAULT_STATE


def restore_machine(folder: str, say: Callable[[str], None]) -> list[str]:
    """Undo what connections that were killed left on this machine; what was done, in words.

    Raises:
        KtError: no root to be had, or the host helper failed.
    """
    from kt_net.host.client import leftovers, replay_leftovers

    lines = replay_leftovers(folder) if leftovers(folder) else []
    for line in lines:
        say(line)
    return lines


class CarrierForm(StrEnum):
    """Names of kt_net.kube.dial's forms, and "auto"."""

    auto = "auto"
    spdy = "spdy"
    websocket = "websocket"
    exec = "exec"


Carrier: TypeAlias = Annotated[
    CarrierForm,
    typer.Option("--carrier", help="how the tunnel goes through the API server; auto tries, and remembers per cluster"),
]


@dataclass(frozen=True, slots=True)
class Session:
    """The flags of every command that has a shadow pod."""

    pod_seconds: float | None
    idle_exit: float | None
    carrier: CarrierForm


@dataclass(slots=True)
class Globals:
    """The flags as given, before and after the command's name; later ones win."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    image: str | None = None
    output: Format | None = None
    debug: bool = False

    def merged(self, **later: Any) -> Globals:
        """With flags that came after the command's name."""
        values = {name: later.get(name) or getattr(self, name) for name in Globals.__slots__}
        return Globals(**values)

    @property
    def form(self) -> Format:
        """`--output`."""
        return self.output or Format.text

    def set_up_logging(self) -> None:
        """Our own words at DEBUG with --debug, else warnings; on standard error."""
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
        if self.debug:
            logging.getLogger("kt_net").setLevel(logging.DEBUG)
        # These libraries speak of what we translate and say ourselves.
        for noisy in ("urllib3", "kubernetes", "websocket"):
            logging.getLogger(noisy).setLevel(logging.DEBUG if self.debug else logging.CRITICAL)


def words(text: str) -> tuple[str, ...]:
    """A list as people write it: separated by commas or spaces."""
    return tuple(text.replace(",", " ").split())


def of(context: typer.Context) -> Globals:
    """The flags before the command's name."""
    given = context.obj
    return given if isinstance(given, Globals) else Globals()
