"""`zproxy bpf prog` against the installed bpftool: the same bytes, sentences and exit status."""

import itertools
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.bpf_maps import Shape, Types, freeze, loaded, made
from tests.support.bpf_objects import Load, bind_map, loaded_program, statistics
from tests.support.bpftool import ALL_VIEWS, VIEWS, assert_same, bpftool, ours, until_same
from tests.support.btf import BtfBuilder
from tests.support.netns import PREFIX, Namespace
from tests.support.straw import Straw, dial
from zproxy.steering.hooks import HOOKS
from zproxy.steering.info import prog_info
from zproxy.steering.pins import NodePins
from zproxy.steering.syscall import map_update, obj_pin

pytestmark = pytest.mark.root

NODE = f"{PREFIX}bpf"
XDP, SOCKET_FILTER, ARRAY = 6, 1, 2
DEVICE_BOUND = 1 << 6
"""BPF_F_XDP_DEV_BOUND_ONLY."""

each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: "".join(view) or "plain")


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Half an hour off the hour, so that every part of a time differs."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@each_view
@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.usefixtures("straw")
def test_every_program_of_ours_is_described_alike(name: str, view: tuple[str, ...]) -> None:
    pin = NodePins(NODE).programs / name
    shown = until_same(*view, "prog", "show", "pinned", str(pin))
    assert name.encode() in shown.stdout
    assert ours(*view, "prog", "show", name, "--node", NODE).status == 0


@pytest.mark.usefixtures("straw")
def test_a_bare_name_is_what_its_pin_is() -> None:
    for name, view in itertools.product(HOOKS, VIEWS):
        pin = str(NodePins(NODE).programs / name)
        mine = ours(*view, "prog", "list", name, "--node", NODE)
        assert mine == bpftool(*view, "prog", "list", "pinned", pin)


@pytest.mark.parametrize("words", [("prog",), ("prog", "show"), ("prog", "list"), ("p", "l")], ids=" ".join)
@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: "".join(view) or "plain")
@pytest.mark.usefixtures("straw")
def test_the_list_of_all_programs_is_alike(words: tuple[str, ...], view: tuple[str, ...]) -> None:
    shown = until_same(*view, *words).stdout
    assert all(name.encode() in shown for name in HOOKS)


@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: "".join(view) or "plain")
@pytest.mark.usefixtures("straw")
def test_programs_are_found_by_id_tag_and_name_alike(view: tuple[str, ...]) -> None:
    for name in HOOKS:
        until_same(*view, "prog", "show", "name", name)
        until_same(*view, "prog", "show", "n", name)
    with loaded_program(Load(SOCKET_FILTER)) as fd:
        info = prog_info(fd)
        until_same(*view, "prog", "show", "id", str(info.id))
        until_same(*view, "prog", "show", "tag", info.tag)
        until_same(*view, "prog", "show", "t", info.tag.upper())


@each_view
def test_several_programs_of_one_name_or_tag_are_a_list(view: tuple[str, ...]) -> None:
    name = f"zpt_{os.getpid()}"
    with loaded_program(Load(SOCKET_FILTER, name=name)), ExitStack() as stack:
        assert until_same(*view, "prog", "show", "name", name).status == 0
        second = stack.enter_context(loaded_program(Load(XDP, name=name, licence="MIT")))
        assert until_same(*view, "prog", "show", "name", name).stdout.count(name.encode()) == 2
        tag = prog_info(second).tag
        assert until_same(*view, "prog", "show", "tag", tag).stdout.count(tag.encode()) >= 2


@each_view
def test_a_program_without_a_name_is_described_alike(view: tuple[str, ...]) -> None:
    with loaded_program(Load(SOCKET_FILTER, name="", licence="MIT")) as fd:
        until_same(*view, "prog", "show", "id", str(prog_info(fd).id))


@each_view
@pytest.mark.parametrize(
    "name", ["zpt_fourteen__", "zpt_fifteen_chr", "zpt_name_of_fifteen_and_more", "z" * 140]
)
def test_a_long_name_comes_from_the_types(name: str, view: tuple[str, ...]) -> None:
    builder = BtfBuilder()
    number = builder.integer("int", 4, 1)
    function = builder.function(name, builder.prototype(number))
    with (
        loaded(builder.blob()) as types,
        loaded_program(Load(SOCKET_FILTER, name=name[:15], btf_fd=types, function=function)) as fd,
    ):
        assert name[:100].encode() in until_same(*view, "prog", "show", "id", str(prog_info(fd).id)).stdout
        until_same(*view, "prog", "show", "name", name)
        until_same(*view, "prog", "show", "name", name[:15])


@each_view
def test_what_a_program_has_run_is_told_alike(
    straw: Straw, pod: Namespace, peer: Namespace, view: tuple[str, ...]
) -> None:
    with statistics(), dial(pod, peer.ip4, 80):
        pass
    pin = str(NodePins(NODE).programs / "zp_connect4")
    assert b"run_cnt" in until_same(*view, "prog", "show", "pinned", pin).stdout
    assert straw.pod is pod


@each_view
@pytest.mark.usefixtures("zone")
def test_the_time_of_loading_is_local(view: tuple[str, ...]) -> None:
    with loaded_program(Load(SOCKET_FILTER)) as fd:
        shown = until_same(*view, "prog", "show", "id", str(prog_info(fd).id)).stdout
    assert view or b"+0530" in shown


@each_view
def test_a_program_bound_to_a_device_is_not_offloaded(pod: Namespace, view: tuple[str, ...]) -> None:
    def compare() -> None:
        ifindex = socket.if_nametoindex(pod.interface)
        with loaded_program(Load(XDP, ifindex=ifindex, flags=DEVICE_BOUND)) as fd:
            shown = until_same(*view, "prog", "show", "id", str(prog_info(fd).id)).stdout
        assert pod.interface.encode() not in shown

    pod.run(compare)


@each_view
def test_what_a_program_says_about_itself_is_shown_alike(view: tuple[str, ...]) -> None:
    builder = BtfBuilder()
    number = builder.integer("unsigned int", 4)
    char = builder.integer("char", 1, 1)
    words = builder.array(char, 8, number)
    inner = builder.struct("pair", 8, [("a", number, 0), ("b", number, 32)])
    parts = [("bpf_metadata_author", words, 8), ("other", number, 4)]
    parts += [("bpf_metadata_version", number, 4), ("bpf_metadata_pair", inner, 8)]
    places, at = [], 0
    for name, type_id, size in parts:
        places.append((builder.variable(name, type_id), at, size))
        at += size
    section = builder.section(".rodata", at, places)
    with loaded(builder.blob()) as types:
        shape = Shape(ARRAY, 4, at, 1, "zpt.rodata", 0x80, Types(types, 0, section))
        with made(shape) as data, loaded_program(Load(SOCKET_FILTER)) as fd:
            map_update(data, bytes(4), b"zproxy\0\0" + bytes(4) + b"\7\0\0\0" + b"\1\0\0\0\2\0\0\0")
            freeze(data)
            bind_map(fd, data)
            shown = until_same(*view, "prog", "show", "id", str(prog_info(fd).id)).stdout
            assert b"author" in shown
            until_same(*view, "prog")


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_pins_are_listed_in_the_same_order(pins: Path, count: int) -> None:
    with loaded_program(Load(SOCKET_FILTER)) as fd, made(Shape(1, 4, 4, 4)) as other:
        obj_pin(other, pins / "map")
        for number in range(count):
            obj_pin(fd, pins / f"pin{number}")
        for view in VIEWS:
            shown = until_same(*view, "-f", "prog", "show", "id", str(prog_info(fd).id))
            assert shown.stdout.count(bytes(pins)) == count


REFUSED = [
    "show id 4294967290",
    "show id x",
    "show id 08",
    "show id",
    "show id 1 2",
    "show tag 0102",
    "show tag xx",
    "show tag 0102030405060708",
    "show tag 0x0x0x0x0x0x0x0x",
    "show tag",
    "show name nobody_has_this",
    f"show name {'x' * 127}",
    f"show name {'x' * 128}",
    "show pinned /sys/fs/no/such/pin",
    "show pinned /etc/passwd",
    "show pinned relative",
    "show foo bar",
    "show foo bar baz",
    "list id 4294967290",
]


@each_view
@pytest.mark.parametrize("words", REFUSED)
def test_refusals_are_worded_alike(words: str, view: tuple[str, ...]) -> None:
    assert assert_same(*view, "prog", *words.split()).status == 255


@each_view
def test_a_pinned_map_is_refused_alike(pins: Path, view: tuple[str, ...]) -> None:
    with made(Shape(1, 4, 4, 4)) as fd:
        obj_pin(fd, pins / "map")
        assert assert_same(*view, "prog", "show", "pinned", str(pins / "map")).status == 255
        assert assert_same(*view, "prog", "show", "pinned", str(pins)).status == 255
