"""Netlink dumps, as far as a look at a pod before enrolment needs them: no library, no state.

A dump is one request and many answers (RFC 3549 2.3.2); an attribute is {u16 length, u16 type, value}, padded
to four bytes.
"""

import socket
import struct
from collections.abc import Iterator
from typing import Final

ROUTE: Final = 0
"""NETLINK_ROUTE."""
SOCK_DIAG: Final = 4
NETFILTER: Final = 12
_DUMP: Final = 0x301
"""NLM_F_REQUEST and NLM_F_DUMP."""
_ERROR: Final = 2
_DONE: Final = 3
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_TYPE_MASK: Final = 0x3FFF
"""Without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
TIMEOUT_S: Final = 2.0


def dump(protocol: int, kind: int, request: bytes) -> list[bytes]:
    """Ask the calling thread's namespace and return the answers without their headers.

    Raise OSError: the kernel's answer, EPROTONOSUPPORT where it lacks the protocol, or a timeout.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.bind((0, 0))
        sock.send(_HEADER.pack(_HEADER.size + len(request), kind, _DUMP, 1, 0) + request)
        found: list[bytes] = []
        while _take(sock.recv(1 << 16), found):
            pass
        return found


def _take(data: bytes, found: list[bytes]) -> bool:
    """Split a datagram into messages; return whether more are to come."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        body = data[at + _HEADER.size : at + length]
        if kind == _DONE:
            return False
        if kind == _ERROR:
            code = -struct.unpack_from("=i", body)[0]
            if code:
                raise OSError(code, "netlink")
            return False
        found.append(body)
        at += max(_aligned(length), _HEADER.size)
    return True


def attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of the attributes from `at` on."""
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
