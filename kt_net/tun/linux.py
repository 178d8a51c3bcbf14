"""A Linux TUN device around its descriptor.

Not here: creating it for `ktctl connect` (the host helper does, as root), addresses and routes.
"""

from __future__ import annotations

import errno
import fcntl
import os

import pytun

from kt_net.errors import TunUnavailable
from kt_net.tun.device import Buffers

#: linux/if_tun.h; pytun has no names for these.
IFF_VNET_HDR = 0x4000
TUNSETOFFLOAD = 0x400454D0
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4

#: The largest packet and the header before it.
_READ_OCTETS = 65535 + 64
#: After so many one read ends: four super-packets still are in the processor's cache when their payload goes on (measured: 32 halve
#: what 16 flows get).
_ENOUGH_OCTETS = 192 * 1024
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
#: The kernel refuses a packet whose family is switched off on the interface, or that it finds malformed: that packet is lost.
_LOST = frozenset({errno.EINVAL, errno.EAFNOSUPPORT})


class TunDevice:
    """See `Device`. Takes the descriptor over."""

    def __init__(self, descriptor: int, *, name: str, mtu: int, offload: bool) -> None:
        self._descriptor = descriptor
        self.name = name
        self.mtu = mtu
        self.offload = offload
        os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        """See `Device`."""
        return self._descriptor

    def read_packets(self, limit: int) -> list[bytes]:
        """See `Device`."""
        packets: list[bytes] = []
        octets = 0
        try:
            while len(packets) < limit and octets < _ENOUGH_OCTETS:
                packet = os.read(self._descriptor, _READ_OCTETS)
                packets.append(packet)
                octets += len(packet)
        except BlockingIOError:
            pass
        except OSError as error:
            raise TunUnavailable(f"the device {self.name} is gone", why=str(error)) from error
        return packets

    def write_packet(self, buffers: Buffers) -> bool:
        """See `Device`."""
        try:
            os.writev(self._descriptor, buffers)
        except OSError as error:
            if error.errno in _FULL or error.errno in _LOST:
                return False
            raise TunUnavailable(f"the device {self.name} is gone", why=str(error)) from error
        return True

    def close(self) -> None:
        """See `Device`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_tun(name: str, *, mtu: int, offload: bool) -> TunDevice:
    """A new device of this process's network namespace, up, without addresses.

    Raises:
        TunUnavailable: no /dev/net/tun, or no right to use it.
    """
    flags = pytun.IFF_TUN | pytun.IFF_NO_PI | (IFF_VNET_HDR if offload else 0)
    try:
        tun = pytun.TunTapDevice(name=name, flags=flags)
        if offload:
            fcntl.ioctl(tun.fileno(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
        tun.mtu = mtu
        tun.up()
        # A descriptor of our own: pytun closes its own with the object.
        return TunDevice(os.dup(tun.fileno()), name=tun.name, mtu=mtu, offload=offload)
    except (pytun.Error, OSError) as error:
        raise TunUnavailable(f"no TUN device {name}", why=str(error)) from error
