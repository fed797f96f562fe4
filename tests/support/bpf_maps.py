"""Maps and small programs made by raw bpf(2), and a bpffs of one's own to pin them in."""

import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from zproxy.steering.info import map_info
from zproxy.steering.syscall import Command, bpf_fd

MAP_CREATE, PROG_LOAD, PROG_ATTACH, PROG_DETACH, BTF_LOAD, MAP_FREEZE = 0, 5, 8, 9, 18, 22


class Types(NamedTuple):
    """A loaded BTF object and the types of key and value in it."""

    btf_fd: int
    key: int
    value: int


class Shape(NamedTuple):
    """What a map is to be."""

    type: int
    key: int
    value: int
    entries: int
    name: str = "zpt"
    flags: int = 0
    types: Types = Types(0, 0, 0)
    inner_fd: int = 0
    vmlinux_value_type: int = 0


@contextmanager
def made(shape: Shape) -> Iterator[int]:
    """Create a map, yield its descriptor and drop it."""
    attr = struct.pack(
        "=IIIIIII16sIIIII",
        *(shape.type, shape.key, shape.value, shape.entries, shape.flags, shape.inner_fd, 0),
        *(shape.name.encode(), 0, shape.types.btf_fd, shape.types.key, shape.types.value),
        shape.vmlinux_value_type,
    )
    fd = bpf_fd(MAP_CREATE, attr)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def loaded(blob: bytes) -> Iterator[int]:
    """Load BTF and yield its descriptor; what the kernel's checker says goes into the error."""
    log = ctypes.create_string_buffer(1 << 14)
    data = ctypes.create_string_buffer(blob, len(blob))
    attr = struct.pack("=QQIII", ctypes.addressof(data), ctypes.addressof(log), len(blob), len(log), 1)
    try:
        fd = bpf_fd(BTF_LOAD, attr)
    except OSError as error:
        raise AssertionError(f"{error}: {log.value.decode()}") from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def program(kind: int = 1, attach_type: int = 0, name: str = "") -> Iterator[int]:
    """Load a program that returns 1 (kind 1 is socket_filter) and yield its descriptor."""
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    places = ctypes.addressof(code), ctypes.addressof(licence)
    attr = struct.pack("=IIQQIIQII16sII", kind, 2, *places, 0, 0, 0, 0, 0, name.encode(), 0, attach_type)
    fd = bpf_fd(PROG_LOAD, attr)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def attached_to_cgroup(prog_fd: int, cgroup: Path, attach_type: int, flags: int) -> Iterator[None]:
    """Attach without a link: flags 0 excludes every other program, 2 allows them."""
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        bpf_fd(PROG_ATTACH, struct.pack("=IIII", fd, prog_fd, attach_type, flags))
        yield
    finally:
        bpf_fd(PROG_DETACH, struct.pack("=III", fd, prog_fd, attach_type))
        os.close(fd)


@contextmanager
def bpffs(path: Path) -> Iterator[Path]:
    """Mount a bpffs at `path`; unmounting it drops whatever was pinned there."""
    path.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def push(fd: int, value: bytes) -> None:
    """Put a value into a queue or stack, which have no keys."""
    data = ctypes.create_string_buffer(value, len(value))
    bpf_fd(Command.MAP_UPDATE_ELEM, struct.pack("=IIQQQ", fd, 0, 0, ctypes.addressof(data), 0))


def freeze(fd: int) -> None:
    """Make a map read-only for user space for good."""
    bpf_fd(MAP_FREEZE, struct.pack("=I", fd))


def map_id(fd: int) -> int:
    """Return the id that bpftool knows a map by."""
    return map_info(fd).id
