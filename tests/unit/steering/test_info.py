"""Decoding what the kernel says about objects, against what they were made as."""

import os
import time

import pytest

from tests.support.bpf_maps import Shape, loaded, made, program
from tests.support.netns import namespace
from zproxy.steering import syscall
from zproxy.steering.info import (
    AttachType,
    LinkType,
    MapType,
    ProgType,
    btf_info,
    link_info,
    map_info,
    prog_info,
)

pytestmark = pytest.mark.root

ONE_TYPE = (
    bytes.fromhex("9feb0100180000000000000010000000100000000c000000")
    + bytes.fromhex("01000000000000010400000020000000")
    + b"\0zpt_number\0"
)
"""Header, one 32-bit integer, strings."""


def test_a_map_is_described_as_it_was_made() -> None:
    with made(Shape(MapType.HASH, 4, 8, 16, "zpt_map", flags=1)) as fd:
        info = map_info(fd)
    assert (info.type, info.key_size, info.value_size, info.max_entries) == (MapType.HASH, 4, 8, 16)
    assert (info.flags, info.name, info.btf_id) == (1, "zpt_map", 0)


def test_a_program_is_described_as_it_was_loaded() -> None:
    with program(ProgType.SCHED_CLS, name="zpt_prog") as fd:
        info = prog_info(fd)
    assert (info.type, info.name, info.is_gpl, info.uid) == (ProgType.SCHED_CLS, "zpt_prog", True, 0)
    assert (info.xlated_size, info.map_ids, info.run_count) == (16, (), 0)
    assert len(bytes.fromhex(info.tag)) == 8
    assert info.loaded_ns > 0


def test_a_netns_link_names_the_namespaces_inode() -> None:
    with namespace() as ns, program(ProgType.SK_LOOKUP, AttachType.SK_LOOKUP, "zpt_lookup") as fd:
        link = syscall.link_create(fd, ns.netns.fd, AttachType.SK_LOOKUP)
        info = link_info(link)
        os.close(link)
        assert (info.type, info.target, info.attach_type) == (
            LinkType.NETNS,
            ns.netns.key[1],
            AttachType.SK_LOOKUP,
        )
        assert info.prog_id == prog_info(fd).id


def test_a_link_of_a_gone_namespace_has_no_target() -> None:
    with program(ProgType.SK_LOOKUP, AttachType.SK_LOOKUP, "zpt_lookup") as fd:
        with namespace() as ns:
            link = syscall.link_create(fd, ns.netns.fd, AttachType.SK_LOOKUP)
        wait_until_gone(link)
        os.close(link)


def test_btf_comes_back_byte_for_byte() -> None:
    with loaded(ONE_TYPE) as fd:
        assert btf_info(fd).data == ONE_TYPE


def wait_until_gone(link: int) -> None:
    deadline = time.monotonic() + 5
    while link_info(link).target:
        assert time.monotonic() < deadline
        time.sleep(0.005)
