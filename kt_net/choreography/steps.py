"""Steps as values, and a sequence of them walked forwards and, from any point, backwards. Quiet.

A step's body may need what an earlier answer said (an owner's uid); it has a `Reference` in that place, filled in when the step is due.

Not here: requests over the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from kt_net.choreography.edits import Edit
from kt_net.errors import UsageFault

Verb: TypeAlias = Literal["create", "delete", "patch", "edit"]
Body: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reference:
    """The uid of the object that the step with this title made."""

    step: str


@dataclass(frozen=True, slots=True)
class Step:
    """One request, and how to take it back.

    Attributes:
        title: unique in its sequence; what progress and errors call it.
        body: the object to create, or a merge patch (RFC 7386); `Reference`s in it are filled in.
        inverse: of the step, or None when another step's inverse covers it (an owner's deletion takes what it owns).
        marked: labels that the object to delete must have: under its name there may be somebody else's.
        uid: of the object to delete: another one of its name is left alone.
        edit: what changes somebody's object, for "edit".
    """

    title: str
    verb: Verb
    kind: str
    namespace: str
    name: str
    body: Body | None = None
    inverse: Step | None = None
    marked: Mapping[str, str] | None = None
    edit: Edit | None = None
    uid: str = ""


class Sequence:
    """Where one run of a sequence stands: `due` is asked for, done, and told by `done`; `undo` says how to go back."""

    def __init__(self, steps: list[Step]) -> None:
        titles = [step.title for step in steps]
        if len(set(titles)) != len(titles):
            raise UsageFault("two steps of one sequence have the same title")
        self._steps = steps
        self._uids: dict[str, str] = {}
        self._begun = 0
        self._done = 0

    def due(self) -> Step | None:
        """The next step, references filled in; it counts as begun. None: all are done.

        Raises:
            UsageFault: it refers to a step that is not done.
        """
        if self._done == len(self._steps):
            return None
        self._begun = self._done + 1
        step = self._steps[self._done]
        return step if step.body is None else replace(step, body=self._filled(step.body))

    def done(self, answer: Mapping[str, Any]) -> None:
        """The step that was due is done; `answer` is the object as the API server has it."""
        step = self._steps[self._done]
        uid = answer.get("metadata", {}).get("uid")
        if isinstance(uid, str):
            self._uids[step.title] = uid
        self._done += 1

    def uid(self, title: str) -> str:
        """Of the object that the step with this title made.

        Raises:
            UsageFault: it is not done.
        """
        if title not in self._uids:
            raise UsageFault(f"{title} is not done, but something refers to it")
        return self._uids[title]

    def undo(self) -> list[Step]:
        """What takes back everything that may have happened, last first. A step that was begun may have happened, too."""
        inverses = [step.inverse for step in self._steps[: self._begun]]
        return [inverse for inverse in reversed(inverses) if inverse is not None]

    def _filled(self, value: Any) -> Any:
        if isinstance(value, Reference):
            return self.uid(value.step)
        if isinstance(value, Mapping):
            return {key: self._filled(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._filled(inner) for inner in value]
        return value
