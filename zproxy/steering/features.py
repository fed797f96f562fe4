"""What the running kernel lets programs do, tried by loading the smallest program that does it."""

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final

from zproxy.steering.info import ProgType
from zproxy.steering.syscall import Command, bpf_fd

GET_NETNS_COOKIE: Final = 122
"""BPF_FUNC_get_netns_cookie; in tc programs since Linux 6.13."""
_CALL: Final = 0x85
_RETURN_ZERO: Final = (struct.pack("=BBhi", 0xB7, 0, 0, 0), struct.pack("=BBhi", 0x95, 0, 0, 0))


def has_tc_cookie() -> bool:
    """Whether a tc program may ask for the netns cookie of a packet's socket. False for who may not load."""
    return may_call(ProgType.SCHED_CLS, GET_NETNS_COOKIE)


def may_call(kind: ProgType, helper: int) -> bool:
    """Whether a program of this type may call a helper that takes its context alone."""
    return _loads(kind, (struct.pack("=BBhi", _CALL, 0, 0, helper), *_RETURN_ZERO))


def _loads(kind: ProgType, instructions: Sequence[bytes]) -> bool:
    raw = b"".join(instructions)
    code, licence = ctypes.create_string_buffer(raw, len(raw)), ctypes.create_string_buffer(b"GPL")
    places = ctypes.addressof(code), ctypes.addressof(licence)
    try:
        fd = bpf_fd(Command.PROG_LOAD, struct.pack("=IIQQ", kind, len(instructions), *places))
    except OSError:
        return False
    os.close(fd)
    return True
