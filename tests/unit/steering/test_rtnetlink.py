"""rtnetlink by hand: attributes, and what the kernel answers about lo."""

import socket
import struct

import pytest

from zproxy.steering.rtnetlink import CLASSES, FILTERS, QDISCS, Message, Routes, attributes, number, text


def attribute(kind: int, value: bytes) -> bytes:
    whole = struct.pack("=HH", 4 + len(value), kind) + value
    return whole.ljust(len(whole) + 3 & ~3, b"\0")


def test_attributes_are_found_by_number() -> None:
    data = attribute(3, b"lo\0") + attribute(0x8000 | 7, b"\1\2\3\4\5") + attribute(9, b"")
    assert attributes(data) == {3: b"lo\0", 7: b"\1\2\3\4\5", 9: b""}


@pytest.mark.parametrize("tail", [b"", b"\4", struct.pack("=HH", 9, 1), struct.pack("=HH", 3, 1) + b"x"])
def test_what_runs_past_the_end_is_left_out(tail: bytes) -> None:
    assert attributes(attribute(1, b"abcd") + tail) == {1: b"abcd"}


def test_values_are_texts_and_numbers() -> None:
    assert (text(b"clsact\0"), text(b"end"), text(None), text(b"")) == ("clsact", "end", None, "")
    assert (number(struct.pack("=I", 70000)), number(b"\2"), number(b"")) == (70000, 2, 0)
    assert Message(1, 2, {3: b"lo\0"}).text(3) == "lo"
    assert Message(1, 2, {}).text(3) is None


def test_the_kernel_lists_lo_and_its_queue() -> None:
    routes = Routes()
    try:
        names = {link.ifindex: link.text(3) for link in routes.links()}
        assert names[socket.if_nametoindex("lo")] == "lo"
        queues = [each for each in routes.traffic(QDISCS, 1) if each.ifindex == 1]
        assert [each.text(1) for each in queues] == ["noqueue"]
        assert list(routes.traffic(CLASSES, 1)) == []
    finally:
        routes.close()


def test_filters_of_an_interface_that_is_not_there_are_none() -> None:
    routes = Routes()
    try:
        assert list(routes.traffic(FILTERS, 2_000_000_000, 0xFFFFFFF2)) == []
    finally:
        routes.close()
