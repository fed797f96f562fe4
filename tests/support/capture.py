"""What really goes over a pod's wire: every TCP packet at an interface, of both families."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tests.support.netns import Namespace

ETH_P_ALL: Final = 3
SOL_PACKET: Final = 263
PACKET_STATISTICS: Final = 6
ROOM: Final = 1 << 23
TCP: Final = 6
SYN, ACK = 0x02, 0x10


class Packet(NamedTuple):
    """One TCP packet."""

    source_port: int
    port: int
    flags: int
    payload: bytes

    @property
    def opens(self) -> bool:
        return self.flags & (SYN | ACK) == SYN


class Capture:
    """Sees what reaches and leaves an interface of a namespace, or all where it names none, until closed."""

    def __init__(self, place: Namespace) -> None:
        self.packets: list[Packet] = []
        self._sock = place.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        if place.interface:
            self._sock.bind((place.interface, ETH_P_ALL))
        self._sock.settimeout(0.05)
        self._is_over = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._is_over:
            self._take()
        self._sock.setblocking(False)  # what came until then is in the socket, and counts
        while self._take():
            pass

    def _take(self) -> bool:
        """Read a packet; return whether there was one."""
        try:
            packet = _parse(self._sock.recv(65536))
        except (TimeoutError, BlockingIOError):
            return False
        if packet is not None:
            self.packets.append(packet)
        return True

    def close(self) -> None:
        """Stop; fail when the kernel could not hand over everything."""
        self._is_over = True
        self._thread.join(5)
        _, drops = struct.unpack("=II", self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._sock.close()
        assert drops == 0, f"the capture lost {drops} packets"

    def in_the_clear(self, secret: bytes) -> list[Packet]:
        """Return what must not be there: a SYN to another port than HBONE's, or the app's bytes."""
        found = self.packets
        return [each for each in found if (each.opens and each.port != 15008) or secret in each.payload]


@contextmanager
def capturing(place: Namespace) -> Iterator[Capture]:
    """Capture for the block."""
    capture = Capture(place)
    try:
        yield capture
    finally:
        capture.close()


def _parse(raw: bytes) -> Packet | None:
    """Packets of tests have no IPv6 extension headers."""
    if raw[0] >> 4 == 4 and raw[9] == TCP:
        end, at = struct.unpack_from("!H", raw, 2)[0], (raw[0] & 15) * 4
    elif raw[0] >> 4 == 6 and raw[6] == TCP:
        end, at = struct.unpack_from("!H", raw, 4)[0] + 40, 40
    else:
        return None
    source_port, port = struct.unpack_from("!HH", raw, at)
    return Packet(source_port, port, raw[at + 13], raw[at + (raw[at + 12] >> 4) * 4 : end])
