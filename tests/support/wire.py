"""What a namespace's interface receives, packet by packet, and packets made by hand."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.support.netns import Namespace

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
SYN, ACK, RST = 0x02, 0x10, 0x04
FRAGMENT, DESTINATION_OPTIONS = 44, 60
ICMP_ECHO = bytes([8, 0, 0, 0, 0, 0, 0, 0])
"""Without its checksum, so that nobody answers. ICMP is let out by every policy and recorded by none."""


class Packet(NamedTuple):
    """One IP packet. Ports are 0 in later fragments."""

    protocol: int
    src: str
    dst: str
    sport: int
    dport: int
    length: int
    """Of the whole packet."""
    flags: int
    """TCP's."""


class Capture:
    """TCP and UDP packets that arrive; made by `capture`."""

    def __init__(self, sock: socket.socket, at: Namespace) -> None:
        self._sock = sock
        self._at = at

    def until_now(self, sender: Namespace) -> list[Packet]:
        """Return what came since the last call; an ICMP packet of `sender` marks the end."""
        mark = os.urandom(16)
        with sender.socket(kind=socket.SOCK_RAW, proto=socket.IPPROTO_ICMP) as echo:
            echo.sendto(ICMP_ECHO + mark, (self._at.ip4, 0))
        found: list[Packet] = []
        while True:
            frame, address = self._sock.recvfrom(65536)
            if address[2] == socket.PACKET_OUTGOING or address[1] not in (ETH_P_IP, ETH_P_IPV6):
                continue
            if frame.endswith(mark):
                return found
            packet = _parse(frame[14:])
            if packet.protocol in (TCP, UDP):
                found.append(packet)


@contextmanager
def capture(at: Namespace) -> Iterator[Capture]:
    """Listen at the interface of a namespace for the block."""
    with at.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sock:
        sock.bind((at.interface, ETH_P_ALL))
        yield Capture(sock, at)


def send_raw(pod: Namespace, packet: bytes) -> None:
    """Send a packet as it is; of IPv4 the kernel fills in checksum and length."""
    if packet[0] >> 4 == 6:
        with pod.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0))
        return
    with pod.socket(kind=socket.SOCK_RAW, proto=socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))


def send_frame(pod: Namespace, peer: Namespace, packet: bytes) -> None:
    """Send an IPv4 packet by a packet socket, in a frame for `peer`."""
    macs = mac(peer) + mac(pod)
    with pod.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((pod.interface, 0))
        with dropping_is_no_error():
            raw.send(macs + struct.pack("!H", ETH_P_IP) + packet)


@contextmanager
def dropping_is_no_error() -> Iterator[None]:
    """Packet sockets, and raw ones of IPv6, hear that their packet was dropped."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise


def ip4(src: str, dst: str, protocol: int, payload: bytes, *, fragment: int = 0) -> bytes:
    """Return an IPv4 packet; `fragment` is flags and offset."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 77, fragment, 64, protocol, 0)
    head += socket.inet_aton(src) + socket.inet_aton(dst)
    words = struct.unpack("!10H", head)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + payload


def ip6(src: str, dst: str, protocol: int, payload: bytes) -> bytes:
    """Return an IPv6 packet, whose UDP `payload` gets its checksum, which IPv6 demands (RFC 8200 8.1)."""
    addresses = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
    summed = addresses + struct.pack("!II", len(payload), protocol) + payload + bytes(len(payload) % 2)
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    payload = payload[:6] + struct.pack("!H", ~total & 0xFFFF or 0xFFFF) + payload[8:]
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload


def tcp(sport: int, dport: int, flags: int) -> bytes:
    """Return a TCP header; nobody is to look at its checksum."""
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 5 << 4, flags, 1024, 0, 0)


def udp(sport: int, dport: int, payload: bytes) -> bytes:
    """Return a UDP datagram without checksum."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def mac(of: Namespace) -> bytes:
    """Return the hardware address of a namespace's interface."""
    with of.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((of.interface, 0))
        address: bytes = sock.getsockname()[4]
    return address


def _parse(raw: bytes) -> Packet:
    if raw[0] >> 4 == 4:
        protocol, at, is_later = raw[9], (raw[0] & 15) * 4, bool(int.from_bytes(raw[6:8], "big") & 0x1FFF)
        src, dst = socket.inet_ntoa(raw[12:16]), socket.inet_ntoa(raw[16:20])
        length = int.from_bytes(raw[2:4], "big")
    else:
        protocol, at, is_later = raw[6], 40, False
        src, dst = (socket.inet_ntop(socket.AF_INET6, raw[begin : begin + 16]) for begin in (8, 24))
        length = 40 + int.from_bytes(raw[4:6], "big")
        while protocol in (FRAGMENT, DESTINATION_OPTIONS):
            is_later = is_later or (
                protocol == FRAGMENT and bool(int.from_bytes(raw[at + 2 : at + 4], "big") & 0xFFF8)
            )
            protocol, at = raw[at], at + 8
    if is_later or protocol not in (TCP, UDP):
        return Packet(protocol, src, dst, 0, 0, length, 0)
    sport, dport = struct.unpack_from("!HH", raw, at)
    return Packet(protocol, src, dst, sport, dport, length, raw[at + 13] if protocol == TCP else 0)
