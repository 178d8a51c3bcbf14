"""The clock of this process: monotonic seconds, the `now` of every quiet room.

Not here: wall-clock time (the cluster's comes from the API server's Date header).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]

monotonic: Clock = time.monotonic
