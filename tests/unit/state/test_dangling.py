"""References that lead nowhere are told, each in a sentence; those that lead somewhere are not."""

from dataclasses import replace

import pytest

from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.policy import Authorization
from zproxy.model.service import (
    GatewayAddress,
    NamespacedHostname,
    NetworkAddress,
    NetworkCidr,
    Service,
    WeightedWaypoint,
)
from zproxy.model.workload import Workload
from zproxy.state.dangling import dangling

GONE = GatewayAddress(NamespacedHostname("demo", "gone.test"))
ELSEWHERE = GatewayAddress(NetworkAddress("net1", "10.0.0.9"))
WAYPOINT = service("demo/waypoint.test", "10.96.0.9", cidr_vips=(NetworkCidr("", "10.97.0.0", 16),))
IN_RANGE = GatewayAddress(NetworkAddress("", "10.97.1.1"))
GATE = workload("demo/gate", "10.0.0.9", hostname="gate.test")
POD = workload("demo/pod", "10.0.0.1")


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (replace(POD, waypoint=GONE), "pod names the waypoint demo/gone.test"),
        (
            replace(POD, network_gateway=ELSEWHERE),
            "pod names the network gateway net1/10.0.0.9",
        ),
        (
            replace(POD, authorization_policies=("demo/deny",)),
            "pod names the policy demo/deny",
        ),
        (replace(POD, waypoint=IN_RANGE), "pod names the waypoint /10.97.1.1"),
        (behind(POD, service("demo/web.test")), "pod names the service demo/web.test"),
        (
            service("demo/web.test", waypoint=GONE),
            "web.test names the waypoint demo/gone.test",
        ),
        (
            service("demo/web.test", weighted_waypoints=(WeightedWaypoint(ELSEWHERE, 1),)),
            "web.test names the waypoint net1/10.0.0.9",
        ),
    ],
    ids=[
        "waypoint",
        "gateway",
        "policy",
        "waypoint in a range",
        "service",
        "waypoint of a service",
        "weighted waypoint",
    ],
)
def test_what_leads_nowhere_is_a_sentence(record: Workload | Service, says: str) -> None:
    kind = "service" if isinstance(record, Service) else "workload"
    assert list(dangling(mesh(record, GATE, WAYPOINT))) == [f"the {kind} demo/{says}, and there is none"]


def test_what_leads_somewhere_is_none() -> None:
    web = service("demo/web.test", waypoint=GatewayAddress(NetworkAddress("", "10.96.0.9")))
    pod = replace(
        behind(POD, web),
        waypoint=GatewayAddress(NamespacedHostname("demo", "gate.test")),
        network_gateway=GatewayAddress(NetworkAddress("", "10.0.0.9")),
        authorization_policies=("demo/deny",),
    )
    assert list(dangling(mesh(web, WAYPOINT, GATE, pod, Authorization("deny", "demo")))) == []


def test_the_one_waypoint_does_not_count_where_there_are_weighted_ones() -> None:
    share = WeightedWaypoint(GatewayAddress(NamespacedHostname("demo", "waypoint.test")), 1)
    assert (
        list(dangling(mesh(WAYPOINT, service("demo/web.test", waypoint=GONE, weighted_waypoints=(share,)))))
        == []
    )
