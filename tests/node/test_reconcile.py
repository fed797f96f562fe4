"""What can be broken under a running daemon: found, repaired and reported, and bounded in cost.

A process in the pod with CAP_NET_ADMIN can do what `ip` and `ss -K` do below; those tests run with the
default interval of a minute, so that what they show is found because the kernel says so. Links, maps and pins
are out of its reach: they are broken as root of the machine.
"""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import dns.message
import dns.rcode
import pytest

from tests.support.netns import Namespace, remove
from tests.support.nodes import App, Node, TwoNodes, exchange, peer_echo, two_nodes, wait_for
from tests.support.podstate import routes, rules, sysctls
from zproxy.config import PIN_ROOT, RUN_ROOT
from zproxy.steering import syscall
from zproxy.steering.resolvers import PREFIX4, PREFIX6

pytestmark = pytest.mark.root

PORT = 7301
ETH_P_ALL = 3


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path) as made:
        yield made


@pytest.fixture
def brisk(tmp_path: Path) -> Iterator[TwoNodes]:
    """Two nodes that look at everything each second."""
    with two_nodes(tmp_path, options=("--reconcile-interval", "1")) as made:
        yield made


def repaired(node: Node, check: str) -> None:
    wait_for(lambda: node.lines(f", repaired: {check} "), f"{check} repaired")


def works(nodes: TwoNodes) -> bool:
    app = App(nodes.server, PORT, peer_echo)
    try:
        return exchange(nodes.dial(PORT), b"x") == f"{nodes.client.ip4} x".encode()
    finally:
        app.close()


def status_is_fine(node: Node, pod: str) -> None:
    done = node.cli("status", pod)
    assert done.returncode == 0, done.stdout


AT_ONCE: dict[str, list[tuple[str, ...]]] = {
    "rule IPv4": [("ip", "rule", "del", "pref", "32764")],
    "rule IPv6": [("ip", "-6", "rule", "del", "pref", "32764")],
    "route IPv4": [("ip", "route", "flush", "table", "100")],
    "route IPv6": [("ip", "-6", "route", "flush", "table", "100")],
    "listener 15001": [("ss", "-K", "-t", "state", "listening", "sport", "=", ":15001")],
    "listener 15006": [("ss", "-K", "-t", "state", "listening", "sport", "=", ":15006")],
    "listener 15008": [("ss", "-K", "-t", "state", "listening", "sport", "=", ":15008")],
    "addresses": [("ip", "addr", "add", "10.99.0.7/32", "dev", "eth0")],
    "tcx_ingress-wan0": [("ip", "link", "set", "eth0", "name", "wan0")],
    "tcx_ingress-eth1": [
        ("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "far"),
        ("ip", "addr", "add", "10.99.0.8/32", "dev", "eth1"),
    ],
}


@pytest.mark.parametrize("check", AT_ONCE)
def test_what_a_pod_can_break_is_repaired_at_once(nodes: TwoNodes, check: str) -> None:
    assert works(nodes)
    for command in AT_ONCE[check]:
        nodes.server.execute(*command)
    repaired(nodes.b, check)
    assert nodes.b.metric("zproxy_drift_repaired", check=check.partition("-")[0]) == 1
    status_is_fine(nodes.b, "demo/server")
    assert works(nodes)


SECRET = b"in-the-clear?"


class Wire:
    """Everything that passes the pod's interface, searched for what must not be readable there."""

    def __init__(self, pod: Namespace) -> None:
        self.seen = 0
        self.is_clear = False
        self._socket = pod.run(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        )
        self._socket.settimeout(0.05)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                packet, (interface, *_) = self._socket.recvfrom(65536)
                if interface != "lo":
                    self.seen += 1
                    self.is_clear = self.is_clear or SECRET in packet

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize(
    "check", [check for check in AT_ONCE if check.startswith(("rule", "route", "listener"))]
)
@pytest.mark.parametrize("side", ["client", "server"])
def test_nothing_is_in_the_clear_while_it_is_broken(nodes: TwoNodes, side: str, check: str) -> None:
    app = App(nodes.server, PORT, peer_echo)
    pod, node = (nodes.client, nodes.a) if side == "client" else (nodes.server, nodes.b)
    wire = Wire(nodes.server)
    for command in AT_ONCE[check]:
        pod.execute(*command)

    def try_and_see() -> bool:
        with suppress(OSError):
            exchange(nodes.dial(PORT), SECRET)
        return bool(node.lines(f", repaired: {check} "))

    wait_for(try_and_see, f"{check} is repaired")
    assert exchange(nodes.dial(PORT), SECRET).endswith(SECRET)
    wire.close()
    app.close()
    assert wire.seen > 0
    assert not wire.is_clear


def test_an_interface_that_was_made_anew_is_steered_again(nodes: TwoNodes) -> None:
    for _ in range(2):
        nodes.server.execute("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "far")
        nodes.server.execute("ip", "addr", "add", "10.99.0.8/32", "dev", "eth1")
        wait_for(lambda: "tcx_ingress-eth1" in pinned(nodes.b), "a link at eth1")
        wait_for(lambda: nodes.b.cli("status", "demo/server").returncode == 0, "all is as wanted")
        nodes.server.execute("ip", "link", "del", "eth1")
        wait_for(lambda: "tcx_ingress-eth1" not in pinned(nodes.b), "the link is collected")
    status_is_fine(nodes.b, "demo/server")


def pinned(node: Node) -> list[str]:
    return [path.name for path in (PIN_ROOT / node.name / "pods").glob("*/*")]


def test_a_lost_family_is_refused_and_never_in_the_clear(nodes: TwoNodes) -> None:
    ip6 = nodes.client.ip6
    nodes.client.execute("ip", "addr", "del", f"{ip6}/64", "dev", "eth0")
    repaired(nodes.a, "addresses")
    app = App(nodes.server, PORT, peer_echo)
    with pytest.raises(OSError, match=r"Operation not permitted|refused|unreachable"):
        nodes.dial(PORT, nodes.server.ip6)
    app.close()
    assert works(nodes)
    nodes.client.execute("ip", "addr", "add", f"{ip6}/64", "dev", "eth0", "nodad")
    wait_for(lambda: nodes.a.dump("zp_pods")[0]["value"]["flags"] & 3 == 3, "both families are steered")


def test_lo_down_is_reported_once_and_its_route_comes_back_with_it(nodes: TwoNodes) -> None:
    nodes.server.execute("ip", "link", "set", "lo", "down")
    said = wait_for(lambda: nodes.b.lines("NOT repaired: loopback missing"), "it is reported")
    assert "ip link set lo up" in said[0]
    done = nodes.b.cli("status", "demo/server")
    assert (done.returncode, "lo is down" in done.stdout) == (1, True)
    nodes.server.execute("ip", "link", "set", "lo", "up")
    repaired(nodes.b, "route IPv4")
    assert works(nodes)
    assert len(nodes.b.lines("NOT repaired: loopback")) == 1


DNS_AT_ONCE: dict[str, list[tuple[str, ...]]] = {
    "dns route IPv4": [("ip", "route", "flush", "table", "local", "root", PREFIX4)],
    "dns route IPv6": [("ip", "-6", "route", "flush", "table", "local", "root", PREFIX6)],
}
ELSEWHERE: Final = ("192.0.2.53", "2001:db8:53::53")
"""Resolvers that nobody is."""


def refused_by_the_straw(pod: Namespace, resolver: str) -> bool:
    """Whether a zone transfer, which is not passed on, is answered in the name of whoever was asked."""
    query = dns.message.make_query("example.com", "AXFR").to_wire()
    with pod.socket(socket.AF_INET6 if ":" in resolver else socket.AF_INET, socket.SOCK_DGRAM) as app:
        app.settimeout(1)
        try:
            app.sendto(query, (resolver, 53))
            answer, (source, *_) = app.recvfrom(512)
        except OSError:
            return False
    return source == resolver and dns.message.from_wire(answer).rcode() == dns.rcode.REFUSED


def asks(pod: Namespace) -> bool:
    return all(refused_by_the_straw(pod, each) for each in ELSEWHERE)


@pytest.mark.parametrize("check", DNS_AT_ONCE)
def test_a_pod_whose_way_to_its_dns_is_gone_gets_it_back_at_once(nodes: TwoNodes, check: str) -> None:
    assert asks(nodes.client)
    for command in DNS_AT_ONCE[check]:
        nodes.client.execute(*command)
    repaired(nodes.a, check)
    status_is_fine(nodes.a, "demo/client")
    assert asks(nodes.client)


def test_an_interface_that_was_down_leads_to_the_dns_again(nodes: TwoNodes) -> None:
    """A plugin of the cluster's network may do that. IPv6 addresses go with it, and it gives them back."""
    nodes.client.execute("ip", "link", "set", "eth0", "down")
    nodes.client.execute("ip", "link", "set", "eth0", "up")
    nodes.client.execute("ip", "addr", "add", f"{nodes.client.ip6}/64", "dev", "eth0", "nodad")
    wait_for(lambda: nodes.a.cli("status", "demo/client").returncode == 0, "all is as wanted")
    assert asks(nodes.client)
    assert (
        len([route for route in routes(nodes.client, "local") if "fd16:" in route or "240.15" in route]) == 2
    )


def test_queries_of_a_pod_with_another_address_are_answered(nodes: TwoNodes) -> None:
    second = nodes.client.ip4.removesuffix(".1") + ".77"
    nodes.client.execute("ip", "addr", "add", f"{second}/32", "dev", "eth0")
    nodes.client.execute("ip", "addr", "del", f"{nodes.client.ip4}/24", "dev", "eth0")
    repaired(nodes.a, "dns route IPv4")
    assert refused_by_the_straw(nodes.client, ELSEWHERE[0])
    (route,) = (each for each in routes(nodes.client, "local") if PREFIX4 in each)
    assert f"src {second}" in route


def test_what_others_made_stays(nodes: TwoNodes) -> None:
    nodes.server.execute("ip", "rule", "add", "pref", "90", "fwmark", "0x5/0xfff", "lookup", "55")
    nodes.server.execute("ip", "route", "add", "192.0.2.0/24", "dev", "eth0", "table", "55")
    theirs = [
        line for line in (*rules(nodes.server), *routes(nodes.server, "55")) if "55" in line or "192" in line
    ]
    nodes.server.execute("ip", "rule", "del", "pref", "32764")
    repaired(nodes.b, "rule IPv4")
    nodes.b.client.call("unenroll", pod="demo/server")
    left = (*rules(nodes.server), *routes(nodes.server, "55"))
    assert set(theirs) <= set(left)
    assert not any("0x111" in line for line in left)


def test_a_pod_that_breaks_things_all_the_time_is_looked_at_once_a_second(nodes: TwoNodes) -> None:
    before = nodes.b.metric("zproxy_reconcile_looks")
    stop = threading.Event()

    def flap() -> None:
        lines = ["rule add pref 77 fwmark 0x7 lookup 56", "rule del pref 77"] * 50
        while not stop.is_set():
            subprocess.run(
                ["ip", "-n", nodes.server.name, "-batch", "-"], input="\n".join(lines).encode(), check=True
            )

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        wait_for(lambda: nodes.b.metric("zproxy_reconcile_looks") >= before + 8, "five at once, then some")
        nodes.server.execute("ip", "rule", "del", "pref", "32764")
        repaired(nodes.b, "rule IPv4")
    finally:
        stop.set()
        thread.join()
    looks = nodes.b.metric("zproxy_reconcile_looks")
    assert looks - before < 30
    assert works(nodes)


def test_a_look_costs_little(brisk: TwoNodes) -> None:
    wait_for(lambda: brisk.b.metric("zproxy_reconcile_looks") > 5, "some looks")
    looks, spent = (brisk.b.metric(f"zproxy_reconcile_{name}") for name in ("looks", "microseconds"))
    assert spent / looks < 50_000


def test_a_sysctl_is_set_again(brisk: TwoNodes) -> None:
    brisk.server.sysctl("ipv4.tcp_fwmark_accept", "0")
    repaired(brisk.b, "sysctls")
    assert "ipv4/tcp_fwmark_accept = 1" in sysctls(brisk.server)
    assert works(brisk)


def test_former_sysctls_are_given_back_though_drift_was_repaired(brisk: TwoNodes) -> None:
    brisk.b.client.call("unenroll", pod="demo/server")
    brisk.server.sysctl("ipv4.tcp_tw_reuse", "2")
    brisk.enroll_server()
    brisk.server.sysctl("ipv4.tcp_tw_reuse", "0")
    repaired(brisk.b, "sysctls")
    brisk.b.client.call("unenroll", pod="demo/server")
    assert "ipv4/tcp_tw_reuse = 2" in sysctls(brisk.server)


def drop_keys(node: Node, name: str, size: int) -> None:
    fd = syscall.obj_get(PIN_ROOT / node.name / "maps" / name)
    try:
        for key in list(syscall.map_keys(fd, size)):
            assert syscall.map_delete(fd, key)
    finally:
        os.close(fd)


def pod_pin(node: Node, name: str) -> Path:
    return next((PIN_ROOT / node.name / "pods").glob(f"*/{name}"))


BY_ROOT: dict[str, Callable[[Node], object]] = {
    "pod entry": lambda node: drop_keys(node, "zp_pods", 8),
    "addresses": lambda node: drop_keys(node, "zp_podip", 16),
    "counters": lambda node: drop_keys(node, "zp_podstat", 8),
    "hook connect4": lambda node: (PIN_ROOT / node.name / "links" / "connect4").unlink(),
    "maps": lambda node: (PIN_ROOT / node.name / "maps" / "zp_pods").unlink(),
    "programs": lambda node: (PIN_ROOT / node.name / "progs" / "zp_lookup").unlink(),
    "sk_lookup": lambda node: pod_pin(node, "sk_lookup").unlink(),
    "tcx_ingress-eth0": lambda node: next(
        (PIN_ROOT / node.name / "pods").glob("*/tcx_ingress-eth0")
    ).unlink(),
}


@pytest.mark.parametrize("check", BY_ROOT)
def test_what_root_can_break_is_repaired_by_the_next_look(brisk: TwoNodes, check: str) -> None:
    BY_ROOT[check](brisk.b)
    repaired(brisk.b, check)
    assert works(brisk)
    assert brisk.b.cli("status").returncode == 0


def test_what_a_dead_pod_left_is_collected(brisk: TwoNodes) -> None:
    remove(brisk.server.name)
    wait_for(lambda: brisk.b.lines("collected what demo/server left"), "it is collected")
    assert brisk.b.client.call("pods") == []
    assert [brisk.b.dump(name) for name in ("zp_pods", "zp_podip", "zp_podstat")] == [[], [], []]
    assert pinned(brisk.b) == []
    assert list((RUN_ROOT / brisk.b.name / "pods").glob("*")) == []
    assert brisk.b.metric("zproxy_dead_pods_collected") == 1


def test_a_pod_without_a_record_is_refused_in_sight_until_it_is_enrolled_again(brisk: TwoNodes) -> None:
    brisk.b.stop(9)
    (RUN_ROOT / brisk.b.name / "pods" / "demo_server.json").unlink()
    brisk.b.start()
    wait_for(lambda: brisk.b.client.call("pods"), "it is shown")
    (row,) = brisk.b.client.call("pods")
    assert (row["pod"], row["state"]) == ("demo/server", "refused")
    assert "no record" in row["reason"]
    with pytest.raises(ConnectionError):
        works(brisk)
    brisk.enroll_server()
    assert works(brisk)
    assert [row["state"] for row in brisk.b.client.call("pods")] == ["enrolled"]


def test_traces_of_the_dead_without_a_record_are_collected_at_the_start(brisk: TwoNodes) -> None:
    brisk.b.stop(9)
    (RUN_ROOT / brisk.b.name / "pods" / "demo_server.json").unlink()
    remove(brisk.server.name)
    brisk.b.start()
    wait_for(lambda: brisk.b.lines("collected what demo/server left"), "they are collected")
    assert brisk.b.dump("zp_pods") == []
    assert pinned(brisk.b) == []
