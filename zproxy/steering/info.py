"""What the kernel says about a map, program, link or BTF object: OBJ_GET_INFO_BY_FD, decoded.

Offsets are those of struct bpf_map_info, bpf_prog_info, bpf_link_info and bpf_btf_info in linux/bpf.h, which
only grow at the end; an older kernel leaves the fields that it does not know zero.
"""

import ctypes
import struct
from enum import IntEnum
from typing import Final, NamedTuple

from zproxy.steering import syscall


class MapType(IntEnum):
    """enum bpf_map_type, the types that this project makes."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    SOCKMAP = 15
    SK_STORAGE = 24


class ProgType(IntEnum):
    """enum bpf_prog_type, the types that this project loads."""

    SCHED_CLS = 3
    CGROUP_SOCK = 9
    SOCK_OPS = 13
    CGROUP_SOCK_ADDR = 18
    CGROUP_SOCKOPT = 25
    SK_LOOKUP = 30


class AttachType(IntEnum):
    """enum bpf_attach_type, the hooks that this project uses."""

    CGROUP_SOCK_OPS = 3
    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    CGROUP_UDP4_RECVMSG = 19
    CGROUP_UDP6_RECVMSG = 20
    CGROUP_GETSOCKOPT = 21
    CGROUP_INET4_GETPEERNAME = 29
    CGROUP_INET6_GETPEERNAME = 30
    CGROUP_INET_SOCK_RELEASE = 34
    SK_LOOKUP = 36
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class LinkType(IntEnum):
    """enum bpf_link_type, the links that this project makes."""

    CGROUP = 3
    NETNS = 5
    TCX = 11


MAP_INFO_SIZE: Final = 88
"""Bytes of struct bpf_map_info, as of Linux 5.15."""

PROG_INFO_SIZE: Final = 232
"""Bytes of struct bpf_prog_info, as of Linux 6.1."""


class MapInfo(NamedTuple):
    """A map's shape. `type` is a plain number because other owners' maps may have any type."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    vmlinux_value_type_id: int = 0
    """Of struct_ops maps only: the value's type is one of the kernel's own."""


class Device(NamedTuple):
    """The network interface that a program is bound to, and its namespace; all zero when it is not."""

    ifindex: int
    netns_device: int
    netns_inode: int


class ProgInfo(NamedTuple):
    """A loaded program. `tag` is the kernel's hash over its instructions; `loaded_ns` counts from boot."""

    type: int
    id: int
    tag: str
    jited_size: int
    xlated_size: int
    loaded_ns: int
    uid: int
    map_ids: tuple[int, ...]
    name: str
    is_gpl: bool
    btf_id: int
    run_time_ns: int
    run_count: int
    missed_count: int = 0
    """Runs that did not happen, because the program ran already on that CPU."""
    device: Device = Device(0, 0, 0)
    attach_btf_object: int = 0
    attach_btf_id: int = 0
    """What a tracing or LSM program belongs to: a type of that BTF object."""
    function_count: int = 0
    """Functions that have type information; 0 without BTF."""


class LinkInfo(NamedTuple):
    """An attachment. `target` is a cgroup id, a netns inode or an ifindex by link type; 0 once it is gone."""

    type: int
    id: int
    prog_id: int
    target: int
    attach_type: int


class BtfInfo(NamedTuple):
    """A BTF object and its raw bytes."""

    id: int
    name: str
    data: bytes


def map_info(fd: int) -> MapInfo:
    """Describe the map behind `fd`."""
    return decode_map_info(syscall.object_info(fd, MAP_INFO_SIZE))


def decode_map_info(raw: bytes) -> MapInfo:
    """Read a struct bpf_map_info of at least MAP_INFO_SIZE bytes."""
    kind, number, key, value, entries, flags, name = struct.unpack_from("=6I16s", raw)
    (vmlinux,) = struct.unpack_from("=I", raw, 44)
    btf, btf_key, btf_value = struct.unpack_from("=III", raw, 64)
    return MapInfo(kind, number, key, value, entries, flags, _text(name), btf, btf_key, btf_value, vmlinux)


def prog_info(fd: int) -> ProgInfo:
    """Describe the program behind `fd`, with the ids of the maps it uses."""
    count = struct.unpack_from("=I", syscall.object_info(fd, PROG_INFO_SIZE), 52)[0]
    ids = (ctypes.c_uint32 * max(count, 1))()
    request = bytearray(PROG_INFO_SIZE)
    struct.pack_into("=IQ", request, 52, count, ctypes.addressof(ids))
    raw = syscall.object_info(fd, PROG_INFO_SIZE, bytes(request))
    kind, number, tag, jited, xlated = struct.unpack_from("=II8sII", raw)
    loaded_ns, uid, count = struct.unpack_from("=QII", raw, 40)
    name, ifindex, gpl, netns_device, netns_inode = struct.unpack_from("=16sIIQQ", raw, 64)
    run_time_ns, run_count, missed_count = struct.unpack_from("=QQQ", raw, 192)
    attach_btf_object, attach_btf_id = struct.unpack_from("=II", raw, 220)
    return ProgInfo(
        type=kind,
        id=number,
        tag=tag.hex(),
        jited_size=jited,
        xlated_size=xlated,
        loaded_ns=loaded_ns,
        uid=uid,
        map_ids=tuple(ids[: min(count, len(ids))]),
        name=_text(name),
        is_gpl=bool(gpl & 1),
        btf_id=struct.unpack_from("=I", raw, 128)[0],
        run_time_ns=run_time_ns,
        run_count=run_count,
        missed_count=missed_count,
        device=Device(ifindex, netns_device, netns_inode),
        attach_btf_object=attach_btf_object,
        attach_btf_id=attach_btf_id,
        function_count=struct.unpack_from("=I", raw, 144)[0],
    )


def first_function(fd: int) -> int:
    """Return the BTF type id of the first function of the program behind `fd`, 0 when it has none."""
    record = (ctypes.c_uint32 * 2)()
    request = bytearray(PROG_INFO_SIZE)
    struct.pack_into("=IQI", request, 132, ctypes.sizeof(record), ctypes.addressof(record), 1)
    syscall.object_info(fd, PROG_INFO_SIZE, bytes(request))
    return int(record[1])


def link_info(fd: int) -> LinkInfo:
    """Describe the link behind `fd`; outside LinkType only type, id and prog_id mean something."""
    raw = syscall.object_info(fd, 64)
    kind, number, prog = struct.unpack_from("=III", raw)
    target, attach = struct.unpack_from("=QI" if kind == LinkType.CGROUP else "=II", raw, 16)
    return LinkInfo(kind, number, prog, target, attach)


def object_id(fd: int) -> int:
    """Return the id of a map, program or link; all three keep it in the same place."""
    return int(struct.unpack_from("=I", syscall.object_info(fd, 64), 4)[0])


def btf_info(fd: int) -> BtfInfo:
    """Return the BTF object behind `fd` with its bytes."""
    size = struct.unpack_from("=Q I", syscall.object_info(fd, 32))[1]
    data = ctypes.create_string_buffer(max(size, 1))
    name = ctypes.create_string_buffer(64)
    request = struct.pack("=QIIQII", ctypes.addressof(data), size, 0, ctypes.addressof(name), len(name), 0)
    raw = syscall.object_info(fd, 32, request)
    return BtfInfo(struct.unpack_from("=I", raw, 12)[0], _text(name.raw), data.raw[:size])


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")
