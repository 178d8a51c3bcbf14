"""On the path of a `ktctl` that is to be watched: profiles the thread that moves packets, and writes where its time goes when it ends.

Not here: who starts it (tests/bench/tunnel.py, "profile").
"""

import cProfile
import os
import pstats
import threading

_run = threading.Thread.run


def _watched(self: threading.Thread) -> None:
    if self.name != "ktctl-loop":
        _run(self)
        return
    profile = cProfile.Profile()
    try:
        profile.runcall(_run, self)
    finally:
        with open(os.environ["WATCH_TO"], "w") as file:
            pstats.Stats(profile, stream=file).sort_stats("tottime").print_stats(25)


if "WATCH_TO" in os.environ:
    threading.Thread.run = _watched  # type: ignore[method-assign]
