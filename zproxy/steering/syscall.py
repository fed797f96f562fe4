"""bpf(2) through ctypes: maps, pins, programs, links and BTF by file descriptor.

bcc has no API for links, pins and sk_storage, and must not live in the daemon, so everything after loading
goes through here. Layouts are those of union bpf_attr in linux/bpf.h; sizes only ever grow, and the kernel
takes a longer zero-filled attribute as well as a shorter one. Failures are OSError with the kernel's errno:
callers know what was attempted and say so. Every returned descriptor is close-on-exec and the caller's to
close.
`info.py` decodes what OBJ_GET_INFO_BY_FD says about each kind of object.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

_SYSCALL_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
BPF_SYSCALL: Final = _SYSCALL_NUMBERS.get(platform.machine(), 280)
ATTR_SIZE: Final = 128

ANY: Final = 0
"""Flag of map_update: create or replace."""
NOEXIST: Final = 1
"""Flag of map_update: create only; EEXIST otherwise."""
EXIST: Final = 2
"""Flag of map_update: replace only; ENOENT otherwise."""
_F_REPLACE: Final = 4
"""Flag of link_update: only if the link still runs the given old program."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong)


class Command(IntEnum):
    """enum bpf_cmd, the part that is used."""

    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    BTF_GET_FD_BY_ID = 19
    BTF_GET_NEXT_ID = 23
    MAP_LOOKUP_BATCH = 24
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    LINK_DETACH = 34


class Kind(IntEnum):
    """What an id names; the four are counted separately by the kernel."""

    PROG = 0
    MAP = 1
    BTF = 2
    LINK = 3


_NEXT_ID: Final = {
    Kind.PROG: Command.PROG_GET_NEXT_ID,
    Kind.MAP: Command.MAP_GET_NEXT_ID,
    Kind.BTF: Command.BTF_GET_NEXT_ID,
    Kind.LINK: Command.LINK_GET_NEXT_ID,
}
_FD_BY_ID: Final = {
    Kind.PROG: Command.PROG_GET_FD_BY_ID,
    Kind.MAP: Command.MAP_GET_FD_BY_ID,
    Kind.BTF: Command.BTF_GET_FD_BY_ID,
    Kind.LINK: Command.LINK_GET_FD_BY_ID,
}


def bpf(command: int, attr: bytes) -> bytes:
    """Make one bpf(2) call and return the attribute as the kernel left it.

    For commands that answer inside the attribute. `attr` is padded with zeros to ATTR_SIZE.
    """
    buffer = ctypes.create_string_buffer(attr, ATTR_SIZE)
    _call(command, buffer)
    return buffer.raw


def bpf_fd(command: int, attr: bytes) -> int:
    """Make one bpf(2) call and return its result, for commands that answer with a descriptor."""
    return _call(command, ctypes.create_string_buffer(attr, ATTR_SIZE))


def _call(command: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    result: int = _libc.syscall(BPF_SYSCALL, command, ctypes.addressof(buffer), ATTR_SIZE)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def batch_call(command: int, buffer: ctypes.Array[ctypes.c_char]) -> bool:
    """Make one call of a batch command, which answers inside `buffer`; return whether there is more."""
    try:
        _call(command, buffer)
    except FileNotFoundError:
        return False
    return True


def _element_call(command: int, fd: int, key: int, value: int, flags: int = 0) -> None:
    bpf_fd(command, struct.pack("=IIQQQ", fd, 0, key, value, flags))


def map_lookup(fd: int, key: bytes, value_size: int, flags: int = 0) -> bytes | None:
    """Return the value under `key`, None when there is none.

    `value_size` is what the kernel writes: for per-CPU maps the value rounded up to 8, times possible CPUs.
    """
    key_buffer = ctypes.create_string_buffer(key, len(key))
    key_address = ctypes.addressof(key_buffer) if key else 0  # a queue has no keys and insists on none
    value = ctypes.create_string_buffer(value_size)
    try:
        _element_call(Command.MAP_LOOKUP_ELEM, fd, key_address, ctypes.addressof(value), flags)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def map_update(fd: int, key: bytes, value: bytes, flags: int = ANY) -> None:
    """Write one element; `flags` is ANY, NOEXIST or EXIST."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    _element_call(
        Command.MAP_UPDATE_ELEM, fd, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), flags
    )


def map_delete(fd: int, key: bytes) -> bool:
    """Delete one element; False when it was not there."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    try:
        _element_call(Command.MAP_DELETE_ELEM, fd, ctypes.addressof(key_buffer), 0)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):  # EINVAL: an empty slot of a sockmap
            return False
        raise
    return True


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """Return the key after `key` (the first for None), None at the end.

    When `key` has been deleted meanwhile the kernel starts again from the first key.
    """
    following = ctypes.create_string_buffer(key_size)
    key_buffer = None if key is None else ctypes.create_string_buffer(key, len(key))
    address = 0 if key_buffer is None else ctypes.addressof(key_buffer)
    try:
        _element_call(Command.MAP_GET_NEXT_KEY, fd, address, ctypes.addressof(following))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return following.raw


def map_keys(fd: int, key_size: int, limit: int = 1 << 22) -> Iterator[bytes]:
    """Yield the keys of a map, at most `limit`: a map that changes underneath may show a key twice."""
    key = map_next_key(fd, None, key_size)
    while key is not None and limit > 0:
        yield key
        limit -= 1
        key = map_next_key(fd, key, key_size)


def obj_pin(fd: int, path: str | os.PathLike[str]) -> None:
    """Pin a map, program or link in bpffs; a pin is a reference, and the only one that outlives processes."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    bpf_fd(Command.OBJ_PIN, struct.pack("=QII", ctypes.addressof(name), fd, 0))


def obj_get(path: str | os.PathLike[str]) -> int:
    """Open what is pinned at `path`; ENOENT, or EACCES/EPERM/EINVAL when it is not a BPF object."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return bpf_fd(Command.OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0))


def object_info(fd: int, size: int, request: bytes = b"") -> bytes:
    """Return the raw bpf_{map,prog,link,btf}_info of `fd`, zero-padded to `size`.

    `request` fills the structure beforehand, for fields that tell the kernel where to write a list.
    """
    info = ctypes.create_string_buffer(request, size)
    bpf_fd(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, ctypes.addressof(info)))
    return info.raw


def fd_by_id(kind: Kind, number: int) -> int:
    """Open an object by id; ENOENT when it has gone."""
    return bpf_fd(_FD_BY_ID[kind], struct.pack("=I", number))


def next_id(kind: Kind, number: int) -> int | None:
    """Return the smallest id above `number`, None at the end."""
    try:
        answer = bpf(_NEXT_ID[kind], struct.pack("=I", number))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return int.from_bytes(answer[4:8], sys.byteorder)


def ids(kind: Kind) -> Iterator[int]:
    """Yield every live id of a kind on this machine, ascending."""
    number = next_id(kind, 0)
    while number is not None:
        yield number
        number = next_id(kind, number)


def link_create(prog_fd: int, target: int, attach_type: int, flags: int = 0) -> int:
    """Attach a program by link. `target` is a cgroup or netns descriptor, or an ifindex of the calling netns.

    The link ends with its last reference: pin it or keep the descriptor.
    """
    return bpf_fd(Command.LINK_CREATE, struct.pack("=IIII", prog_fd, target, attach_type, flags))


def link_update(link_fd: int, prog_fd: int, old_prog_fd: int | None = None) -> None:
    """Swap the program of a link in one step; with `old_prog_fd` only if that one still runs, else EPERM."""
    flags = 0 if old_prog_fd is None else _F_REPLACE
    bpf_fd(Command.LINK_UPDATE, struct.pack("=IIII", link_fd, prog_fd, flags, old_prog_fd or 0))


def link_detach(link_fd: int) -> None:
    """Detach at once, whoever else holds a reference; the link stays as a defunct object."""
    bpf_fd(Command.LINK_DETACH, struct.pack("=I", link_fd))


def prog_query(target: int, attach_type: int, *, effective: bool = False) -> tuple[list[int], int]:
    """Return the ids of the programs attached at a cgroup, netns or ifindex in running order, and flags."""
    capacity = 64
    while True:
        found = (ctypes.c_uint32 * capacity)()
        request = struct.pack(
            "=IIIIQI", target, attach_type, int(effective), 0, ctypes.addressof(found), capacity
        )
        try:
            answer = bpf(Command.PROG_QUERY, request)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            capacity *= 2
            continue
        _, _, _, flags, _, count = struct.unpack_from("=IIIIQI", answer)
        return list(found[:count]), flags
