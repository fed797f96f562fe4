"""Interfaces with what no kernel here has: programs on hardware, actions of filters, TCX before and after."""

import json
import struct
from collections.abc import Iterator, Sequence

import pytest

from tests.unit.steering.test_rtnetlink import attribute
from zproxy.steering import dump_net
from zproxy.steering.dialect import Dialect
from zproxy.steering.dump_entries import View
from zproxy.steering.dump_net import show_net
from zproxy.steering.grammar import DumpError, Misuse
from zproxy.steering.queries import Attachment
from zproxy.steering.rtnetlink import CLASSES, FILTERS, QDISCS, Message, attributes

OLD, LATER = Dialect((7, 1)), Dialect((7, 3))
PLAIN = View(False, False, OLD)
INGRESS, TCX_EGRESS = 0xFFFFFFF2, 47


def word(number: int) -> bytes:
    return struct.pack("=I", number)


class Kernel:
    """Stands for the kernel: an interface with an XDP attribute, queues, and filters by what they hang on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.xdp = b""
        self.queues: list[tuple[int, str]] = []
        self.filters: dict[int, list[bytes]] = {}
        self.programs: dict[int, list[Attachment]] = {}
        self.refused = 0
        monkeypatch.setattr(dump_net, "Routes", lambda: self)
        monkeypatch.setattr(dump_net, "attached", self.attached)
        monkeypatch.setattr(dump_net, "every_fd", lambda _noun: iter(()))

    def close(self) -> None:
        """Nothing is open."""

    def links(self) -> Iterator[Message]:
        yield Message(2, 0, {3: b"eth0\0", 43: self.xdp})

    def traffic(self, kind: int, ifindex: int, parent: int = 0) -> Iterator[Message]:
        assert ifindex == 2
        if kind == QDISCS:
            yield from (Message(2, handle, {1: name.encode()}) for handle, name in self.queues)
        if kind == FILTERS:
            if parent == self.refused:
                raise OSError(22, "Invalid argument")
            yield from (Message(2, 1, attributes(found)) for found in self.filters.get(parent, []))
        assert kind in (QDISCS, CLASSES, FILTERS)

    def attached(self, _target: int, kind: int, **_how: object) -> Sequence[Attachment]:
        return self.programs.get(kind, [])


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def plain(dialect: Dialect = OLD) -> str:
    return "".join(show_net((), View(False, False, dialect)))


def listed(dialect: Dialect = OLD) -> dict[str, list[dict[str, object]]]:
    whole: list[dict[str, list[dict[str, object]]]] = json.loads(
        "".join(show_net((), View(True, True, dialect)))
    )
    return whole[0]


def bpf_filter(*options: bytes) -> bytes:
    return attribute(1, b"bpf\0") + attribute(2, b"".join(options))


NAMED = attribute(7, b"zpt\0") + attribute(11, word(9))


def test_an_interface_without_programs_is_not_listed(kernel: Kernel) -> None:
    assert plain() == "xdp:\n\ntc:\n\nflow_dissector:\n\n"
    kernel.xdp = attribute(2, b"\0")
    assert plain(LATER) == "xdp:\n\ntc:\n\nflow_dissector:\n\nnetfilter:\n\n"
    assert listed() == {"xdp": [], "tc": [], "flow_dissector": []}


@pytest.mark.parametrize(("mode", "name"), [(1, "driver"), (2, "generic"), (3, "offload")])
def test_xdp_names_its_mode(kernel: Kernel, mode: int, name: str) -> None:
    kernel.xdp = attribute(2, bytes([mode])) + attribute(4, word(9))
    assert plain().splitlines()[1] == f"eth0(2) {name} id 9"
    assert listed()["xdp"] == [{"devname": "eth0", "ifindex": 2, "mode": name, "id": 9}]


def test_several_modes_stand_side_by_side(kernel: Kernel) -> None:
    kernel.xdp = b"".join((attribute(2, b"\4"), attribute(6, word(9)), attribute(7, word(8))))
    assert plain().splitlines()[1] == "eth0(2) generic id 9 offload id 8"
    several = [{"mode": "generic", "id": 9}, {"mode": "offload", "id": 8}]
    assert listed()["xdp"] == [{"devname": "eth0", "ifindex": 2, "multi_attachments": several}]


def test_a_filters_actions_that_are_programs_are_listed(kernel: Kernel) -> None:
    options = attribute(2, b"") + attribute(6, b"act\0") + attribute(9, word(8))
    programs = attribute(1, attribute(1, b"bpf\0") + attribute(2, options))
    others = attribute(2, attribute(1, b"mirred\0"))
    kernel.filters[INGRESS] = [bpf_filter(NAMED, attribute(1, programs + others))]
    assert plain().splitlines()[3] == "eth0(2) clsact/ingress zpt id 9 act [{act id 8}] "
    (found,) = listed()["tc"]
    assert found["act"] == [{"name": "act", "id": 8}]


def test_filters_hang_on_queues_too_and_need_no_name(kernel: Kernel) -> None:
    kernel.queues = [(0x10000, "htb"), (0, "noqueue"), (0xFFFF0000, "clsact")]
    kernel.filters[0x10000] = [bpf_filter(attribute(11, word(9))), attribute(1, b"u32\0") + attribute(2, b"")]
    assert plain().splitlines()[3:5] == ["eth0(2) htb id 9", ""]


def test_what_comes_after_a_refused_request_is_not_shown(kernel: Kernel) -> None:
    kernel.queues = [(0x10000, "htb")]
    kernel.filters[0x10000] = kernel.filters[INGRESS] = [bpf_filter(NAMED)]
    kernel.refused = 0xFFFFFFFF
    assert plain().splitlines()[3:5] == ["eth0(2) htb zpt id 9", ""]


def test_later_releases_show_tcx_with_flags_and_link(kernel: Kernel) -> None:
    kernel.programs[TCX_EGRESS] = [Attachment(9, 0b1001, 5, 2), Attachment(8, 0)]
    assert plain().splitlines()[3] == ""
    assert plain(LATER).splitlines()[3:5] == [
        "eth0(2) tcx/egress prog_id 9 prog_flags 1 8 link_id 5 link_flags 2 ",
        "eth0(2) tcx/egress prog_id 8 ",
    ]
    first, second = listed(LATER)["tc"]
    assert (first["prog_flags"], first["link_id"], first["link_flags"]) == ([1, 8], 5, [2])
    assert (second["prog_flags"], second["link_id"], second["link_flags"]) == ([], 0, [])


@pytest.mark.parametrize(
    ("words", "kind", "sentence"),
    [
        (["x", "lo"], DumpError, "expected 'dev', got: 'x'?"),
        (["dev", "zpt-none"], DumpError, "invalid devname zpt-none"),
        (["dev"], Misuse, "`net` takes nothing, or dev NAME"),
    ],
)
def test_bad_words_are_sentences(words: list[str], kind: type[DumpError], sentence: str) -> None:
    with pytest.raises(kind) as failure:
        list(show_net(words, PLAIN))
    assert (str(failure.value), failure.value.status) == (sentence, 255)
