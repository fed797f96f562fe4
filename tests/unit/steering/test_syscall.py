"""bpf(2): elements, pins, ids and errors as OSError."""

import errno
import os
import struct
from pathlib import Path

import pytest

from tests.support.bpf_maps import Shape, bpffs, made, program
from zproxy.steering import syscall
from zproxy.steering.cgroups import root_cgroup
from zproxy.steering.info import AttachType, MapType, ProgType, map_info, prog_info
from zproxy.steering.syscall import Kind

pytestmark = pytest.mark.root

HASH = Shape(MapType.HASH, 4, 8, 4, "zpt_hash")


def key(number: int) -> bytes:
    return struct.pack("=I", number)


def test_an_element_is_written_read_and_deleted() -> None:
    with made(HASH) as fd:
        assert syscall.map_lookup(fd, key(1), 8) is None
        syscall.map_update(fd, key(1), b"12345678")
        assert syscall.map_lookup(fd, key(1), 8) == b"12345678"
        assert syscall.map_delete(fd, key(1))
        assert not syscall.map_delete(fd, key(1))


def test_flags_of_an_update_are_kept() -> None:
    with made(HASH) as fd:
        with pytest.raises(FileNotFoundError):
            syscall.map_update(fd, key(1), bytes(8), syscall.EXIST)
        syscall.map_update(fd, key(1), bytes(8), syscall.NOEXIST)
        with pytest.raises(FileExistsError):
            syscall.map_update(fd, key(1), bytes(8), syscall.NOEXIST)


def test_a_full_map_is_an_error() -> None:
    with made(HASH) as fd:
        for number in range(4):
            syscall.map_update(fd, key(number), bytes(8))
        with pytest.raises(OSError, match="too long") as full:
            syscall.map_update(fd, key(4), bytes(8))
    assert full.value.errno == errno.E2BIG


def test_keys_come_once_each_and_end() -> None:
    with made(HASH) as fd:
        for number in range(3):
            syscall.map_update(fd, key(number), bytes(8))
        assert sorted(syscall.map_keys(fd, 4)) == [key(0), key(1), key(2)]
        assert len(list(syscall.map_keys(fd, 4, limit=2))) == 2


def test_a_pin_outlives_the_descriptor(tmp_path: Path) -> None:
    with bpffs(tmp_path / "bpf") as root:
        with made(HASH) as fd:
            syscall.map_update(fd, key(7), b"pinned!!")
            syscall.obj_pin(fd, root / "zpt_pin")
        reopened = syscall.obj_get(root / "zpt_pin")
        assert syscall.map_lookup(reopened, key(7), 8) == b"pinned!!"
        os.close(reopened)
        with pytest.raises(FileNotFoundError):
            syscall.obj_get(root / "zpt_none")


def test_ids_lead_to_the_objects() -> None:
    with made(HASH) as fd:
        number = map_info(fd).id
        assert number in list(syscall.ids(Kind.MAP))
        found = syscall.fd_by_id(Kind.MAP, number)
        assert map_info(found) == map_info(fd)
        os.close(found)
    with pytest.raises(FileNotFoundError):
        syscall.fd_by_id(Kind.MAP, 0)


def test_a_link_is_made_queried_swapped_and_detached() -> None:
    connect = AttachType.CGROUP_INET4_CONNECT
    cgroup = os.open(root_cgroup(), os.O_RDONLY)
    with (
        program(ProgType.CGROUP_SOCK_ADDR, connect, "zpt_one") as one,
        program(ProgType.CGROUP_SOCK_ADDR, connect, "zpt_two") as two,
    ):
        link = syscall.link_create(one, cgroup, connect)
        assert prog_info(one).id in syscall.prog_query(cgroup, connect)[0]
        syscall.link_update(link, two, old_prog_fd=one)
        assert prog_info(two).id in syscall.prog_query(cgroup, connect, effective=True)[0]
        with pytest.raises(PermissionError):
            syscall.link_update(link, two, old_prog_fd=one)
        syscall.link_detach(link)
        assert prog_info(two).id not in syscall.prog_query(cgroup, connect)[0]
        os.close(link)
    os.close(cgroup)
