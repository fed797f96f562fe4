"""Netlink dumps (RFC 3549) from inside a namespace: send one request, collect every answer.

The kernel's own tables are read without a tool being installed, and without parsing what a tool prints.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from zproxy.net.netns import Netns

ROUTE: Final = 0
SOCK_DIAG: Final = 4
NETFILTER: Final = 12

_HEADER: Final = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_ATTRIBUTE: Final = struct.Struct("=HH")
"""nlattr: length, type."""
_NLM_F_REQUEST: Final = 0x1
_NLM_F_DUMP: Final = 0x300
_NLM_F_DUMP_INTR: Final = 0x10
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLA_TYPE_MASK: Final = 0x3FFF
_ATTEMPTS: Final = 5
_MAX_ANSWERS: Final = 1 << 17
"""Sockets, rules or links one dump may hold."""


def dump(netns: Netns, protocol: int, kind: int, request: bytes) -> list[bytes]:
    """Return the payloads (after nlmsghdr) that answer one dump request.

    A dump that changed while it was read is read again. Raise OSError when the kernel refuses.
    """
    with netns.run(
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    ) as link:
        link.settimeout(5)
        for sequence in range(1, _ATTEMPTS + 1):
            length = _HEADER.size + len(request)
            flags = _NLM_F_REQUEST | _NLM_F_DUMP
            link.send(_HEADER.pack(length, kind, flags, sequence, 0) + request)
            answers, is_consistent = _collect(link)
            if is_consistent:
                return answers
    raise OSError(11, f"the kernel's table changed during each of {_ATTEMPTS} dumps")


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes in `data` by type; of a repeated one, the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NLA_TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def _collect(link: socket.socket) -> tuple[list[bytes], bool]:
    answers: list[bytes] = []
    is_consistent = True
    while len(answers) < _MAX_ANSWERS:
        for kind, flags, payload in _messages(link.recv(1 << 18)):
            is_consistent &= not flags & _NLM_F_DUMP_INTR
            if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                _raise_error(payload)
                return answers, is_consistent
            answers.append(payload)
    raise OSError(7, f"more than {_MAX_ANSWERS} entries in one kernel table")


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, flags, data[at + _HEADER.size : at + length]
        at += _aligned(length)


def _raise_error(payload: bytes) -> None:
    """Both NLMSG_ERROR and NLMSG_DONE begin with a negative errno, or zero."""
    code = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if code < 0:
        raise OSError(-code, f"netlink: {os.strerror(-code)}")


def _aligned(length: int) -> int:
    return (length + 3) & ~3
