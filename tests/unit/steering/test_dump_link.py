"""Links as each release describes them, also those that this kernel may not know."""

import json
import struct

import pytest

from zproxy.steering.dialect import NEWEST, Dialect
from zproxy.steering.dump_entries import View
from zproxy.steering.dump_link import (
    ITER,
    NETFILTER,
    NETKIT,
    NETNS,
    RAW_TRACEPOINT,
    SOCKMAP,
    STRUCT_OPS,
    TCX,
    XDP,
    OpenLink,
    show_links,
)
from zproxy.steering.handles_pins import Pins

OLD, LATER = Dialect((7, 1)), Dialect((7, 3))
KPROBE_MULTI = 8


def link(kind: int, *words: int, name: str = "") -> OpenLink:
    """Return link 5 of program 6; `words` are the 32-bit words of its union."""
    raw = struct.pack(f"=4I{len(words)}I", kind, 5, 6, 0, *words).ljust(64, b"\0")
    return OpenLink(-1, raw, name)


def plain(found: OpenLink, dialect: Dialect) -> str:
    return "".join(show_links([found], View(False, False, dialect), Pins()))


def members(found: OpenLink, dialect: Dialect) -> dict[str, object]:
    whole: dict[str, object] = json.loads("".join(show_links([found], View(True, False, dialect), Pins())))
    assert (whole.pop("id"), whole.pop("prog_id")) == (5, 6)
    return whole


TCX_AT_LO = link(TCX, 1, 46)


@pytest.mark.parametrize(
    ("found", "dialect", "text"),
    [
        (TCX_AT_LO, OLD, "5: type 11  prog 6  \n"),
        (TCX_AT_LO, LATER, "5: tcx  prog 6  \n\tifindex lo(1)  attach_type tcx_ingress  \n"),
        (link(TCX, 0, 47), LATER, "5: tcx  prog 6  \n\tifindex (detached)  attach_type tcx_egress  \n"),
        (
            link(NETKIT, 2_000_000_000, 54),
            LATER,
            "5: netkit  prog 6  \n\tifindex (unknown)  attach_type netkit_primary  \n",
        ),
        (link(XDP, 1), OLD, "5: xdp  prog 6  \n"),
        (link(XDP, 1), LATER, "5: xdp  prog 6  \n\tifindex lo(1)  \n"),
        (link(SOCKMAP, 9, 7), LATER, "5: type 14  prog 6  \n"),
        (link(SOCKMAP, 9, 7), NEWEST, "5: sockmap  prog 6  \n\tmap_id 9  attach_type sk_msg_verdict  \n"),
        (link(STRUCT_OPS, 9), OLD, "5: struct_ops  prog 6  \n"),
        (link(STRUCT_OPS, 9), LATER, "5: struct_ops  map 9  \n"),
        (link(NETFILTER, 2, 1, 0xFFFFFFF9, 0), OLD, "5: type 10  prog 6  \n"),
        (
            link(NETFILTER, 2, 1, 0xFFFFFFF9, 1),
            LATER,
            "5: netfilter  prog 6  \n\tip input prio -7 flags 0x1\n",
        ),
        (link(NETNS, 8, 99), OLD, "5: netns  prog 6  \n\tnetns_ino 8  attach_type 99  \n"),
        (link(KPROBE_MULTI, 1, 2, 3), NEWEST, "5: kprobe_multi  prog 6  \n"),
        (link(RAW_TRACEPOINT, 0, 0, 0, 0, 7, name="x"), OLD, "5: raw_tracepoint  prog 6  \n\ttp 'x'  \n"),
        (
            link(RAW_TRACEPOINT, 0, 0, 0, 0, 7, name="x"),
            NEWEST,
            "5: raw_tracepoint  prog 6  \n\ttp 'x'  cookie 7  \n",
        ),
        (
            link(ITER, 0, 0, 0, 0, 1, 0, 77, name="cgroup"),
            OLD,
            "5: iter  prog 6  target_name cgroup  cgroup_id 1  order unknown  \n",
        ),
    ],
)
def test_plain_text_follows_the_release(found: OpenLink, dialect: Dialect, text: str) -> None:
    assert plain(found, dialect) == text


@pytest.mark.parametrize(
    ("found", "dialect", "expected"),
    [
        (TCX_AT_LO, OLD, {"type": 11}),
        (TCX_AT_LO, LATER, {"type": "tcx", "devname": "lo", "ifindex": 1, "attach_type": "tcx_ingress"}),
        (link(XDP, 0), LATER, {"type": "xdp", "devname": "(detached)", "ifindex": 0}),
        (link(SOCKMAP, 9, 7), NEWEST, {"type": "sockmap", "map_id": 9, "attach_type": "sk_msg_verdict"}),
        (link(STRUCT_OPS, 9), OLD, {"type": "struct_ops"}),
        (link(STRUCT_OPS, 9), LATER, {"type": "struct_ops", "map_id": 9}),
        (
            link(NETFILTER, 2, 1, 0xFFFFFFF9, 0),
            LATER,
            {"type": "netfilter", "pf": 2, "hook": 1, "prio": -7, "flags": 0},
        ),
        (
            link(RAW_TRACEPOINT, 0, 0, 0, 0, 7, name="x"),
            NEWEST,
            {"type": "raw_tracepoint", "tp_name": "x", "cookie": 7},
        ),
    ],
)
def test_json_follows_the_release(found: OpenLink, dialect: Dialect, expected: dict[str, object]) -> None:
    assert members(found, dialect) == expected


def test_pins_stand_last() -> None:
    pins = Pins()
    pins.add(5, "/sys/fs/bpf/x")
    text = "".join(show_links([TCX_AT_LO], View(False, False, OLD), pins))
    assert text == "5: type 11  prog 6  \n\tpinned /sys/fs/bpf/x\n"
