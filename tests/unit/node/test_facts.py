"""The facts of a namespace, read in one go."""

import os
import socket

import pytest

from tests.support.netns import ip, pair
from tests.support.steering import FakeSteering
from zproxy.node.facts import gather
from zproxy.node.routes import SYSCTLS, PodNetwork

pytestmark = pytest.mark.root


def test_a_prepared_namespace_is_described_whole() -> None:
    with pair() as (pod, _):
        PodNetwork(pod.netns).prepare()
        PodNetwork(pod.netns).capture_dns(pod.ips, pod.interface)
        ip("-n", pod.name, "link", "add", "bare", "type", "veth", "peer", "name", "far")
        with pod.listen(15008), pod.socket(kind=socket.SOCK_DGRAM) as taking:
            taking.bind(("", 15053))
            inode = os.fstat(taking.fileno()).st_ino
            inspector = FakeSteering().inspector
            found = gather(inspector, 1, pod.netns)  # type: ignore[arg-type] # stands for the kernel's
        network = found.network
        assert found.inode == pod.netns.key[1]
        assert set(network.ips) == set(pod.ips)
        assert [each.name for each in network.carriers] == ["eth0"], "bare has no address"
        assert network.sysctls == SYSCTLS
        assert len([rule for rule in network.rules if rule.table == 100]) == 2
        assert [(route.type, route.prefix_length) for route in network.routes] == [(2, 0)] * 2
        assert [each.port for each in network.listening] == [15008]
        assert network.datagrams == (inode,)
        assert [route.source for route in network.aliases] == [pod.ip4, pod.ip6]
        assert network.has_ipv6
        assert found.steering.entry is None


def test_a_namespace_with_ipv6_off_on_lo_says_so() -> None:
    with pair(v6=False) as (pod, _):
        pod.sysctl("ipv6.conf.lo.disable_ipv6", "1")
        inspector = FakeSteering().inspector
        found = gather(inspector, 1, pod.netns)  # type: ignore[arg-type] # likewise
        assert not found.network.has_ipv6
