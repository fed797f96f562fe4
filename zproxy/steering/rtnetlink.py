"""rtnetlink dumps: interfaces, queueing disciplines, classes and filters of the calling thread's namespace.

A few requests by hand, because only what BPF needs is decoded, and pyroute2 would cost more than all else.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

LINKS, QDISCS, CLASSES, FILTERS = 18, 38, 42, 46
"""RTM_GETLINK, RTM_GETQDISC, RTM_GETTCLASS and RTM_GETTFILTER."""
ANSWER_S: Final = 5.0
"""How long the kernel may take for one answer; it takes milliseconds."""
_DUMP: Final = 0x301
"""NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH."""
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_TYPE_MASK: Final = 0x3FFF
_ROOM: Final = 1 << 17
_LINK_SIZE, _TC_SIZE = 16, 20


class Message(NamedTuple):
    """One answer: the fixed part, and the attributes by number."""

    ifindex: int
    handle: int
    """Of a queueing discipline or a class; of filters and interfaces something else."""
    attributes: Mapping[int, bytes]

    def text(self, number: int) -> str | None:
        """Return a zero-terminated text, None when it is not there."""
        return text(self.attributes.get(number))


class Routes:
    """A socket to the kernel; belongs to the namespace in which it was opened."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self) -> None:
        """Open the socket; raise OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(ANSWER_S)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def links(self) -> Iterator[Message]:
        """Yield the interfaces; raise OSError when the kernel refuses."""
        return self._dump(LINKS, struct.pack("=BxHiII", socket.AF_PACKET, 0, 0, 0, 0), _LINK_SIZE)

    def traffic(self, kind: int, ifindex: int, parent: int = 0) -> Iterator[Message]:
        """Yield QDISCS, CLASSES or FILTERS; the kernel ignores `ifindex` for the first."""
        return self._dump(kind, struct.pack("=BxxxiIII", 0, ifindex, 0, parent, 0), _TC_SIZE)

    def _dump(self, kind: int, body: bytes, size: int) -> Iterator[Message]:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _DUMP, self._sequence, 0)
        self._socket.send(header + body)
        answers: list[Message] = []
        while True:
            data = self._socket.recv(_ROOM)
            at = 0
            while at + _HEADER.size <= len(data):
                length, what, _, sequence, _ = _HEADER.unpack_from(data, at)
                part = data[at + _HEADER.size : at + length]
                at += max(length + 3 & ~3, _HEADER.size)
                if sequence != self._sequence:
                    continue
                if what == _DONE:
                    return iter(answers)
                if what == _ERROR:
                    (code,) = struct.unpack_from("=i", part)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    continue
                ifindex, handle = struct.unpack_from("=iI", part, 4)
                answers.append(Message(ifindex, handle, attributes(part[size:])))


def attributes(data: bytes) -> dict[int, bytes]:
    """Return attributes by number; what runs past the end is left out."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, number = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            break
        found[number & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def text(data: bytes | None) -> str | None:
    """Return the text before the first zero byte."""
    return None if data is None else os.fsdecode(data.partition(b"\0")[0])


def number(data: bytes) -> int:
    """Return an attribute that is an integer, of whatever width."""
    return int.from_bytes(data, "little" if struct.pack("=H", 1)[0] else "big")
