"""All elements of a hash map in a few system calls (BPF_MAP_LOOKUP_BATCH, Linux 5.6).

Asking for one key after the other costs two calls per element, and begins anew when a key goes meanwhile. The
kernel copies whole buckets instead: an element that stays is seen exactly once.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Final

from zproxy.steering import syscall

MAP_LOOKUP_BATCH: Final = 24
CAPACITY: Final = 1024
"""Elements that one call may bring at first; more when a bucket alone has more."""
_BATCH: Final = struct.Struct("=QQQQII")
"""The batch part of union bpf_attr: in, out, keys, values, count, map_fd; no flags."""


def elements(fd: int, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of every element of a hash or LRU hash; raise OSError."""
    cursor = ctypes.c_uint32()  # a bucket's number
    here, capacity = 0, CAPACITY
    while True:
        keys = ctypes.create_string_buffer(capacity * key_size)
        values = ctypes.create_string_buffer(capacity * value_size)
        at = ctypes.addressof(cursor)
        request = _BATCH.pack(here, at, ctypes.addressof(keys), ctypes.addressof(values), capacity, fd)
        code, answer = syscall.bpf_code(MAP_LOOKUP_BATCH, request)
        if code == errno.ENOSPC:
            capacity *= 2
            continue
        if code not in (0, errno.ENOENT):
            raise OSError(code, os.strerror(code))
        count = _BATCH.unpack_from(answer)[4]
        yield from zip(_cut(keys, key_size, count), _cut(values, value_size, count), strict=True)
        if code == errno.ENOENT:  # that was the last bucket
            return
        here = at


def _cut(buffer: ctypes.Array[ctypes.c_char], size: int, count: int) -> list[bytes]:
    raw = ctypes.string_at(buffer, count * size)
    return [raw[at : at + size] for at in range(0, len(raw), size)]
