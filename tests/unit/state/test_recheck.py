"""Whether a connection may go on in another mesh: a table of what changed, and what must end."""

import random
from dataclasses import replace

import pytest

from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.addr import Endpoint
from zproxy.model.policy import Authorization
from zproxy.model.service import GatewayAddress, NetworkAddress, Service, WeightedWaypoint
from zproxy.model.settings import DEFAULT_SETTINGS, OutboundPolicy, Settings
from zproxy.model.workload import Protocol, Status, Workload
from zproxy.state.choose import RandomChooser
from zproxy.state.recheck import objection
from zproxy.state.resolve import resolve

SOURCE = workload("demo/client", "10.0.0.9")
WEB = service("demo/web.test", "10.96.0.1")
POD = behind(workload("demo/pod", "10.0.0.1"), WEB)
OTHER = behind(workload("demo/other", "10.0.0.2"), WEB)
PLAIN = replace(POD, protocol=Protocol.TCP)
WAYPOINT = workload("demo/waypoint", "10.0.0.3")
BY_ADDRESS = GatewayAddress(NetworkAddress("", "10.0.0.3"))
SECOND = workload("demo/second", "10.0.0.4")
BY_SECOND = GatewayAddress(NetworkAddress("", "10.0.0.4"))
TO_POD, TO_WEB, OUTSIDE = Endpoint("10.0.0.1", 80), Endpoint("10.96.0.1", 80), Endpoint("192.0.2.1", 443)
Record = Workload | Service | Authorization
GUIDED = replace(WEB, waypoint=BY_ADDRESS)
SHARED = replace(
    WEB, weighted_waypoints=(WeightedWaypoint(BY_SECOND, 1), WeightedWaypoint(BY_ADDRESS, 1_000_000))
)


@pytest.mark.parametrize(
    ("before", "to", "after", "why"),
    [
        ((POD,), TO_POD, (POD,), ""),
        ((POD,), TO_POD, (), "demo/pod left the mesh"),
        (
            (POD,),
            TO_POD,
            (replace(POD, service_account="x"),),
            "demo/pod is spiffe://cluster.local/ns/demo/sa/x",
        ),
        ((POD,), TO_POD, (replace(POD, workload_ips=("10.0.0.8",)),), "demo/pod is not at 10.0.0.1 any more"),
        ((POD,), TO_POD, (replace(POD, status=Status.UNHEALTHY),), ""),
        ((POD,), TO_POD, (PLAIN,), ""),
        ((PLAIN,), TO_POD, (POD,), "demo/pod has HBONE now, and this is in the clear"),
        (
            (POD,),
            TO_POD,
            (replace(POD, waypoint=BY_ADDRESS), WAYPOINT),
            "through the waypoint demo/waypoint",
        ),
        ((POD,), TO_POD, (replace(POD, waypoint=BY_ADDRESS),), "unknown waypoint: /10.0.0.3:15008"),
        ((replace(POD, waypoint=BY_ADDRESS), WAYPOINT), TO_POD, (POD, WAYPOINT), ""),
        ((WEB, POD), TO_WEB, (WEB, POD, OTHER), ""),
        ((WEB, POD), TO_WEB, (WEB, replace(POD, status=Status.UNHEALTHY), OTHER), ""),
        ((WEB, POD), TO_WEB, (WEB, replace(POD, status=Status.UNHEALTHY)), ""),
        ((WEB, POD), TO_WEB, (WEB, replace(POD, services=(), service_ports=()), OTHER), ""),
        ((WEB, POD), TO_WEB, (POD,), ""),
        ((WEB, POD), TO_WEB, (GUIDED, POD, WAYPOINT), "reached through the waypoint demo/waypoint now"),
        ((GUIDED, WAYPOINT), TO_WEB, (WEB, WAYPOINT, POD), ""),
        ((GUIDED, WAYPOINT), TO_WEB, (replace(WEB, waypoint=BY_SECOND), WAYPOINT, SECOND), "demo/second now"),
        ((SHARED, WAYPOINT, SECOND), TO_WEB, (SHARED, WAYPOINT, SECOND, POD), ""),
        ((), OUTSIDE, (POD,), ""),
        ((), TO_POD, (POD,), "10.0.0.1:80 is demo/pod of the mesh now, and this is in the clear"),
        ((), TO_POD, (PLAIN,), ""),
        ((), TO_WEB, (WEB,), ""),
    ],
)
def test_what_another_mesh_ends(
    before: tuple[Record, ...], to: Endpoint, after: tuple[Record, ...], why: str
) -> None:
    route = resolve(mesh(SOURCE, *before), SOURCE, to, chooser=RandomChooser(random.Random(1)))
    found = objection(mesh(SOURCE, *after), SOURCE, to, route, DEFAULT_SETTINGS)
    assert why in found if why else found == ""


def test_a_destination_that_left_the_registry_is_forbidden_where_only_that_may_be_dialled() -> None:
    route = resolve(mesh(SOURCE), SOURCE, OUTSIDE)
    strict = Settings(OutboundPolicy.REGISTRY_ONLY)
    assert "outbound policy is registry_only" in objection(mesh(SOURCE), SOURCE, OUTSIDE, route, strict)


def test_what_was_refused_is_over_already() -> None:
    refused = resolve(mesh(SOURCE, WEB), SOURCE, TO_WEB)
    assert objection(mesh(SOURCE), SOURCE, TO_WEB, refused, DEFAULT_SETTINGS) == ""
