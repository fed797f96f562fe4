"""Programs and links that zproxy itself never makes, by raw bpf(2): for what bpftool tells of them."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from zproxy.steering.btf import Btf, load_vmlinux
from zproxy.steering.btf_types import BtfKind, Reference
from zproxy.steering.syscall import bpf_fd, link_create, link_detach

PROG_LOAD, RAW_TRACEPOINT_OPEN, LINK_CREATE, ENABLE_STATS, PROG_BIND_MAP = 5, 17, 28, 32, 35
PROG_ATTACH, PROG_DETACH = 8, 9
RETURN_ZERO, RETURN_ONE, RETURN_TWO = (
    struct.pack("=BBhiBBhi", 0xB7, 0, 0, answer, 0x95, 0, 0, 0) for answer in range(3)
)


class Load(NamedTuple):
    """How to load a program; the fields are those of union bpf_attr."""

    kind: int
    attach_type: int = 0
    name: str = "zpt_prog"
    licence: str = "GPL"
    flags: int = 0
    ifindex: int = 0
    attach_btf_id: int = 0
    code: bytes = RETURN_ONE
    btf_fd: int = 0
    function: int = 0
    """BTF type id of the program's only function."""


@contextmanager
def loaded_program(load: Load) -> Iterator[int]:
    """Load a program, yield its descriptor and drop it."""
    code = ctypes.create_string_buffer(load.code, len(load.code))
    licence = ctypes.create_string_buffer(load.licence.encode())
    log = ctypes.create_string_buffer(1 << 14)
    functions = ctypes.create_string_buffer(struct.pack("=II", 0, load.function), 8)
    attr = struct.pack(
        "=IIQQIIQII16sIIIIQIIQII",
        *(load.kind, len(load.code) // 8, ctypes.addressof(code), ctypes.addressof(licence)),
        *(1, len(log), ctypes.addressof(log), 0, load.flags, load.name.encode(), load.ifindex),
        *(load.attach_type, load.btf_fd, 8 if load.function else 0),
        *(ctypes.addressof(functions) if load.function else 0, 1 if load.function else 0, 0, 0, 0),
        load.attach_btf_id,
    )
    try:
        fd = bpf_fd(PROG_LOAD, attr)
    except OSError as error:
        raise AssertionError(f"{error}: {log.value.decode()}") from error
    try:
        yield fd
    finally:
        os.close(fd)


@cache
def kernel_type(name: str, kind: BtfKind) -> int:
    """Return the BTF type id of one of the kernel's own types."""
    types = _kernel_types()
    for number in range(1, len(types)):
        found = types.type(number)
        if isinstance(found, Reference) and (found.kind, found.name) == (kind, name):
            return number
    raise AssertionError(f"this kernel has no {kind.name} {name}")


@cache
def _kernel_types() -> Btf:
    return load_vmlinux()


def bind_map(prog_fd: int, map_fd: int) -> None:
    """Have a program hold a map that its code does not mention."""
    bpf_fd(PROG_BIND_MAP, struct.pack("=III", prog_fd, map_fd, 0))


@contextmanager
def statistics() -> Iterator[None]:
    """Have the kernel count runs of programs and their time, as kernel.bpf_stats_enabled does."""
    fd = bpf_fd(ENABLE_STATS, struct.pack("=I", 0))
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def raw_tracepoint(prog_fd: int, name: str) -> Iterator[int]:
    """Attach to a raw tracepoint; for a tracing program `name` is empty, and it says itself where."""
    text = ctypes.create_string_buffer(name.encode())
    address = ctypes.addressof(text) if name else 0
    fd = bpf_fd(RAW_TRACEPOINT_OPEN, struct.pack("=QI", address, prog_fd))
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def linked(
    prog_fd: int, target: int, attach_type: int, tail: bytes = b"", *, flags: int = 0
) -> Iterator[int]:
    """Attach by link; `tail` is what the kind of link wants beyond the flags."""
    attr = struct.pack("=IIII", prog_fd, target, attach_type, flags) + tail
    fd = bpf_fd(LINK_CREATE, attr)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def iterator(prog_fd: int, info: bytes) -> Iterator[int]:
    """Make an iterator link; `info` is a union bpf_iter_link_info."""
    data = ctypes.create_string_buffer(info, len(info))
    tail = struct.pack("=QI", ctypes.addressof(data) if info else 0, len(info))
    with linked(prog_fd, 0, 28, tail) as fd:
        yield fd


@contextmanager
def attached_without_link(prog_fd: int, target_fd: int, attach_type: int, flags: int = 0) -> Iterator[None]:
    """Attach as it was done before there were links."""
    bpf_fd(PROG_ATTACH, struct.pack("=IIII", target_fd, prog_fd, attach_type, flags))
    try:
        yield
    finally:
        bpf_fd(PROG_DETACH, struct.pack("=III", target_fd, prog_fd, attach_type))


@contextmanager
def defunct(prog_fd: int, target: int, attach_type: int) -> Iterator[int]:
    """Make a link and detach it: it lives on and hangs on nothing."""
    fd = link_create(prog_fd, target, attach_type)
    try:
        link_detach(fd)
        yield fd
    finally:
        os.close(fd)
