"""`zproxy bpf link` against the installed bpftool: the same bytes, sentences and exit status."""

import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.bpf_maps import Shape, made
from tests.support.bpf_objects import (
    RETURN_ZERO,
    Load,
    defunct,
    iterator,
    kernel_type,
    linked,
    loaded_program,
    raw_tracepoint,
)
from tests.support.bpftool import ALL_VIEWS, VIEWS, assert_same, bpftool, ours, until_same
from tests.support.netns import PREFIX, Namespace
from tests.support.straw import Straw
from zproxy.steering.btf_types import BtfKind
from zproxy.steering.cgroups import root_cgroup
from zproxy.steering.info import AttachType, ProgType, link_info
from zproxy.steering.pins import NodePins, entries
from zproxy.steering.syscall import obj_pin

pytestmark = pytest.mark.root

NODE = f"{PREFIX}bpf"
XDP, RAW_TRACEPOINT, TRACING, CGROUP_SKB, NETFILTER = 6, 17, 26, 8, 32
TRACE_RAW_TP, TRACE_ITER, XDP_ATTACH, NETFILTER_ATTACH = 23, 28, 37, 45

Maker = Callable[[], AbstractContextManager[int]]

each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: "".join(view) or "plain")


def our_pins() -> list[Path]:
    """Return the pins of all links that serve the node and its pods."""
    pins = NodePins(NODE)
    return [*entries(pins.links), *(path for pod in pins.pod_directories() for path in entries(pod))]


@contextmanager
def raw() -> Iterator[int]:
    with loaded_program(Load(RAW_TRACEPOINT)) as prog, raw_tracepoint(prog, "sched_switch") as fd:
        yield fd


@contextmanager
def tracing() -> Iterator[int]:
    target = kernel_type("btf_trace_sched_switch", BtfKind.TYPEDEF)
    load = Load(TRACING, TRACE_RAW_TP, attach_btf_id=target, code=RETURN_ZERO)
    with loaded_program(load) as prog, raw_tracepoint(prog, "") as fd:
        yield fd


@contextmanager
def iterating(target: str, info: bytes = b"") -> Iterator[int]:
    function = kernel_type(f"bpf_iter_{target}", BtfKind.FUNC)
    load = Load(TRACING, TRACE_ITER, attach_btf_id=function, code=RETURN_ZERO)
    with loaded_program(load) as prog, iterator(prog, info) as fd:
        yield fd


@contextmanager
def over_a_map() -> Iterator[int]:
    with made(Shape(1, 4, 4, 4)) as map_fd, iterating("bpf_map_elem", struct.pack("=I", map_fd)) as fd:
        yield fd


@contextmanager
def over_cgroups(order: int) -> Iterator[int]:
    with iterating("cgroup", struct.pack("=IIQ", order, 0, 1)) as fd:
        yield fd


@contextmanager
def on_cgroup() -> Iterator[int]:
    with ExitStack() as stack:
        folder = os.open(root_cgroup(), os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, folder)
        prog = stack.enter_context(loaded_program(Load(CGROUP_SKB, 1)))
        yield stack.enter_context(linked(prog, folder, 1))


@contextmanager
def detached() -> Iterator[int]:
    with ExitStack() as stack:
        folder = os.open(root_cgroup(), os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, folder)
        prog = stack.enter_context(loaded_program(Load(CGROUP_SKB, 1)))
        yield stack.enter_context(defunct(prog, folder, 1))


LINKS: dict[str, Maker] = {
    "raw tracepoint": raw,
    "tracing": tracing,
    "iterator over tasks": lambda: iterating("task"),
    "iterator over one task": lambda: iterating("task", struct.pack("=III", os.getpid(), 0, 0)),
    "iterator over one process": lambda: iterating("task_file", struct.pack("=III", 0, os.getpid(), 0)),
    "iterator over programs": lambda: iterating("bpf_prog"),
    "iterator over a map": over_a_map,
    "iterator over a cgroup": lambda: over_cgroups(1),
    "iterator over all cgroups": lambda: over_cgroups(2),
    "iterator upwards": lambda: over_cgroups(4),
    "cgroup": on_cgroup,
    "detached": detached,
}


@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: "".join(view) or "plain")
@pytest.mark.parametrize("make", LINKS.values(), ids=LINKS)
def test_every_kind_of_link_is_described_alike(make: Maker, view: tuple[str, ...]) -> None:
    with make() as fd:
        assert until_same(*view, "link", "show", "id", str(link_info(fd).id)).status == 0


@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: "".join(view) or "plain")
def test_links_at_interfaces_are_described_alike(pod: Namespace, view: tuple[str, ...]) -> None:
    def attach(stack: ExitStack) -> list[int]:
        ifindex = socket.if_nametoindex(pod.interface)
        xdp = stack.enter_context(loaded_program(Load(XDP, XDP_ATTACH)))
        tcx = stack.enter_context(loaded_program(Load(ProgType.SCHED_CLS, AttachType.TCX_EGRESS)))
        guard = stack.enter_context(loaded_program(Load(NETFILTER, NETFILTER_ATTACH)))
        return [
            stack.enter_context(linked(xdp, ifindex, XDP_ATTACH)),
            stack.enter_context(linked(tcx, ifindex, AttachType.TCX_EGRESS)),
            stack.enter_context(linked(guard, 0, NETFILTER_ATTACH, struct.pack("=IIiI", 2, 1, -7, 0))),
        ]

    with ExitStack() as stack:
        for fd in pod.run(lambda: attach(stack)):
            words = (*view, "link", "show", "id", str(link_info(fd).id))
            assert pod.run(partial(until_same, *words)).status == 0
            assert until_same(*words).status == 0


@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: "".join(view) or "plain")
@pytest.mark.usefixtures("straw")
def test_every_link_of_ours_is_described_alike(view: tuple[str, ...]) -> None:
    pins = our_pins()
    assert len(pins) >= 9
    for pin in pins:
        assert until_same(*view, "link", "show", "pinned", str(pin)).status == 0


@pytest.mark.usefixtures("straw")
def test_a_bare_name_is_what_its_pin_is() -> None:
    for pin, view in itertools.product(our_pins(), VIEWS):
        mine = ours(*view, "link", "list", pin.name, "--node", NODE)
        assert mine == bpftool(*view, "link", "list", "pinned", str(pin))


@pytest.mark.parametrize("words", [("link",), ("link", "show"), ("link", "list"), ("l", "l")], ids=" ".join)
@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: "".join(view) or "plain")
def test_the_list_of_all_links_is_alike(straw: Straw, words: tuple[str, ...], view: tuple[str, ...]) -> None:
    with raw(), detached(), tracing():
        shown = until_same(*view, *words)
    assert b"sched_switch" in shown.stdout
    assert straw.pod.netns.key


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_pins_are_listed_in_the_same_order(pins: Path, count: int) -> None:
    with on_cgroup() as fd, made(Shape(1, 4, 4, 4)) as other:
        obj_pin(other, pins / "map")
        for number in range(count):
            obj_pin(fd, pins / f"pin{number}")
        for view in VIEWS:
            shown = until_same(*view, "-f", "link", "show", "id", str(link_info(fd).id))
            assert shown.stdout.count(bytes(pins)) == count


REFUSED = [
    "show id x",
    "show id 08",
    "show id",
    "show id 1 2",
    "show name nobody_has_this",
    "show tag 1",
    "show pinned /sys/fs/no/such/pin",
    "show pinned /etc/passwd",
    "show pinned relative",
    "show foo bar",
    "show foo bar baz",
]


@each_view
@pytest.mark.parametrize("words", REFUSED)
def test_refusals_are_worded_alike(words: str, view: tuple[str, ...]) -> None:
    assert assert_same(*view, "link", *words.split()).status == 255


@each_view
def test_a_pinned_map_is_refused_alike(pins: Path, view: tuple[str, ...]) -> None:
    with made(Shape(1, 4, 4, 4)) as fd:
        obj_pin(fd, pins / "map")
        assert assert_same(*view, "link", "show", "pinned", str(pins / "map")).status == 255


@each_view
@pytest.mark.parametrize("number", ["2147483647", "4294967290", "0x80000000", "-1"])
def test_an_id_that_no_link_has_is_refused_alike(number: str, view: tuple[str, ...]) -> None:
    assert assert_same(*view, "link", "show", "id", "--", number).status == 254
