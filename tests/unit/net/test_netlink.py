"""What netlink says about a namespace is what `ip` and `ss` say."""

import socket

import pytest

from tests.support.netns import Namespace, batch, ip, namespace
from zproxy.net import netlink
from zproxy.net.netlink import Interface, Route, Rule

pytestmark = pytest.mark.root

LOCAL, UNICAST = 2, 1


def test_interfaces_have_their_names_and_say_whether_they_are_up(pod: Namespace) -> None:
    batch(pod.name, ["link add eth1 type veth peer name eth2", "link set eth1 up"])
    found = {interface.name: interface for interface in pod.run(netlink.interfaces)}
    assert found["lo"] == Interface(1, "lo", is_up=True)
    assert {name: interface.is_up for name, interface in found.items()} == {
        "lo": True,
        "eth0": True,
        "eth1": True,
        "eth2": False,
    }


def test_addresses_of_global_scope_come_with_their_interface(pod: Namespace) -> None:
    more = ["addr add 10.78.1.5 peer 169.254.1.1 dev eth0", "addr add fe80::77/64 dev eth0 nodad"]
    batch(pod.name, [*more, "addr add 10.99.0.9/32 dev lo"])
    names = {interface.ifindex: interface.name for interface in pod.run(netlink.interfaces)}
    found = {(address.ip, names[address.ifindex]) for address in pod.run(netlink.addresses)}
    assert found == {*((ip, "eth0") for ip in (*pod.ips, "10.78.1.5")), ("10.99.0.9", "lo")}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_rules_and_routes_are_those_of_one_family_and_table(pod: Namespace, family: int) -> None:
    flag = "-6" if family == socket.AF_INET6 else "-4"
    for words in (
        "rule add fwmark 0x9/0xff lookup 1000 priority 44",
        "route add local default dev lo table 1000",
    ):
        ip("-n", pod.name, flag, *words.split())
    assert Rule(family, 44, 9, 0xFF, 1000) in pod.run(lambda: netlink.rules(family))
    assert pod.run(lambda: netlink.routes(family, 1000)) == [Route(family, LOCAL, 0, 1)]
    assert UNICAST in [route.type for route in pod.run(lambda: netlink.routes(family, 254))]
    assert pod.run(lambda: netlink.routes(family, 1001)) == []


def test_listeners_have_their_port_and_their_queue() -> None:
    with namespace() as bare, bare.listen(8080, backlog=7) as listener:
        (found,) = bare.run(netlink.listening)
        assert (found.family, found.port, found.waiting, found.backlog) == (socket.AF_INET6, 8080, 0, 7)
        assert found.cookie == int.from_bytes(listener.getsockopt(socket.SOL_SOCKET, 57, 8), "little")


def test_a_watch_hears_of_changes_and_then_is_quiet(pod: Namespace) -> None:
    with pod.run(netlink.open_watch) as watch:
        assert not netlink.drain(watch)
        batch(pod.name, ["addr add 10.99.0.9/32 dev lo"])
        assert netlink.drain(watch)
        assert not netlink.drain(watch)
