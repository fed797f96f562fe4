"""Netfilter links as bpftool prints them since v7.3: protocol family, hook, priority."""

import struct
from typing import Final, NamedTuple

FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
"""enum NFPROTO."""
_INET_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
_ARP_HOOKS: Final = ("input", "output")
_HOOKS: Final = {1: _INET_HOOKS, 2: _INET_HOOKS, 3: _ARP_HOOKS, 7: _INET_HOOKS, 10: _INET_HOOKS}


class Filter(NamedTuple):
    """The netfilter part of struct bpf_link_info; ordered as bpftool sorts them."""

    family: int
    hook: int
    priority: int
    flags: int


def decode(raw: bytes) -> Filter:
    """Read a struct bpf_link_info of a netfilter link."""
    return Filter(*struct.unpack_from("=IIiI", raw, 16))


def netfilter_json(raw: bytes) -> list[tuple[str, str | int]]:
    """Return the members that describe a link."""
    found = decode(raw)
    return [("pf", found.family), ("hook", found.hook), ("prio", found.priority), ("flags", found.flags)]


def netfilter_plain(raw: bytes) -> str:
    """Return a link's second line, with the line break before it."""
    found = decode(raw)
    hooks = _HOOKS.get(found.family, ())
    family = FAMILIES.get(found.family) or f"pf: {found.family}"
    hook = f" {hooks[found.hook]}" if found.hook < len(hooks) else f", hook {found.hook},"
    flags = f" flags {found.flags:#x}" if found.flags else ""
    return f"\n\t{family}{hook} prio {found.priority}{flags}"
