"""Routing of borrowed addresses: what is there afterwards, what is left, and whose table it is."""

import socket
from collections.abc import Iterator

import pytest

from tests.support.netns import Namespace, batch, ip, namespace, pair
from tests.support.podstate import routes, rules, state_of, sysctls
from zproxy.errors import EnrollError
from zproxy.node import routes as subject
from zproxy.node.routes import ExternalNetwork, PodNetwork

pytestmark = pytest.mark.root

RULE = "32764:\tfrom all fwmark 0x111/0xfff lookup 100"
SECOND_LINK = ("link add eth1 type veth peer name eth2", "link set eth1 up", "link set eth2 up")


@pytest.fixture
def pod() -> Iterator[Namespace]:
    with pair("pod", "peer") as (made, _):
        yield made


@pytest.fixture
def network(pod: Namespace) -> PodNetwork:
    return PodNetwork(pod.netns)


def test_addresses_are_those_of_both_families_and_not_of_lo(pod: Namespace, network: PodNetwork) -> None:
    assert network.addresses() == ((pod.ip4, pod.ip6), ("eth0",))


def test_link_local_addresses_are_not_the_pod_s(pod: Namespace, network: PodNetwork) -> None:
    batch(pod.name, ["addr add fe80::77/64 dev eth0 nodad", "addr add 10.99.0.9/32 dev lo"])
    assert network.addresses() == ((pod.ip4, pod.ip6), ("eth0",))


def test_every_interface_with_an_address_is_named_once(pod: Namespace, network: PodNetwork) -> None:
    batch(pod.name, [*SECOND_LINK, "addr add 10.78.0.1/24 dev eth1"])
    ips, interfaces = network.addresses()
    assert set(ips) == {pod.ip4, pod.ip6, "10.78.0.1"}
    assert set(interfaces) == {"eth0", "eth1"}
    assert len(interfaces) == 2


def test_of_a_point_to_point_address_the_pod_s_end_counts(pod: Namespace, network: PodNetwork) -> None:
    batch(pod.name, ["addr add 10.78.1.5 peer 169.254.1.1 dev eth0"])
    assert set(network.addresses()[0]) == {pod.ip4, pod.ip6, "10.78.1.5"}


def test_a_bare_namespace_has_no_address() -> None:
    with namespace() as bare:
        assert PodNetwork(bare.netns).addresses() == ((), ())


def test_prepare_installs_rule_route_and_sysctls_for_both_families(
    pod: Namespace, network: PodNetwork
) -> None:
    network.prepare()
    assert [line for line in rules(pod) if "lookup 100" in line] == [f"-4 {RULE}", f"-6 {RULE}"]
    v4, v6 = routes(pod, "100")
    assert v4 == "-4 local default dev lo proto static scope host"
    assert v6.startswith("-6 local default dev lo ")
    assert sysctls(pod) == [
        "ipv4/tcp_fwmark_accept = 1",
        "ipv4/fwmark_reflect = 1",
        "ipv6/fwmark_reflect = 1",
        "ipv4/tcp_tw_reuse = 1",
    ]


def test_marked_packets_are_routed_to_lo_and_no_others(pod: Namespace, network: PodNetwork) -> None:
    network.prepare()
    far = {"4": "192.0.2.7", "6": "2001:db8::7"}
    for family, to in far.items():
        marked = pod.execute("ip", f"-{family}", "route", "get", to, "mark", "0x111").stdout
        assert "dev lo table 100" in marked
        assert "dev eth0" in pod.execute("ip", f"-{family}", "route", "get", to).stdout
        assert "dev eth0" in pod.execute("ip", f"-{family}", "route", "get", to, "mark", "0x539").stdout


def test_restore_leaves_exactly_what_was(pod: Namespace, network: PodNetwork) -> None:
    pod.sysctl("ipv4.tcp_tw_reuse", "2")
    pod.sysctl("ipv4.fwmark_reflect", "1")
    before = state_of(pod)
    former = network.prepare()
    assert state_of(pod) != before
    network.restore(former)
    assert state_of(pod) == before


def test_preparing_twice_is_preparing_once(pod: Namespace, network: PodNetwork) -> None:
    before = state_of(pod)
    former = network.prepare()
    once = state_of(pod)
    network.prepare()
    assert state_of(pod) == once
    network.restore(former)
    assert state_of(pod) == before


def test_restore_tolerates_what_is_gone(pod: Namespace, network: PodNetwork) -> None:
    before = state_of(pod)
    former = network.prepare()
    batch(pod.name, ["rule del priority 32764"])
    ip("-6", "-n", pod.name, "route", "flush", "table", "100")
    network.restore(former)
    network.restore(former)
    assert state_of(pod) == before


def test_a_namespace_without_ipv6_is_prepared_for_ipv4(pod: Namespace, network: PodNetwork) -> None:
    pod.sysctl("ipv6.conf.all.disable_ipv6", "1")
    before = state_of(pod)
    former = network.prepare()
    assert f"-4 {RULE}" in rules(pod)
    network.restore(former)
    assert state_of(pod) == before


@pytest.mark.parametrize(
    "line",
    [
        "-4 route add default via 10.0.0.1 dev eth1 table 100",
        "-4 route add 192.0.2.0/24 dev eth1 table 100",
        "-6 route add 2001:db8::/64 dev eth1 table 100",
        "-4 rule add fwmark 0x9 lookup 100",
        "-6 rule add fwmark 0x9 lookup 44 priority 32764",
    ],
)
def test_a_table_or_priority_that_serves_somebody_else_is_refused(
    pod: Namespace, network: PodNetwork, line: str
) -> None:
    batch(pod.name, [*SECOND_LINK, "addr add 10.0.0.2/24 dev eth1"])
    ip("-n", pod.name, *line.split())
    before = state_of(pod)
    with pytest.raises(EnrollError, match=r"table 100 or rule priority 32764 .* by somebody else"):
        network.prepare()
    assert state_of(pod) == before


def test_a_namespace_whose_lo_is_down_is_refused_with_the_remedy(pod: Namespace, network: PodNetwork) -> None:
    batch(pod.name, ["link set lo down"])
    before = state_of(pod)
    with pytest.raises(EnrollError, match=r"lo is down .* `ip link set lo up`"):
        network.prepare()
    assert state_of(pod) == before


def test_a_failure_half_way_leaves_exactly_what_was(
    pod: Namespace, network: PodNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subject._install

    def then_fails() -> None:
        real()
        raise EnrollError("the kernel refuses")

    before = state_of(pod)
    monkeypatch.setattr(subject, "_install", then_fails)
    with pytest.raises(EnrollError, match="the kernel refuses"):
        network.prepare()
    assert state_of(pod) == before


def test_what_the_kernel_refuses_is_said_with_its_reason(
    network: PodNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subject._rule
    monkeypatch.setattr(subject, "_rule", lambda family: real(family)._replace(family=socket.AF_UNIX))
    monkeypatch.setattr(subject, "_uninstall", lambda: None)
    with pytest.raises(EnrollError, match="cannot install the pod's route of table 100: Address family not"):
        network.prepare()


def test_a_sysctl_that_cannot_be_written_is_named_and_the_others_are_put_back(
    pod: Namespace, network: PodNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(pod)
    monkeypatch.setattr(subject, "SYSCTLS", subject.SYSCTLS | {"net/ipv4/tcp_fin_timeout": "no number"})
    with pytest.raises(EnrollError, match=r"cannot set net\.ipv4\.tcp_fin_timeout in the pod's namespace"):
        network.prepare()
    assert state_of(pod) == before


def test_in_a_pod_that_others_steer_nothing_is_touched(pod: Namespace) -> None:
    before = state_of(pod)
    network = ExternalNetwork(pod.netns)
    assert network.addresses() == PodNetwork(pod.netns).addresses()
    assert network.prepare() == {}
    network.capture_dns(pod.ips, pod.interface)
    assert state_of(pod) == before
    PodNetwork(pod.netns).prepare()  # as somebody else might have
    prepared = state_of(pod)
    network.release_dns()
    network.restore({})
    assert state_of(pod) == prepared
