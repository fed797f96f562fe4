"""Interfaces and addresses of a namespace."""

import pytest

from tests.support.netns import ip, pair
from zproxy.lab.evidence.links import Link, addresses, links

pytestmark = pytest.mark.root


def test_a_pod_has_loopback_and_a_veth() -> None:
    with pair() as (client, _):
        assert links(client.netns) == (Link("lo", "loopback", True), Link("eth0", "veth", True))
        assert set(addresses(client.netns)) == {client.ip4, client.ip6}


def test_an_overlay_device_is_seen_once_it_is_up() -> None:
    with pair() as (client, server):
        ip(
            "-n",
            client.name,
            "link",
            "add",
            "vx0",
            "type",
            "vxlan",
            "id",
            "5",
            "dstport",
            "4789",
            "remote",
            server.ip4,
        )
        assert Link("vx0", "vxlan", False) in links(client.netns)
        assert not any(link.is_overlay for link in links(client.netns))
        ip("-n", client.name, "link", "set", "vx0", "up")
        assert [link.name for link in links(client.netns) if link.is_overlay] == ["vx0"]
