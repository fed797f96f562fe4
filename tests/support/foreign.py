"""Other people's programs at cgroups: a load balancer's connect hook, attachments that exclude or precede.

Written as bytecode, so that nothing of the code under test has a part in it.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.netns import Namespace
from zproxy.steering import syscall
from zproxy.steering.cgroups import root_cgroup

PROG_LOAD, PROG_ATTACH, PROG_DETACH, MAP_CREATE = 5, 8, 9, 0
SOCK_ADDR: Final = 18
CONNECT4: Final = 10
XDP: Final = 6
XDP_HOOK: Final = 37
XDP_SKB_MODE: Final = 2
EXCLUSIVE, OVERRIDE, MULTI, PREORDER = 0, 1, 2, 64
_USER_IP4: Final = 4
"""Offset of user_ip4 in struct bpf_sock_addr."""


def instruction(code: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, registers, offset, immediate)


def passing() -> bytes:
    """r0 = 1; exit: let everything be."""
    return instruction(0xB7, 0, 0, 1) + instruction(0x95)


def balancing(vip: str, backend: str) -> bytes:
    """Rewrite connects to `vip` into connects to `backend`, as a socket load balancer does."""
    old, new = (struct.unpack("=i", socket.inet_aton(ip))[0] for ip in (vip, backend))
    return b"".join(
        (
            instruction(0x61, 0x12, _USER_IP4),  # r2 = *(u32 *)(r1 + user_ip4)
            instruction(0x56, 0x02, 2, old),  # if w2 != vip goto +2
            instruction(0xB4, 0x02, 0, new),  # w2 = backend
            instruction(0x63, 0x21, _USER_IP4),  # *(u32 *)(r1 + user_ip4) = r2
            passing(),
        )
    )


def using_map(map_fd: int) -> bytes:
    """r1 = map; then pass: a program that the kernel lists with the map."""
    return instruction(0x18, 0x11, 0, map_fd) + instruction(0) + passing()


def passing_xdp(map_fd: int) -> bytes:
    """r1 = map; r0 = XDP_PASS: the same for XDP."""
    passes = instruction(0xB7, 0, 0, 2) + instruction(0x95)
    return instruction(0x18, 0x11, 0, map_fd) + instruction(0) + passes


def load(code: bytes, name: str, kind: int = SOCK_ADDR, attach_type: int = CONNECT4) -> int:
    """Load a program and return its descriptor."""
    text = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = struct.pack(
        "=IIQQIIQII16sII",
        kind,
        len(code) // 8,
        ctypes.addressof(text),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        name.encode(),
        0,
        attach_type,
    )
    return syscall.bpf_fd(PROG_LOAD, attr)


def hash_map(name: str, key_size: int, value_size: int) -> int:
    """Make a small hash map and return its descriptor."""
    attr = struct.pack("=IIIIIII16s", 1, key_size, value_size, 8, 0, 0, 0, name.encode())
    return syscall.bpf_fd(MAP_CREATE, attr)


@contextmanager
def attached(
    cgroup: Path, code: bytes, *, name: str = "foreign_lb", flags: int = MULTI, attach_type: int = CONNECT4
) -> Iterator[int]:
    """Attach a program at `cgroup` for the block, the way of BPF_PROG_ATTACH; give its descriptor."""
    program = load(code, name, attach_type=attach_type)
    try:
        with _opened(cgroup) as target:
            syscall.bpf_fd(PROG_ATTACH, struct.pack("=IIII", target, program, attach_type, flags))
            try:
                yield program
            finally:
                syscall.bpf_fd(PROG_DETACH, struct.pack("=IIII", target, program, attach_type, 0))
    finally:
        os.close(program)


@contextmanager
def at_interface(pod: Namespace, code: bytes, name: str) -> Iterator[None]:
    """Run a program by XDP at a pod's interface for the block."""
    program = load(code, name, XDP, XDP_HOOK)
    try:
        index = pod.run(lambda: socket.if_nametoindex(pod.interface))
        link = pod.run(lambda: syscall.link_create(program, index, XDP_HOOK, XDP_SKB_MODE))
        os.close(program)
        program = link
        yield
    finally:
        os.close(program)


@contextmanager
def cgroup(name: str, below: Path | None = None) -> Iterator[Path]:
    """Make a cgroup v2 for the block. Who is still in it at the end goes up to the root."""
    root = root_cgroup()
    path = (below or root) / name
    path.mkdir()
    try:
        yield path
    finally:
        for pid in (path / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(pid)
        path.rmdir()


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Let this process be in a cgroup for the block: sockets that it makes belong there for ever."""
    (path / "cgroup.procs").write_text("0")
    try:
        yield
    finally:
        (root_cgroup() / "cgroup.procs").write_text("0")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
