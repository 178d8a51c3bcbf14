"""The object that an exchange has changed, from when it is taken to when it is given back; taken again when somebody writes it anew.

Not here: what is changed (kt_net.choreography.edits), the shadow pod.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from kt_net.choreography.edits import Edit, GiveBack, Standing, TakeReplicas, TakeSelector, field_of, standing
from kt_net.choreography.records import Object, Record, Value, name_of, record_of
from kt_net.errors import GivenBack, KtError, ObjectMissing
from kt_net.kube.follow import Followed, Key
from kt_net.kube.run import run_edit
from kt_net.session.engine import Engine, Progress

logger = logging.getLogger(__name__)

#: Before an object that somebody has just written is written again.
AGAIN_SECONDS: Final = 1.0


class Held:
    """A Service, a Deployment or a StatefulSet.

    Args:
        live: as it was before.
    """

    def __init__(self, engine: Engine, live: Object, progress: Progress) -> None:
        self._engine = engine
        self._api = engine.api
        self._progress = progress
        self._namespace = engine.cluster.namespace
        self._kind, self._name, self._words = str(live["kind"]), str(live["metadata"]["name"]), name_of(live)
        self._uid = str(live["metadata"]["uid"])
        self._record: Record | None = None  # as it was written last
        self._begun = False
        self._lock = threading.Lock()
        self._seen = threading.Event()
        self._followed: Followed[str] | None = None
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._keep, name="ktctl-held", daemon=True)

    def take(self) -> None:
        """It is ours, from now on whatever others do to it.

        Raises:
            Exchanged: somebody was quicker.
            KtError: the refusals of kt_net.kube.
        """
        with self._lock:
            self._begun = True
            self._take()
        self._followed = Followed(
            self._api,
            self._kind,
            self._namespace,
            self._changed,
            keep=lambda found: str(found["metadata"]["resourceVersion"]),
            fields=f"metadata.name={self._name}",
        )
        self._thread.start()

    def _edit(self, known: Value | None) -> Edit:
        user = self._engine.up().options.user
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._api.server_time()))
        if self._kind == "Service":
            return TakeSelector(self._engine.target, user, since, known=known if isinstance(known, Mapping) else None)
        return TakeReplicas(self._engine.target, user, since, known=known if isinstance(known, int) else None)

    def _take(self, known: Value | None = None) -> None:
        taken = run_edit(self._api, self._kind, self._namespace, self._name, self._edit(known))
        self._uid = str(taken["metadata"]["uid"])
        self._record = record_of(taken)

    def check(self) -> None:
        """Nothing, while it is ours.

        Raises:
            KtError: it is not any more.
        """
        if self._failure is not None:
            raise self._failure

    def look(self) -> None:
        """Nothing, when it is ours as far as anybody knows.

        Raises:
            GivenBack: it is not any more.
        """
        self.check()
        try:
            live = self._live()
            state = standing(live, self._engine.target, self._uid)
        except KtError:
            return
        if state in (Standing.GIVEN_BACK, Standing.ANOTHERS):
            raise self._given_back(state, live)

    # -- on threads

    def _changed(self, found: Mapping[Key, str]) -> None:
        self._seen.set()

    def _keep(self) -> None:
        try:
            self._keep_holding()
        except Exception as error:  # noqa: BLE001 - top frame of the thread: the session is to end of it, not to go on alone
            self._fail(error)

    def _keep_holding(self) -> None:
        """Look at it whenever it has changed, and take it again when somebody has written it anew."""
        gone = False
        while not self._ended.is_set():
            self._seen.wait()
            self._seen.clear()
            if self._ended.is_set():
                return
            try:
                live = self._live()
                state = standing(live, self._engine.target, self._uid)
                if state is Standing.CHANGED:
                    if self._ended.wait(AGAIN_SECONDS):
                        return
                    self._take_again()
                elif state in (Standing.GIVEN_BACK, Standing.ANOTHERS):
                    self._fail(self._given_back(state, live))
                elif state is Standing.GONE and not gone:
                    self._progress(f"{self._words} is gone; it is taken again when somebody makes it anew")
                gone = state is Standing.GONE
            except KtError as error:
                if isinstance(error, GivenBack):
                    self._fail(error)
                    return
                logger.warning("%s: %s", self._words, error)
                self._ended.wait(AGAIN_SECONDS)
                self._seen.set()

    def _live(self) -> Object | None:
        try:
            return {**self._api.get(self._kind, self._namespace, self._name), "kind": self._kind}
        except ObjectMissing:
            return None

    def _take_again(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            before = self._record.was if self._record is not None else None
            self._take(known=before)
            now = self._record.was if self._record is not None else None
        what = "as it was" if now is None or now == before else f"with {_said(now)}"
        self._progress(f"{self._words} was deployed anew, {what}: that will be given back; it is taken again")

    def _given_back(self, state: Standing, live: Object | None) -> GivenBack:
        if state is Standing.ANOTHERS and live is not None:
            record = record_of(live)
            return GivenBack(f"{self._words} has been taken by {record.user if record else 'somebody'}")
        return GivenBack(
            f"{self._words} has been given back",
            why="by ktctl recover, by whoever took this program for dead, or by writing it anew without our annotation",
        )

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._ended.set()

    # -- down

    def give_back(self) -> list[KtError]:
        """As it was; what could not be."""
        self._ended.set()
        self._seen.set()
        if self._followed is not None:
            self._followed.close()
        if not self._begun:
            return []
        with self._lock:
            try:
                edit = GiveBack(self._engine.target, known=self._record)
                given: Mapping[str, Any] = run_edit(self._api, self._kind, self._namespace, self._name, edit)
            except KtError as error:
                return [error]
        if given:
            self._progress(f"{self._words} is as it was, with {_said(field_of(given))}")
        return []


def _said(value: Value) -> str:
    return f"{value} replicas" if isinstance(value, int) else f"selector {dict(value)}"
