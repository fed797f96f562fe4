"""Aliases and resolvers: both descriptions of them agree, and a pod sees its own only."""

import re
from ipaddress import ip_address, ip_network

import pytest

from tests.support.bpf_maps import Shape, made
from zproxy.model.addr import Endpoint
from zproxy.steering import syscall
from zproxy.steering.info import MapType
from zproxy.steering.layout import ALIAS, ORIGIN, RESOLVER, pack_ip
from zproxy.steering.resolvers import PREFIX4, PREFIX6, SLOTS, Resolvers, aliases
from zproxy.steering.source import directory


def test_the_programs_have_the_same_numbers() -> None:
    text = (directory() / "lib" / "config.h").read_text()
    numbers = dict(re.findall(r"#define (ZP_ALIAS_\w+|ZP_POD_RESOLVERS)\s+(\w+)", text))
    assert int(numbers["ZP_POD_RESOLVERS"]) == SLOTS
    assert int(numbers["ZP_ALIAS_IP4"], 16) == int(ip_network(PREFIX4).network_address)
    words = int(numbers["ZP_ALIAS_IP6_0"], 16) << 96 | int(numbers["ZP_ALIAS_IP6_1"], 16) << 64
    assert words == int(ip_network(PREFIX6).network_address)


def test_every_alias_is_in_its_prefix() -> None:
    found = list(aliases())
    assert len(set(found)) == 2 * SLOTS
    for alias in found:
        assert ip_address(alias) in ip_network(PREFIX6 if ":" in alias else PREFIX4)


@pytest.mark.root
def test_a_pod_finds_its_own_resolvers_only() -> None:
    with made(Shape(MapType.HASH, ALIAS.size, RESOLVER.size, 8, "zpt_alias")) as fd:
        origin = ORIGIN.pack(ip=pack_ip("10.96.0.10"), port=53, family=2)
        key = ALIAS.pack(netns=7, ip=pack_ip("240.15.53.3"))
        syscall.map_update(fd, key, RESOLVER.pack(orig=origin, used_ns=5))
        mine, other = Resolvers(fd, 7), Resolvers(fd, 8)
        assert mine.find("240.15.53.3") == Endpoint("10.96.0.10", 53)
        assert [(each.alias, each.used_ns) for each in mine.all()] == [("240.15.53.3", 5)]
        assert other.find("240.15.53.3") is None
        assert other.all() == []
