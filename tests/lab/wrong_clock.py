"""A Python whose wall clock goes wrong: what a `sitecustomize` says, for a process here or in an image.

Not here: who gets one.
"""

from __future__ import annotations

FILE = "sitecustomize.py"
SECONDS = 600


def off_by(seconds: int) -> str:
    """The file; wall clock only, since the monotonic one of a machine is not wrong."""
    return f"import time\n\n_right = time.time\ntime.time = lambda: _right() + {seconds}\n"
