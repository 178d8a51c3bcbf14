"""Several sessions that begin and end together, and who is told when one of their threads ends of something unforeseen."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from kt_net.errors import GivenBack
from kt_net.session.exchange import Exchanges


class Session:
    """Waits for its stop, or ends by itself."""

    def __init__(self, ends: BaseException | None = None) -> None:
        self._ends = ends
        self.closed = False

    def start(self) -> None:
        """Nothing to bring up."""

    def wait(self, stop: threading.Event) -> None:
        """Until `stop`."""
        if self._ends is not None:
            raise self._ends
        stop.wait()

    def close(self) -> list[str]:
        """Nothing to undo."""
        self.closed = True
        return []


@pytest.mark.parametrize("ends", [GivenBack("given back"), BrokenPipeError("nobody reads"), KeyError("a bug")])
def test_whatever_one_ends_of_all_end(ends: BaseException) -> None:
    stop = threading.Event()
    sessions = [Session(), Session(ends)]
    exchanges = Exchanges(cast(Any, sessions))
    try:
        with pytest.raises(type(ends)):
            exchanges.wait(stop)
    finally:
        stop.set()
    assert exchanges.close() == []
    assert all(one.closed for one in sessions)


def test_stopped() -> None:
    stop = threading.Event()
    stop.set()
    Exchanges(cast(Any, [Session(), Session()])).wait(stop)
