"""Decoding what the kernel says about objects, against what they were made as."""

import os
import time

import pytest

from tests.support.bpf_maps import Shape, loaded, made, program
from tests.support.bpf_objects import RETURN_ZERO, Load, kernel_type, loaded_program
from tests.support.btf import BtfBuilder
from tests.support.netns import namespace
from zproxy.steering import syscall
from zproxy.steering.btf_types import BtfKind
from zproxy.steering.info import (
    AttachType,
    Device,
    LinkType,
    MapType,
    ProgType,
    btf_info,
    first_function,
    link_info,
    map_info,
    object_id,
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


def test_every_kind_of_object_has_its_id_in_the_same_place() -> None:
    with made(Shape(MapType.HASH, 4, 8, 16)) as fd:
        assert object_id(fd) == map_info(fd).id
    with program(ProgType.SCHED_CLS) as fd:
        assert object_id(fd) == prog_info(fd).id


def test_a_program_tells_its_functions_and_where_it_belongs() -> None:
    builder = BtfBuilder()
    function = builder.function("zpt_function", builder.prototype(builder.integer("int", 4, 1)))
    with (
        loaded(builder.blob()) as types,
        loaded_program(Load(1, btf_fd=types, function=function)) as typed,
        program() as bare,
    ):
        assert (first_function(typed), prog_info(typed).function_count) == (function, 1)
        assert (first_function(bare), prog_info(bare).function_count) == (0, 0)
        assert (prog_info(bare).device, prog_info(bare).missed_count) == (Device(0, 0, 0), 0)
        assert (prog_info(bare).attach_btf_object, prog_info(bare).attach_btf_id) == (0, 0)


def test_a_tracing_program_tells_what_it_hangs_on() -> None:
    target = kernel_type("bpf_iter_task", BtfKind.FUNC)
    with loaded_program(Load(26, 28, attach_btf_id=target, code=RETURN_ZERO)) as fd:
        assert prog_info(fd).attach_btf_id == target
        assert prog_info(fd).attach_btf_object > 0


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
