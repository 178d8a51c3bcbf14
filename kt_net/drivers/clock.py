"""The clocks of this process: monotonic seconds, the `now` of every quiet room; and this machine's wall clock, for people to read.

Not here: the cluster's time (it comes from the API server's Date header).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]

monotonic: Clock = time.monotonic
#: Seconds since the epoch; never a measure of how long something took.
wall: Clock = time.time
