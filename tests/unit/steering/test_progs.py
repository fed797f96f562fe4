"""Finding programs: tags as scanf reads them, names with more than the kernel keeps."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bpf_maps import loaded
from tests.support.bpf_objects import Load, loaded_program
from tests.support.btf import BtfBuilder
from zproxy.errors import SteeringError
from zproxy.steering.grammar import DumpError
from zproxy.steering.info import prog_info
from zproxy.steering.progs import OpenProg, described, every_prog, full_name, parse_tag, select_progs


@pytest.mark.parametrize(
    ("word", "tag"),
    [
        ("0102030405060708", "0102030405060708"),
        ("01 02 03 04 5 6 7 8", "0102030405060708"),
        ("ABCDEF0011223344", "abcdef0011223344"),
        ("0x01020304050607", "0001020304050607"),
        ("0x0x0x0x0x0x0x0x", "0000000000000000"),
        ("-1-2-3-4-5-6-7-8", "fffefdfcfbfaf9f8"),
        ("+1 +2 3 4 5 6 7 8", "0102030405060708"),
        ("010203040506070", "0102030405060700"),
        ("0102030405060708zz", "0102030405060708"),
        ("0xabc01 02 03 04 05 06 7 8", "00abc00102030405"),
    ],
)
def test_a_tag_is_eight_numbers_of_two_characters(word: str, tag: str) -> None:
    assert parse_tag(word).hex() == tag


@pytest.mark.parametrize("word", ["", "xx", "01020304050607", "- 1", "0102030405060g08"])
def test_anything_else_is_no_tag(word: str) -> None:
    with pytest.raises(DumpError, match=r"^can't parse tag$"):
        parse_tag(word)


def test_a_name_of_more_than_127_bytes_is_not_sought() -> None:
    with pytest.raises(DumpError, match=r"^can't parse name$"), select_progs(["name", "x" * 128], None):
        pass


def test_a_bare_name_that_no_node_pinned_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(SteeringError, match=f"no program zp_x is pinned in {tmp_path}/NODE/progs"),
        select_progs(["zp_x"], None, tmp_path),
    ):
        pass


@pytest.fixture
def long_name() -> Iterator[OpenProg]:
    builder = BtfBuilder()
    function = builder.function("zpt_name_of_twenty__", builder.prototype(builder.integer("int", 4, 1)))
    with (
        loaded(builder.blob()) as types,
        loaded_program(Load(1, name="zpt_name_of_twe", btf_fd=types, function=function)) as fd,
    ):
        yield OpenProg(fd, prog_info(fd))


@pytest.mark.root
def test_a_name_of_fifteen_bytes_is_completed_from_the_types(long_name: OpenProg) -> None:
    assert full_name(long_name) == "zpt_name_of_twenty__"
    assert full_name(long_name._replace(info=long_name.info._replace(function_count=0))) == "zpt_name_of_twe"
    assert full_name(long_name._replace(info=long_name.info._replace(name="zpt_short"))) == "zpt_short"
    with select_progs(["name", "zpt_name_of_twenty__"], None) as found:
        assert [prog.info.id for prog in found] == [long_name.info.id]
    with select_progs(["name", "zpt_name_of_twe"], None) as found:
        assert found == []


@pytest.mark.root
def test_a_search_keeps_what_fits_open_until_the_end() -> None:
    with loaded_program(Load(1, name=f"zpt_{os.getpid()}")) as fd:
        tag = prog_info(fd).tag
        with select_progs(["tag", tag], None) as found:
            assert prog_info(fd) in [prog_info(prog.fd) for prog in found]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(found[0].fd)
        assert prog_info(fd).id in [prog.info.id for prog in every_prog()]


@pytest.mark.root
def test_a_descriptor_that_is_no_program_is_a_sentence() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(DumpError, match=r"^can't get prog info \(7\): "):
            described(fd, " (7)")
    finally:
        os.close(fd)
