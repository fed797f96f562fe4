"""Datagrams that were sent to one of many addresses, and answers from that very address (ip(7), ipv6(7))."""

import ctypes
import socket
import struct
from typing import Final, NamedTuple

from zproxy.model.addr import Endpoint, canonical_ip

IP_PKTINFO: Final = 8
IP_FREEBIND: Final = 15
IPV6_RECVPKTINFO: Final = 49
IPV6_PKTINFO: Final = 50
IPV6_FREEBIND: Final = 78
"""An address that is local by a route only is none that one may send from without this."""
SO_ATTACH_FILTER: Final = 26
LOOPBACK: Final = 1
"""The index of lo in every network namespace."""
_CONTROL: Final = 128
_INDEX: Final = struct.Struct("=i")
_ANY_SOURCE: Final = bytes(4)
_INSTRUCTION: Final = struct.Struct("=HBBI")
_FROM_LOOPBACK: Final = (
    (0x20, 0, 0, 0xFFFFF008),  # load SKF_AD_IFINDEX
    (0x15, 0, 1, LOOPBACK),
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
    (0x06, 0, 0, 8),  # keep the header of UDP
)
"""Classic BPF (linux/filter.h)."""


class Datagram(NamedTuple):
    """One as it came."""

    data: bytes
    source: Endpoint
    sender: tuple[str, int]
    """`source` as the socket wants it back."""
    destination: str
    """The address that it was sent to, canonical text."""


def prepare(sock: socket.socket) -> None:
    """Make an unbound socket tell destinations and answer from them.

    What did not come over lo is EMPTY when it is received. All that a namespace sends to itself comes over
    lo, whichever interface its addresses are at. A source address proves less: in IPv6 the kernel takes one
    of its own from outside.
    """
    program = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in _FROM_LOOPBACK))
    where = struct.pack("@HP", len(_FROM_LOOPBACK), ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, where)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)


def receive(sock: socket.socket, size: int) -> Datagram | None:
    """Take one datagram of at most `size` bytes; None for one that is larger, or says no destination.

    Raise BlockingIOError when there is none, another OSError for what an earlier answer met.
    """
    data, control, flags, sender = sock.recvmsg(size, _CONTROL)
    destination = _destination(control)
    if destination is None or flags & socket.MSG_TRUNC:
        return None
    return Datagram(data, Endpoint(canonical_ip(sender[0]), sender[1]), sender, destination)


def answer(sock: socket.socket, data: bytes, to: Datagram) -> None:
    """Send `data` to whom `to` came from, from the address that it was sent to; raise OSError."""
    if sock.family == socket.AF_INET6:
        text = to.destination if ":" in to.destination else f"::ffff:{to.destination}"
        raw = socket.inet_pton(socket.AF_INET6, text) + _INDEX.pack(0)
        control = (int(socket.IPPROTO_IPV6), IPV6_PKTINFO, raw)
    else:
        raw = _INDEX.pack(0) + socket.inet_aton(to.destination) + _ANY_SOURCE
        control = (int(socket.IPPROTO_IP), IP_PKTINFO, raw)
    sock.sendmsg((data,), (control,), 0, to.sender)


def _destination(control: list[tuple[int, int, bytes]]) -> str | None:
    for level, kind, value in control:
        if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
            return canonical_ip(socket.inet_ntop(socket.AF_INET6, value[:16]))
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return socket.inet_ntoa(value[8:12])
    return None
