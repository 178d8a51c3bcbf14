"""Every cap and time of the tunnel, named, with where it comes from.

Not here: caps of the agent as a whole (shadow_image.caps).
"""

from __future__ import annotations

from dataclasses import dataclass

#: yamux's initial window; both sides may assume it before any window update (yamux spec, "Flow Control").
INITIAL_WINDOW = 256 * 1024
#: Largest payload of one data frame that we send. While one frame is on its way nothing else is: it bounds the wait of a small request.
MAX_FRAME_PAYLOAD = 64 * 1024
#: The same while several streams want to send.
FAIR_FRAME_PAYLOAD = 16 * 1024
#: A frame is cut to what the lane has room for, but not into crumbs.
SMALLEST_PIECE = 4 * 1024
#: Octets that wait on a lane which another stream had better not share.
CROWDED = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tunnel allows. Octets, seconds.

    Attributes:
        streams: streams open at once, both sides' together.
        opened_by_peer: streams that the peer may hold open at once (yamux has a backlog of 256 unaccepted ones; ours accepts at once).
        window: a stream's credit at first.
        largest_window: a stream's credit at the most; it grows while the round trip makes the sender wait.
        window_budget: by how much the windows of all streams together may have grown.
        replay: octets sent and not acknowledged by the peer's lane; nothing more is taken from the mux beyond.
        hello: octets of a hello's body.
        ping_every: end-to-end ping.
        dead_after: no sign of life for so long: the carrier counts as dead.
        dead_after_unacknowledged: the same while data is on its way that the peer has to acknowledge.
        dead_after_probe: the same once it was asked for a sign of life because something has changed on this machine.
    """

    streams: int = 16384
    opened_by_peer: int = 16384
    window: int = INITIAL_WINDOW
    largest_window: int = 4 * 1024 * 1024
    window_budget: int = 64 * 1024 * 1024
    replay: int = 4 * 1024 * 1024
    hello: int = 64 * 1024
    ping_every: float = 5.0
    dead_after: float = 15.0
    dead_after_unacknowledged: float = 5.0
    dead_after_probe: float = 2.0
