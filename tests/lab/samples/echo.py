"""Sample: TCP and UDP echo on port 7000, IPv4 and IPv6."""

import asyncio
import socket


class TcpEcho(asyncio.Protocol):
    """Sends back what comes; a half-close is answered when everything is sent back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]

    def eof_received(self) -> None:
        """Closing is asyncio's default: after what is queued."""


class UdpEcho(asyncio.DatagramProtocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.transport.sendto(data, addr)  # type: ignore[attr-defined]


async def main() -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    for host, family in (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)):
        await loop.create_server(TcpEcho, host, 7000, family=family, backlog=512)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        udp.bind((host, 7000))
        await loop.create_datagram_endpoint(UdpEcho, sock=udp)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
