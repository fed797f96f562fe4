"""The lab's network on namespaces of its own."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from zproxy.lab import topology
from zproxy.lab.layout import CLUSTER_DNS, OTHER_DNS, Layout, make_layout
from zproxy.net.netns import NAMED, Netns

pytestmark = pytest.mark.root


@pytest.fixture
def layout() -> Iterator[Layout]:
    layout = make_layout(f"zpt-{os.getpid()}-")
    try:
        yield layout
    finally:
        topology.dismantle(layout)


def _dial(layout: Layout, family: int, to: str) -> str:
    """Connect from the client pod to a listener in the server pod; return the peer that it sees."""
    client, server = layout.pods
    with (
        Netns.named(server.netns) as there,
        Netns.named(client.netns) as here,
        there.run(lambda: socket.create_server((to, 8080), family=family)) as listener,
        here.run(lambda: socket.create_connection((to, 8080), timeout=5)),
    ):
        accepted, (peer, *_) = listener.accept()
        accepted.close()
        return str(peer)


def test_pods_reach_each_other_from_their_own_addresses(layout: Layout) -> None:
    topology.build(layout)
    assert _dial(layout, socket.AF_INET, "10.244.2.5") == "10.244.1.5"
    assert _dial(layout, socket.AF_INET6, "fd00:10:244:2::5") == "fd00:10:244:1::5"


def test_both_pods_reach_both_resolvers(layout: Layout) -> None:
    topology.build(layout)
    for address in (CLUSTER_DNS, OTHER_DNS):
        with Netns.named(layout.nodes[0].netns) as node, node.run(lambda: _datagram(address)) as resolver:  # noqa: B023
            for pod in layout.pods:
                with Netns.named(pod.netns) as netns, netns.run(lambda: _datagram("")) as client:
                    client.sendto(b"query", resolver.getsockname())
                    assert resolver.recvfrom(16)[1][0] == pod.ip4


def test_traffic_crosses_both_nodes(layout: Layout) -> None:
    topology.build(layout)
    counters = [_forwarded(node.netns) for node in layout.nodes]
    _dial(layout, socket.AF_INET, "10.244.2.5")
    assert all(_forwarded(node.netns) > before for node, before in zip(layout.nodes, counters, strict=True))


def test_dismantle_leaves_no_name_and_no_namespace(layout: Layout) -> None:
    topology.build(layout)
    keys = {(NAMED / name).stat().st_ino for name in layout.namespaces}
    removed = topology.dismantle(layout)
    assert len(removed) == 4
    assert topology.present(layout) == []
    listed = subprocess.run(["lsns", "-t", "net", "-no", "NS"], capture_output=True, text=True).stdout.split()
    assert keys.isdisjoint(int(inode) for inode in listed)


def test_dismantle_takes_the_links_of_a_namespace_that_someone_still_holds(layout: Layout) -> None:
    topology.build(layout)
    with Netns.named(layout.pods[0].netns) as held:
        topology.dismantle(layout)
        assert held.run(lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]


def test_a_half_built_network_is_removed(layout: Layout) -> None:
    topology._make_namespace(layout.nodes[0].netns)
    (NAMED / layout.pods[0].netns).touch()  # what a kill between creating the name and mounting leaves
    assert len(topology.present(layout)) == 2
    assert len(topology.dismantle(layout)) == 2
    topology.build(layout)
    assert _dial(layout, socket.AF_INET, "10.244.2.5") == "10.244.1.5"


def test_the_host_namespace_is_not_changed(layout: Layout) -> None:
    before = _host_state()
    topology.build(layout)
    assert _host_state() == before
    topology.dismantle(layout)
    assert _host_state() == before


def _datagram(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(5)
    made.bind((address, 0))
    return made


def _forwarded(name: str) -> int:
    with Netns.named(name) as netns:
        text = netns.run(lambda: Path("/proc/thread-self/net/snmp").read_text())
    header, values = (line.split() for line in text.splitlines() if line.startswith("Ip:"))
    return int(values[header.index("ForwDatagrams")])


def _host_state() -> tuple[object, ...]:
    forwarding = [Path(f"/proc/sys/net/{key}").read_text() for key in topology._FORWARDING]
    routes = Path("/proc/net/route").read_text()
    return socket.if_nameindex(), routes, forwarding
