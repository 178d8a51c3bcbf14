"""yamux frames (hashicorp/yamux spec.md, version 0): the 12-octet header.

Not here: what a frame does to a stream (mux.py, states.py).
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

VERSION: Final = 0

#: version, type, flags, stream id, length.
HEADER: Final = struct.Struct("!BBHII")


class FrameType(IntEnum):
    """What the length field means: payload octets, credit, an opaque value, a code."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    """Flags of data and window update frames (PING uses SYN and ACK for question and answer)."""

    NONE = 0
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class GoAwayCode(IntEnum):
    """Why a session ends."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
