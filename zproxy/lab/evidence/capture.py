"""Captures packets inside a pod's network namespace with an AF_PACKET socket, as tcpdump does.

SOCK_DGRAM hands over packets from their IP header on, whatever the link is. Loopback is captured too, and
every packet says which interface it passed: on loopback the app talks to its straw, in the clear.
"""

import socket
import struct
from types import TracebackType
from typing import Final, NamedTuple

from zproxy.lab.evidence.packets import Packet, decode
from zproxy.net.netns import Netns

_ETH_P_ALL: Final = 0x0003
_ETH_P_IP: Final = 0x0800
_ETH_P_IPV6: Final = 0x86DD
_SO_RCVBUFFORCE: Final = 33
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_OUTGOING: Final = 4
_BUFFER: Final = 16 << 20
"""Bytes the kernel may hold between two drains."""
_SNAP: Final = 1 << 17
"""Longer than any packet, segmentation offload included."""
MAX_PACKETS: Final = 200_000
MAX_BYTES: Final = 64 << 20


class Captured(NamedTuple):
    """Everything that passed while the capture ran. `lost` counts packets that did not fit."""

    packets: tuple[Packet, ...]
    lost: int

    def on_wire(self) -> tuple[Packet, ...]:
        """Return what passed interfaces other than loopback."""
        return tuple(packet for packet in self.packets if packet.interface != "lo")

    def on_loopback(self) -> tuple[Packet, ...]:
        """Return what stayed inside the pod."""
        return tuple(packet for packet in self.packets if packet.interface == "lo")


class Capture:
    """A running capture in one namespace; a context manager that owns its socket. `drain` it often."""

    def __init__(self, netns: Netns) -> None:
        self._socket = netns.run(_open)
        self._packets: list[Packet] = []
        self._bytes = 0
        self._lost = 0

    def drain(self) -> None:
        """Take over what the kernel holds; NEVER blocks."""
        while True:
            try:
                data, (interface, protocol, direction, *_) = self._socket.recvfrom(_SNAP, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if protocol not in (_ETH_P_IP, _ETH_P_IPV6):
                continue
            if interface == "lo" and direction == _PACKET_OUTGOING:
                continue  # loopback shows each packet twice
            self._keep(decode(interface, data), len(data))
        _, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._lost += dropped  # reading the counter resets it

    def result(self) -> Captured:
        """Return what has been captured so far."""
        self.drain()
        return Captured(tuple(self._packets), self._lost)

    def _keep(self, packet: Packet, size: int) -> None:
        if len(self._packets) >= MAX_PACKETS or self._bytes + size > MAX_BYTES:
            self._lost += 1
            return
        self._packets.append(packet)
        self._bytes += size

    def __enter__(self) -> "Capture":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._socket.close()


def _open() -> socket.socket:
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    try:
        capture.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except BaseException:
        capture.close()
        raise
    return capture
