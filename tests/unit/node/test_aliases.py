"""Routes that make the aliases local: there for each family that the pod has, and gone afterwards."""

import pytest

from tests.support.netns import Namespace, batch
from tests.support.podstate import routes
from zproxy.node.routes import PodNetwork
from zproxy.steering.resolvers import PREFIX4, PREFIX6

pytestmark = pytest.mark.root


def local(pod: Namespace) -> list[str]:
    return [route for route in routes(pod, "local") if PREFIX4 in route or PREFIX6 in route]


def test_both_prefixes_lead_to_the_pod_itself_with_its_own_source(pod: Namespace) -> None:
    PodNetwork(pod.netns).capture_dns(pod.ips, pod.interface)
    four, six = sorted(local(pod))
    assert (f"dev {pod.interface}" in four, f"src {pod.ip4}" in four) == (True, True)
    assert (f"dev {pod.interface}" in six, f"src {pod.ip6}" in six) == (True, True)


def test_a_family_that_the_pod_lacks_gets_none(pod: Namespace) -> None:
    PodNetwork(pod.netns).capture_dns([pod.ip4], pod.interface)
    assert len(local(pod)) == 1


def test_an_address_that_is_still_looked_for_duplicates_of_holds_nothing_up(pod: Namespace) -> None:
    fresh = pod.ip6.removesuffix("::1") + "::77"
    batch(pod.name, [f"addr del {pod.ip6}/64 dev eth0"])
    pod.sysctl("ipv6.conf.eth0.dad_transmits", "60")
    batch(pod.name, [f"addr add {fresh}/64 dev eth0"])
    PodNetwork(pod.netns).capture_dns([pod.ip4, fresh], pod.interface)
    assert [f"dev {pod.interface}" in route for route in local(pod)] == [True, True]


def test_doing_it_twice_is_doing_it_once_and_undoing_leaves_nothing(pod: Namespace) -> None:
    network = PodNetwork(pod.netns)
    for _ in range(2):
        network.capture_dns(pod.ips, pod.interface)
    assert len(local(pod)) == 2
    network.release_dns()
    network.release_dns()
    assert local(pod) == []


def test_leaving_the_mesh_removes_them_too(pod: Namespace) -> None:
    network = PodNetwork(pod.netns)
    former = network.prepare()
    network.capture_dns(pod.ips, pod.interface)
    network.restore(former)
    assert local(pod) == []
