"""connect() through io_uring, by its bare system calls: one ring, one request, one completion.

The layout is linux/io_uring.h's. The ring lives for one call, so its size and its wrapping do not matter.
"""

import ctypes
import mmap
import os
import socket
import struct

SETUP, ENTER = 425, 426
OP_CONNECT = 16
GET_EVENTS = 1
SQE_OFFSET = 0x10000000
PARAMS_SIZE, SQE_SIZE, CQE_SIZE = 120, 64, 16
SINGLE_MMAP = 1
_PARAMS_HEAD = struct.Struct("=10I")
_OFFSETS = struct.Struct("=8IQ")

_libc = ctypes.CDLL(None, use_errno=True)


def connect(sock: socket.socket, ip: str, port: int) -> None:
    """Connect `sock`; raise OSError as connect() does, and when the kernel has no io_uring to offer."""
    packed = _sockaddr(ip, port)
    address = ctypes.create_string_buffer(packed, len(packed))
    result = _submit(
        struct.pack(
            "=BBHiQQIIQ", OP_CONNECT, 0, 0, sock.fileno(), len(packed), ctypes.addressof(address), 0, 0, 1
        )
    )
    if result < 0:
        raise OSError(-result, f"io_uring connect: {os.strerror(-result)}")


def _sockaddr(ip: str, port: int) -> bytes:
    if ":" in ip:
        return struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(port), 0, _packed(ip), 0)
    return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), _packed(ip))


def _packed(ip: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)


def _submit(request: bytes) -> int:
    """Let the kernel do one request and return its result."""
    params = ctypes.create_string_buffer(PARAMS_SIZE)
    ring = _call(SETUP, 1, ctypes.byref(params))
    try:
        head = _PARAMS_HEAD.unpack_from(params.raw, 0)
        assert head[5] & SINGLE_MMAP, "this kernel is older than 5.4"
        sq = _OFFSETS.unpack_from(params.raw, _PARAMS_HEAD.size)
        cq = _OFFSETS.unpack_from(params.raw, _PARAMS_HEAD.size + _OFFSETS.size)
        size = max(sq[6] + head[0] * 4, cq[5] + head[1] * CQE_SIZE)
        with (
            mmap.mmap(ring, size) as queues,
            mmap.mmap(ring, head[0] * SQE_SIZE, offset=SQE_OFFSET) as requests,
        ):
            requests[:SQE_SIZE] = request.ljust(SQE_SIZE, b"\0")
            struct.pack_into("=I", queues, sq[6], 0)
            struct.pack_into("=I", queues, sq[1], 1)
            _call(ENTER, ring, 1, 1, GET_EVENTS, None, 0)
            done: int = struct.unpack_from("=i", queues, cq[5] + 8)[0]
            return done
    finally:
        os.close(ring)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"system call {number}: {os.strerror(code)}")
    return result
