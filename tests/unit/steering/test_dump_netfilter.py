"""Netfilter links in words and, where this program knows none, in numbers."""

import struct

import pytest

from zproxy.steering.dump_netfilter import decode, netfilter_json, netfilter_plain


def raw(family: int, hook: int, priority: int, flags: int) -> bytes:
    return bytes(16) + struct.pack("=IIiI", family, hook, priority, flags)


@pytest.mark.parametrize(
    ("link", "text"),
    [
        (raw(2, 0, -128, 0), "\n\tip prerouting prio -128"),
        (raw(10, 4, 5, 1), "\n\tip6 postrouting prio 5 flags 0x1"),
        (raw(3, 1, 0, 0), "\n\tarp output prio 0"),
        (raw(3, 2, 0, 0), "\n\tarp, hook 2, prio 0"),
        (raw(5, 0, 0, 0), "\n\tnetdev, hook 0, prio 0"),
        (raw(44, 9, 0, 0), "\n\tpf: 44, hook 9, prio 0"),
    ],
)
def test_a_hook_is_named(link: bytes, text: str) -> None:
    assert netfilter_plain(link) == text


def test_json_keeps_to_numbers() -> None:
    assert netfilter_json(raw(2, 1, -7, 1)) == [("pf", 2), ("hook", 1), ("prio", -7), ("flags", 1)]


def test_links_are_ordered_by_family_hook_and_priority() -> None:
    first, second, third, last = raw(2, 0, 9, 0), raw(2, 1, -9, 0), raw(2, 1, 3, 0), raw(10, 0, 0, 0)
    assert sorted([last, third, second, first], key=decode) == [first, second, third, last]
