"""Candidates of a service: health, reach, ports, families, and the modes of nearness."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.addr import Endpoint
from zproxy.model.service import (
    BalancerMode,
    GatewayAddress,
    HealthPolicy,
    IpFamilies,
    LoadBalancer,
    NetworkAddress,
    NetworkCidr,
    Scope,
    Service,
    SessionAffinity,
)
from zproxy.model.workload import (
    ApplicationTunnel,
    AppProtocol,
    Locality,
    ServicePort,
    Status,
    Workload,
)
from zproxy.state.balance import CROWD, candidates, rank, target_port
from zproxy.state.crowd import Crowd
from zproxy.state.store import Change, Mesh
from zproxy.state.trace import Trace

WEB = service("demo/web.test", "10.96.0.1", ports={80: 8080, 443: 0})
TO = Endpoint("10.96.0.1", 80)
SOURCE = workload("demo/client", "10.0.0.9", node="n1", locality=Locality("r1", "z1", "s1"))


def found(of: Service, *workloads: Workload, to: Endpoint = TO, source: Workload = SOURCE) -> list[str]:
    known = mesh(of, *(behind(each, of) for each in workloads))
    return [each.workload.name for each in candidates(known, of, source, to)]


def balanced(mode: BalancerMode, *scopes: Scope) -> Service:
    return replace(WEB, load_balancer=LoadBalancer(scopes, mode))


PLACES = {
    "here": workload("demo/here", "10.0.0.1", locality=Locality("r1", "z1", "s1")),
    "zone": workload("demo/zone", "10.0.0.2", locality=Locality("r1", "z1", "s2")),
    "region": workload("demo/region", "10.0.0.3", locality=Locality("r1", "z2", "s1")),
    "far": workload("demo/far", "10.0.0.4", locality=Locality("r2", "z1", "s1")),
    "remote": workload("demo/remote", "10.0.0.5", network="net2", locality=Locality("r1", "z1", "s1")),
}
NETWORK_FIRST = (Scope.NETWORK, Scope.REGION, Scope.ZONE)


@pytest.mark.parametrize(
    ("scopes", "place", "expected"),
    [
        ((Scope.REGION, Scope.ZONE), "here", 2),
        ((Scope.REGION, Scope.ZONE), "region", 1),
        ((Scope.REGION, Scope.ZONE), "far", 0),
        (NETWORK_FIRST, "here", 5),
        (NETWORK_FIRST, "region", 4),
        (NETWORK_FIRST, "far", 3),
        (NETWORK_FIRST, "remote", 2),
        ((Scope.REGION, Scope.NETWORK), "remote", 1),
        ((), "here", 0),
    ],
)
def test_rank(scopes: tuple[Scope, ...], place: str, expected: int) -> None:
    assert rank(scopes, SOURCE, PLACES[place]) == expected


@pytest.mark.parametrize(
    ("mode", "scopes", "places", "expected"),
    [
        (BalancerMode.STANDARD, NETWORK_FIRST, "here zone far", "here zone far"),
        (BalancerMode.STRICT, (Scope.NETWORK, Scope.REGION), "far remote", ""),
        (BalancerMode.STRICT, (Scope.NETWORK, Scope.REGION), "far remote zone", "zone"),
        (BalancerMode.FAILOVER, NETWORK_FIRST, "remote", "remote"),
        (BalancerMode.FAILOVER, NETWORK_FIRST, "remote far", "far"),
        (BalancerMode.FAILOVER, NETWORK_FIRST, "remote far region", "region"),
        (BalancerMode.FAILOVER, NETWORK_FIRST, "remote far region zone here", "here zone"),
        (BalancerMode.FAILOVER, (Scope.REGION, Scope.ZONE), "far region zone", "zone"),
        (BalancerMode.FAILOVER, (), "far region", "far region"),
    ],
)
def test_modes(mode: BalancerMode, scopes: tuple[Scope, ...], places: str, expected: str) -> None:
    assert found(balanced(mode, *scopes), *(PLACES[each] for each in places.split())) == sorted(
        expected.split()
    )


def test_unhealthy_endpoints_are_left_out_unless_all_are_allowed() -> None:
    sick = workload("demo/sick", "10.0.0.1", status=Status.UNHEALTHY)
    assert found(WEB, sick) == []
    lenient = replace(WEB, load_balancer=LoadBalancer(health_policy=HealthPolicy.ALLOW_ALL))
    assert found(lenient, sick) == ["sick"]


def test_an_endpoint_without_an_address_needs_a_name_or_a_gateway_of_its_network() -> None:
    gateway = GatewayAddress(NetworkAddress("", "10.0.0.8"))
    lost = workload("demo/lost")
    named = workload("demo/named", hostname="named.example.com")
    beyond = workload("demo/beyond", network="net2", network_gateway=gateway)
    cut_off = workload("demo/cut-off", network="net2")
    at_home = workload("demo/at-home", network_gateway=gateway)
    assert found(WEB, lost, named, beyond, cut_off, at_home) == ["beyond", "named"]


def test_an_unknown_endpoint_is_none_and_one_may_come_before_its_service() -> None:
    pod = behind(workload("demo/pod", "10.0.0.1"), WEB)
    before = mesh(pod)
    assert candidates(before, WEB, SOURCE, TO)[0].workload is pod
    gone = before.changed(Change(gone_workloads=(pod.uid,)))
    assert candidates(gone, WEB, SOURCE, TO) == ()


@pytest.mark.parametrize(
    ("own", "port", "expected"),
    [
        ({80: 9090}, 80, 9090),
        ({}, 80, 8080),
        ({443: 8443}, 443, 8443),
        ({}, 443, None),
        ({80: 0}, 80, 8080),
        ({443: 0}, 443, None),
        ({}, 81, None),
    ],
    ids=[
        "the endpoint's word",
        "the service's",
        "left to the endpoint",
        "left to one that is silent",
        "the service's, where the endpoint knows no number",
        "left to one that knows no number",
        "none",
    ],
)
def test_target_ports(own: dict[int, int], port: int, expected: int | None) -> None:
    ports = tuple(ServicePort(WEB.key, served, target) for served, target in own.items())
    pod = workload("demo/pod", "10.0.0.1", services=(WEB.key,), service_ports=ports)
    assert target_port(WEB, pod, port) == expected


def test_a_waypoint_with_an_application_tunnel_needs_no_port_of_its_service() -> None:
    tunnel = ApplicationTunnel(AppProtocol.PROXY, 15088)
    pod = behind(workload("demo/pod", "10.0.0.1", application_tunnel=tunnel), WEB)
    to = Endpoint("10.96.0.1", 15008)
    known = mesh(WEB, pod)
    assert candidates(known, WEB, SOURCE, to) == ()
    assert [each.target_port for each in candidates(known, WEB, SOURCE, to, is_waypoint=True)] == [15008]


@pytest.mark.parametrize(
    ("families", "dialled", "expected"),
    [
        (IpFamilies.AUTOMATIC, "10.96.0.1", "10.0.0.1"),
        (IpFamilies.AUTOMATIC, "fd00:96::1", "fd00::1"),
        (IpFamilies.DUAL, "fd00:96::1", "fd00::1"),
        (IpFamilies.IPV4_ONLY, "fd00:96::1", "10.0.0.1"),
        (IpFamilies.IPV6_ONLY, "10.96.0.1", "fd00::1"),
        (IpFamilies.IPV6_ONLY, "10.0.0.1", "10.0.0.1"),
    ],
)
def test_addresses(families: IpFamilies, dialled: str, expected: str) -> None:
    dual = replace(WEB, ip_families=families)
    pod = behind(workload("demo/pod", "10.0.0.1", "fd00::1"), dual)
    assert [each.ip for each in candidates(mesh(dual, pod), dual, SOURCE, Endpoint(dialled, 80))] == [
        expected
    ]


def test_an_endpoint_of_the_other_family_only_is_left_out() -> None:
    only_v6 = replace(WEB, ip_families=IpFamilies.IPV6_ONLY)
    assert found(only_v6, workload("demo/pod", "10.0.0.1")) == []


def test_candidates_are_remembered_for_as_long_as_the_snapshot_lives() -> None:
    pod = behind(workload("demo/pod", "10.0.0.1"), WEB)
    known = mesh(WEB, pod)
    assert candidates(known, WEB, SOURCE, TO) is candidates(known, WEB, SOURCE, TO)
    moved = replace(pod, workload_ips=("10.0.0.2",))
    assert candidates(known.changed(Change((moved,))), WEB, SOURCE, TO)[0].workload is moved


def test_the_trace_names_each_endpoint_and_why_it_was_left_out() -> None:
    sick = behind(workload("demo/sick", "10.0.0.1", status=Status.UNHEALTHY), WEB)
    well = behind(workload("demo/well", "10.0.0.2"), WEB)
    trace = Trace()
    candidates(mesh(WEB, sick, well), WEB, SOURCE, TO, trace=trace)
    assert [(step.outcome, step.detail) for step in trace.steps] == [
        ("left out", "demo/sick: unhealthy"),
        ("candidate", "demo/well at 10.0.0.2, port 8080, weight 1"),
    ]


MANY = [workload(f"demo/w{number}", f"10.1.{number >> 8}.{number & 255}") for number in range(CROWD + 5)]


def many(of: Service, *changed: Workload) -> Mesh:
    """A mesh in which `of` has many endpoints; `changed` take the places of the first ones."""
    return mesh(SOURCE, of, *(behind(each, of) for each in (*changed, *MANY[len(changed) :])))


def balancing(**chosen: Any) -> Service:
    return replace(WEB, load_balancer=LoadBalancer()._replace(**chosen))


@pytest.mark.parametrize(
    "of",
    [WEB, balancing(health_policy=HealthPolicy.ALLOW_ALL), balancing(routing_preferences=(Scope.ZONE,))],
    ids=["any", "whatever their health", "scopes that the mode does not ask for"],
)
def test_of_many_endpoints_none_is_looked_at_before_it_is_picked(of: Service) -> None:
    known = many(of, replace(MANY[0], status=Status.UNHEALTHY), replace(MANY[1], workload_ips=()))
    found = candidates(known, of, SOURCE, TO)
    assert isinstance(found, Crowd)
    assert list(found) == list(found.all()) == list(candidates(known, of, SOURCE, TO, trace=Trace()))
    other = candidates(known, of, workload("demo/other", "10.0.0.8"), TO)
    assert isinstance(other, Crowd)
    assert other.all() is found.all()


@pytest.mark.parametrize(
    ("of", "first"),
    [
        (WEB, replace(MANY[0], capacity=2)),
        (balancing(session_affinity=SessionAffinity.CLIENT_IP), MANY[0]),
        (balanced(BalancerMode.STRICT, Scope.NETWORK), replace(MANY[0], capacity=2)),
        (balanced(BalancerMode.FAILOVER, Scope.ZONE), replace(MANY[0], capacity=2)),
    ],
    ids=["weights", "affinity", "weights, strict", "weights, failover"],
)
def test_where_they_differ_there_is_a_list_which_clients_share(of: Service, first: Workload) -> None:
    known = many(of, first)
    found = candidates(known, of, SOURCE, TO)
    assert isinstance(found, tuple)
    assert found == candidates(known, of, SOURCE, TO, trace=Trace())
    neighbour = replace(SOURCE, uid="neighbour", name="neighbour")
    assert candidates(known, of, neighbour, TO) is found


def test_clients_elsewhere_have_a_list_of_their_own() -> None:
    of = balanced(BalancerMode.FAILOVER, Scope.ZONE)
    known = many(
        of, replace(MANY[0], locality=SOURCE.locality), replace(MANY[1], locality=Locality("r", "z9"))
    )
    there = replace(SOURCE, uid="there", locality=Locality("r", "z9"))
    assert [[each.workload.name for each in candidates(known, of, who, TO)] for who in (SOURCE, there)] == [
        ["w0"],
        ["w1"],
    ]


def test_a_client_that_dials_a_whole_range_makes_one_list() -> None:
    sticky = balancing(session_affinity=SessionAffinity.CLIENT_IP)
    of = replace(sticky, cidr_vips=(NetworkCidr("", "10.97.0.0", 16),))
    known = many(of)
    lists = {id(candidates(known, of, SOURCE, Endpoint(f"10.97.0.{number}", 80))) for number in range(100)}
    assert len(lists) == 1
    unknown = {candidates(known, of, SOURCE, Endpoint("10.97.0.1", port)) for port in range(1000, 1100)}
    assert unknown == {()}
    own = Endpoint(MANY[0].workload_ips[0], 80)
    assert id(candidates(known, of, SOURCE, own)) not in lists


def test_of_a_crowd_in_which_nobody_is_well_there_is_nobody() -> None:
    known = many(WEB, *(replace(each, status=Status.UNHEALTHY) for each in MANY))
    assert candidates(known, WEB, SOURCE, TO) == ()


def test_a_port_that_endpoints_name_and_the_service_does_not_is_found_among_many() -> None:
    extra = ServicePort(WEB.key, 9000, 9001)
    odd = replace(behind(MANY[0], WEB), service_ports=(extra,))
    known = mesh(SOURCE, WEB, odd, *(behind(each, WEB) for each in MANY[1:]))
    assert [each.target_port for each in candidates(known, WEB, SOURCE, Endpoint("10.96.0.1", 9000))] == [
        9001
    ]


@pytest.mark.parametrize("mode", [BalancerMode.STRICT, BalancerMode.FAILOVER])
@pytest.mark.parametrize(
    "scopes", [(Scope.ZONE,), (Scope.NETWORK, Scope.REGION, Scope.ZONE), (Scope.NODE, Scope.ZONE)], ids=str
)
@pytest.mark.parametrize("reach", [("10.0.0.1",), ()], ids=["in reach", "out of reach"])
def test_the_nearest_of_many_are_those_of_the_list(
    mode: BalancerMode, scopes: tuple[Scope, ...], reach: tuple[str, ...]
) -> None:
    of = balanced(mode, *scopes)
    near = [
        replace(MANY[0], locality=SOURCE.locality, node=SOURCE.node),
        replace(MANY[1], locality=SOURCE.locality, workload_ips=reach),
        replace(MANY[2], locality=Locality("r1", "z2"), capacity=9),
        replace(MANY[3], network="net2", workload_ips=(), locality=SOURCE.locality),
    ]
    for first in (near, near[1:]):
        known = many(of, *first)
        found = candidates(known, of, SOURCE, TO)
        assert list(found) == list(candidates(known, of, SOURCE, TO, trace=Trace()))
        if isinstance(found, Crowd):
            assert list(found.all()) == list(found)
            places = [found.at(place) for place in range(found.places)]
            assert {None, *found} >= {None, *places}
            assert [found.of(behind(each, of)) for each in MANY[4:]] == [
                next((each for each in found if each.workload.uid == one.uid), None) for one in MANY[4:]
            ]


def test_those_that_weigh_otherwise_do_no_harm_where_they_are_not_near() -> None:
    of = balanced(BalancerMode.FAILOVER, Scope.ZONE)
    known = many(
        of, *(replace(each, locality=SOURCE.locality) for each in MANY[:9]), replace(MANY[9], capacity=3)
    )
    found = candidates(known, of, SOURCE, TO)
    assert isinstance(found, Crowd)
    assert [each.workload.name for each in found] == [f"w{number}" for number in range(9)]
