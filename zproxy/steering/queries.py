"""PROG_QUERY: which programs are attached at a cgroup, a network namespace or an interface, and how."""

import ctypes
import struct
from typing import Final, NamedTuple

from zproxy.steering.syscall import Command, bpf

QUERY_EFFECTIVE: Final = 1
"""BPF_F_QUERY_EFFECTIVE: what runs there, also what ancestors have attached."""
_REQUEST: Final = struct.Struct("=IIIIQIIQQQ")


class Attachment(NamedTuple):
    """One program at one place."""

    prog_id: int
    flags: int
    """Of this program, or of the place where the kernel keeps none for each program."""
    link_id: int = 0
    """0 when it hangs on no link, and where it was not asked for."""
    link_flags: int = 0


def count(target: int, attach_type: int, flags: int = 0) -> int:
    """Return how many programs are attached; raise OSError, EINVAL where the place knows no such hook."""
    answer = bpf(Command.PROG_QUERY, _REQUEST.pack(target, attach_type, flags, 0, 0, 0, 0, 0, 0, 0))
    return int(struct.unpack_from("=I", answer, 24)[0])


def attached(
    target: int, attach_type: int, flags: int = 0, *, capacity: int, with_links: bool = False
) -> list[Attachment]:
    """Return what is attached, in running order; raise OSError, ENOSPC for more than `capacity` programs.

    Flags of each program need Linux 6.0, links 6.6. With QUERY_EFFECTIVE the kernel tells none.
    """
    lists = [(ctypes.c_uint32 * capacity)() for _ in range(4)]
    ids, prog_flags, link_ids, link_flags = map(ctypes.addressof, lists)
    if flags & QUERY_EFFECTIVE:
        prog_flags = 0
    if not with_links:
        link_ids = link_flags = 0
    request = _REQUEST.pack(target, attach_type, flags, 0, ids, capacity, 0, prog_flags, link_ids, link_flags)
    answer = bpf(Command.PROG_QUERY, request)
    common, _, found = struct.unpack_from("=IQI", answer, 12)
    return [
        Attachment(prog_id, own or common, link_id, link)
        for prog_id, own, link_id, link in zip(*(each[:found] for each in lists), strict=True)
    ]
