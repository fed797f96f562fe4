"""The outbound decision for services, waypoints and gateways: the rows that ztunnel pins, and more."""

import random
from dataclasses import replace

import pytest

from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.addr import Endpoint
from zproxy.model.route import Passthrough, Refuse, Role, Route, Upstream
from zproxy.model.service import (
    BalancerMode,
    GatewayAddress,
    IpFamilies,
    LoadBalancer,
    NamespacedHostname,
    NetworkAddress,
    NetworkCidr,
    Scope,
    Service,
    WeightedWaypoint,
)
from zproxy.model.settings import DEFAULT_SETTINGS, Compat, Settings, WaypointPolicy
from zproxy.model.workload import NetworkMode, Protocol, ServicePort, Status, Workload
from zproxy.state.choose import RandomChooser
from zproxy.state.resolve import resolve
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace

SAN = "spiffe://cluster.local/ns/default/sa/remote"
SOURCE = workload("default/source", "127.0.0.10", node="local")
SERVICE = service("default/example.com", "127.0.0.3", ports={80: 8080}, subject_alt_names=(SAN,))
LOCAL = workload("default/local", "127.0.0.2", node="local")
WAYPOINT = workload("default/waypoint", "127.0.0.11")
TO_SERVICE = Endpoint("127.0.0.3", 80)
BY_ADDRESS = GatewayAddress(NetworkAddress("", "127.0.0.11"))
REMOTE_GATEWAY = workload("default/gateway", "10.22.1.1")
REMOTE = behind(
    workload(
        "default/far",
        "10.0.9.9",
        network="remote",
        network_gateway=GatewayAddress(NetworkAddress("", "10.22.1.1"), 15009),
    ),
    SERVICE,
)


def routed(
    known: Mesh, to: str | Endpoint, settings: Settings = DEFAULT_SETTINGS, source: Workload = SOURCE
) -> Route:
    where = Endpoint.parse(to) if isinstance(to, str) else to
    return resolve(known, source, where, settings, RandomChooser(random.Random(1)))


def brief(route: Route) -> tuple[str, ...]:
    """Kind, authority and address, as in ztunnel's rows."""
    if isinstance(route, Refuse):
        return ("error",)
    if isinstance(route, Passthrough):
        return ("TCP", "", str(route.to))
    kind = "DOUBLEHBONE" if route.role is Role.GATEWAY else "HBONE" if route.identities else "TCP"
    return kind, route.authority, str(route.address)


def with_target(target: int) -> tuple[Service, Workload]:
    of = replace(SERVICE, ports=((80, 0),))
    port = ServicePort(of.key, 80, target)
    tcp = replace(LOCAL, protocol=Protocol.TCP, services=(of.key,), service_ports=(port,))
    return of, tcp


def through(of: Service, waypoint: GatewayAddress = BY_ADDRESS) -> Service:
    return replace(of, waypoint=waypoint)


PASSTHROUGH = replace(
    SERVICE,
    vips=(NetworkAddress("", "1.2.3.4"),),
    load_balancer=LoadBalancer(mode=BalancerMode.PASSTHROUGH),
)
FAILOVER = replace(SERVICE, load_balancer=LoadBalancer((Scope.NETWORK,), BalancerMode.FAILOVER))
TCP_LOCAL = replace(LOCAL, protocol=Protocol.TCP)
FAR_WAYPOINT = replace(
    WAYPOINT, network="remote", network_gateway=GatewayAddress(NetworkAddress("", "10.22.1.1"), 15009)
)
FAR_REFERENCE = GatewayAddress(NetworkAddress("remote", "127.0.0.11"))
GATEWAY_HOST = replace(REMOTE_GATEWAY, workload_ips=("127.0.0.5",), hostname="gateway.example.com")
BY_HOST = GatewayAddress(NamespacedHostname("default", "gateway.example.com"))
NODE_AGENT = replace(LOCAL, network_mode=NetworkMode.HOST_NETWORK, protocol=Protocol.TCP)
DUAL = workload("default/dual", "127.0.0.2", "ff06::c3", node="local")
DOUBLE = ("DOUBLEHBONE", "example.com:80", "10.22.1.1:15009")

ROWS = {
    "unknown_dest": (mesh(), "1.2.3.4:80", ("TCP", "", "1.2.3.4:80")),
    "wrong_network": (mesh(SERVICE, replace(REMOTE, network_gateway=None)), TO_SERVICE, ("error",)),
    "double_hbone, gateway by IP": (mesh(SERVICE, REMOTE, REMOTE_GATEWAY), TO_SERVICE, DOUBLE),
    "double_hbone, gateway by host": (
        mesh(SERVICE, replace(REMOTE, network_gateway=BY_HOST), GATEWAY_HOST),
        TO_SERVICE,
        ("DOUBLEHBONE", "example.com:80", "127.0.0.5:15008"),
    ),
    "double_hbone, remote waypoint": (
        mesh(through(SERVICE, FAR_REFERENCE), FAR_WAYPOINT, REMOTE_GATEWAY, behind(LOCAL, SERVICE)),
        TO_SERVICE,
        DOUBLE,
    ),
    "failover_to_remote, local healthy": (
        mesh(FAILOVER, behind(LOCAL, SERVICE), REMOTE, REMOTE_GATEWAY),
        TO_SERVICE,
        ("HBONE", "127.0.0.2:8080", "127.0.0.2:15008"),
    ),
    "failover_to_remote, local gone": (mesh(FAILOVER, REMOTE, REMOTE_GATEWAY), TO_SERVICE, DOUBLE),
    "failover_to_remote, local sick": (
        mesh(FAILOVER, behind(replace(LOCAL, status=Status.UNHEALTHY), SERVICE), REMOTE, REMOTE_GATEWAY),
        TO_SERVICE,
        DOUBLE,
    ),
    "known_dest_tcp": (mesh(TCP_LOCAL), "127.0.0.2:80", ("TCP", "", "127.0.0.2:80")),
    "known_dest_remote_node_tcp": (
        mesh(replace(TCP_LOCAL, node="remote")),
        "127.0.0.2:80",
        ("TCP", "", "127.0.0.2:80"),
    ),
    "known_dest_hbone": (mesh(LOCAL), "127.0.0.2:80", ("HBONE", "127.0.0.2:80", "127.0.0.2:15008")),
    "known_dest_remote_node_hbone": (
        mesh(replace(LOCAL, node="remote")),
        "127.0.0.2:80",
        ("HBONE", "127.0.0.2:80", "127.0.0.2:15008"),
    ),
    "source_waypoint is ignored": (
        mesh(replace(SOURCE, waypoint=BY_ADDRESS), WAYPOINT, TCP_LOCAL),
        "127.0.0.2:80",
        ("TCP", "", "127.0.0.2:80"),
    ),
    "destination_waypoint": (
        mesh(replace(LOCAL, waypoint=BY_ADDRESS), WAYPOINT),
        "127.0.0.2:80",
        ("HBONE", "127.0.0.2:80", "127.0.0.11:15008"),
    ),
    "destination_waypoint_mismatch_ip": (
        mesh(replace(DUAL, waypoint=BY_ADDRESS), WAYPOINT),
        "[ff06::c3]:80",
        ("HBONE", "[ff06::c3]:80", "127.0.0.11:15008"),
    ),
    "destination_svc_waypoint": (
        mesh(through(SERVICE), WAYPOINT, behind(LOCAL, SERVICE)),
        TO_SERVICE,
        ("HBONE", "127.0.0.3:80", "127.0.0.11:15008"),
    ),
    "empty_service": (mesh(SERVICE), TO_SERVICE, ("error",)),
    "target_port": (mesh(*with_target(1234)), TO_SERVICE, ("TCP", "", "127.0.0.2:1234")),
    "host_network by service": (
        mesh(SERVICE, behind(NODE_AGENT, SERVICE)),
        TO_SERVICE,
        ("TCP", "", "127.0.0.2:8080"),
    ),
    "host_network by the node's address": (
        mesh(SERVICE, behind(NODE_AGENT, SERVICE)),
        "127.0.0.2:80",
        ("TCP", "", "127.0.0.2:80"),
    ),
    "multiple_address_workload v4": (
        mesh(DUAL),
        "127.0.0.2:80",
        ("HBONE", "127.0.0.2:80", "127.0.0.2:15008"),
    ),
    "multiple_address_workload v6": (
        mesh(DUAL),
        "[ff06::c3]:80",
        ("HBONE", "[ff06::c3]:80", "[ff06::c3]:15008"),
    ),
    "service_ip_families v6": (
        mesh(replace(SERVICE, ip_families=IpFamilies.IPV6_ONLY), behind(DUAL, SERVICE)),
        TO_SERVICE,
        ("HBONE", "[ff06::c3]:8080", "[ff06::c3]:15008"),
    ),
    "service_ip_families v4": (
        mesh(replace(SERVICE, ip_families=IpFamilies.IPV4_ONLY), behind(DUAL, SERVICE)),
        TO_SERVICE,
        ("HBONE", "127.0.0.2:8080", "127.0.0.2:15008"),
    ),
    "service_ip_families dual": (
        mesh(replace(SERVICE, ip_families=IpFamilies.DUAL), behind(DUAL, SERVICE)),
        TO_SERVICE,
        ("HBONE", "127.0.0.2:8080", "127.0.0.2:15008"),
    ),
    "passthrough_svc": (
        mesh(PASSTHROUGH, behind(LOCAL, PASSTHROUGH)),
        "1.2.3.4:80",
        ("TCP", "", "1.2.3.4:80"),
    ),
    "passthrough_svc with waypoint": (
        mesh(through(PASSTHROUGH), WAYPOINT),
        "1.2.3.4:80",
        ("HBONE", "1.2.3.4:80", "127.0.0.11:15008"),
    ),
}


@pytest.mark.parametrize(("known", "to", "expected"), ROWS.values(), ids=ROWS)
def test_build_request(known: Mesh, to: str | Endpoint, expected: tuple[str, ...]) -> None:
    assert brief(routed(known, to)) == expected


def test_of_pods_that_share_their_nodes_address_a_service_leads_to_its_own_and_the_address_to_nobody() -> (
    None
):
    mine = behind(NODE_AGENT, SERVICE)
    other = replace(NODE_AGENT, uid="default/other", name="other", service_account="other")
    for known in (mesh(SERVICE, mine, other), mesh(SERVICE, other, mine)):
        assert upstream(known, TO_SERVICE).workload is mine
        assert routed(known, "127.0.0.2:80") == Passthrough(Endpoint("127.0.0.2", 80))


def upstream(known: Mesh, to: str | Endpoint, source: Workload = SOURCE) -> Upstream:
    route = routed(known, to, source=source)
    assert isinstance(route, Upstream)
    return route


def test_an_endpoint_may_prove_its_own_identity_or_one_of_the_services() -> None:
    route = upstream(mesh(SERVICE, behind(LOCAL, SERVICE)), TO_SERVICE)
    assert route.identities == (str(LOCAL.identity), SAN)
    assert upstream(mesh(SERVICE, LOCAL), "127.0.0.2:80").identities == (str(LOCAL.identity),)
    assert (route.service, route.workload.name, route.port) == (SERVICE, "local", 8080)


def test_behind_a_gateway_only_the_services_identities_count() -> None:
    route = upstream(mesh(SERVICE, REMOTE, REMOTE_GATEWAY), TO_SERVICE)
    assert route.identities == (str(REMOTE_GATEWAY.identity),)
    assert route.inner == (SAN,)
    nameless = replace(SERVICE, subject_alt_names=())
    refused = routed(mesh(nameless, REMOTE, REMOTE_GATEWAY), TO_SERVICE)
    assert isinstance(refused, Refuse)
    assert "no subjectAltNames" in refused.reason


def test_the_waypoint_itself_reaches_the_workload() -> None:
    known = mesh(replace(LOCAL, waypoint=BY_ADDRESS), WAYPOINT)
    assert upstream(known, "127.0.0.2:80", source=WAYPOINT).role is Role.DESTINATION
    sibling = replace(WAYPOINT, uid="sibling", workload_ips=("127.0.0.12",))
    assert upstream(known, "127.0.0.2:80", source=sibling).role is Role.WAYPOINT
    impostor = replace(WAYPOINT, service_account="other")
    assert upstream(known, "127.0.0.2:80", source=impostor).role is Role.WAYPOINT


@pytest.mark.parametrize("policy", list(WaypointPolicy))
def test_a_waypoint_that_is_unhealthy_reaches_its_workload_all_the_same(policy: WaypointPolicy) -> None:
    gate = service("default/gate.test", "10.98.0.1", ports={15008: 15008})
    sick = replace(behind(WAYPOINT, gate), status=Status.UNHEALTHY)
    well = behind(workload("default/well", "127.0.0.12"), gate)
    guided = replace(LOCAL, waypoint=GatewayAddress(NamespacedHostname("default", "gate.test")))
    known, settings = mesh(gate, sick, well, guided), Settings(waypoint_policy=policy)
    assert brief(routed(known, "127.0.0.2:80", settings, sick)) == (
        "HBONE",
        "127.0.0.2:80",
        "127.0.0.2:15008",
    )
    assert brief(routed(known, "127.0.0.2:80", settings)) == ("HBONE", "127.0.0.2:80", "127.0.0.12:15008")


def test_a_workload_with_a_waypoint_s_name_but_another_identity_is_none() -> None:
    guided = replace(LOCAL, waypoint=BY_ADDRESS)
    known = mesh(replace(WAYPOINT, service_account="new"), guided)
    assert brief(routed(known, "127.0.0.2:80", source=WAYPOINT))[2] == "127.0.0.11:15008"


def test_traffic_to_a_service_does_not_take_its_workloads_waypoint() -> None:
    known = mesh(SERVICE, behind(replace(LOCAL, waypoint=BY_ADDRESS), SERVICE), WAYPOINT)
    assert upstream(known, TO_SERVICE).role is Role.DESTINATION


NOWHERE = GatewayAddress(NamespacedHostname("default", "nowhere.example.com"))


@pytest.mark.parametrize(
    ("known", "to"),
    [
        (mesh(through(SERVICE, NOWHERE), behind(LOCAL, SERVICE)), TO_SERVICE),
        (mesh(replace(LOCAL, waypoint=NOWHERE)), Endpoint("127.0.0.2", 80)),
    ],
    ids=["service", "workload"],
)
def test_a_waypoint_that_cannot_be_found_is_gone_past_only_where_that_is_allowed(
    known: Mesh, to: Endpoint
) -> None:
    refused = routed(known, to)
    assert isinstance(refused, Refuse)
    assert refused.reason.startswith("unknown waypoint: default/nowhere.example.com:15008")
    passed = routed(known, to, Settings(waypoint_policy=WaypointPolicy.PREFER))
    assert isinstance(passed, Upstream)
    assert (passed.workload.name, passed.role) == ("local", Role.DESTINATION)


def test_weighted_waypoints_share_in_proportion() -> None:
    other = replace(WAYPOINT, uid="other", name="other", workload_ips=("127.0.0.12",))
    shared = replace(
        through(SERVICE, NOWHERE),
        weighted_waypoints=(
            WeightedWaypoint(BY_ADDRESS, 3),
            WeightedWaypoint(GatewayAddress(NetworkAddress("", "127.0.0.12")), 1),
        ),
    )
    known, chooser = mesh(shared, WAYPOINT, other), RandomChooser(random.Random(1))
    drawn = [resolve(known, SOURCE, TO_SERVICE, chooser=chooser) for _ in range(4000)]
    share = sum(isinstance(each, Upstream) and each.workload is WAYPOINT for each in drawn) / len(drawn)
    assert 0.7 < share < 0.8


def test_a_service_that_leads_to_a_port_of_the_mesh_proxy_is_refused() -> None:
    assert brief(routed(mesh(*with_target(15008)), TO_SERVICE)) == ("error",)


def test_a_workload_known_by_name_only_is_left_to_dns() -> None:
    named = replace(behind(LOCAL, SERVICE), workload_ips=(), hostname="db.example.com")
    route = upstream(mesh(SERVICE, named), TO_SERVICE)
    assert (route.hostname, route.address, route.authority) == (
        "db.example.com", Endpoint("", 15008), "db.example.com:8080",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("known", "to", "words"),
    [
        (
            mesh(SERVICE),
            TO_SERVICE,
            "no healthy upstream: default/example.com was dialled, and it has no end",
        ),
        (mesh(SERVICE, behind(LOCAL, SERVICE)), Endpoint("127.0.0.3", 81), "it has no port 81"),
        (
            mesh(SERVICE, behind(replace(LOCAL, status=Status.UNHEALTHY), SERVICE)),
            TO_SERVICE,
            "none of its 1 endpoints can take a connection to port 80",
        ),
        (mesh(SERVICE, REMOTE), TO_SERVICE, "unknown network gateway"),
        (
            mesh(replace(LOCAL, waypoint=FAR_REFERENCE), FAR_WAYPOINT),
            Endpoint("127.0.0.2", 80),
            "no valid routing destination: the waypoint default/waypoint",
        ),
    ],
)
def test_refusals_say_what_is_wrong(known: Mesh, to: Endpoint, words: str) -> None:
    route = routed(known, to)
    assert isinstance(route, Refuse)
    assert words in route.reason


@pytest.mark.parametrize(("known", "to", "expected"), ROWS.values(), ids=ROWS)
def test_a_trace_changes_nothing_and_ends_with_the_route(
    known: Mesh, to: str | Endpoint, expected: tuple[str, ...]
) -> None:
    where = Endpoint.parse(to) if isinstance(to, str) else to
    trace = Trace()
    route = resolve(known, SOURCE, where, chooser=RandomChooser(random.Random(1)), trace=trace)
    assert brief(route) == expected
    assert [step.subject for step in trace.steps if step.subject in {"route", "identity"}]


RANGE = replace(service("default/range.test"), cidr_vips=(NetworkCidr("", "127.0.0.0", 29),))
IN_RANGE = behind(workload("default/behind", "10.0.0.1"), RANGE)


@pytest.mark.parametrize(
    ("to", "compat", "expected"),
    [
        ("127.0.0.2:80", Compat.ZPROXY, ("HBONE", "127.0.0.2:80", "127.0.0.2:15008")),
        ("127.0.0.2:80", Compat.ZTUNNEL, ("HBONE", "10.0.0.1:8080", "10.0.0.1:15008")),
        ("127.0.0.7:80", Compat.ZPROXY, ("HBONE", "10.0.0.1:8080", "10.0.0.1:15008")),
        ("127.0.0.7:80", Compat.ZTUNNEL, ("HBONE", "10.0.0.1:8080", "10.0.0.1:15008")),
    ],
    ids=[
        "a pod in the range",
        "a pod in the range, ztunnel's order",
        "nobody's",
        "nobody's, ztunnel's order",
    ],
)
def test_a_range_does_not_take_over_what_pods_say_to_each_other(
    to: str, compat: Compat, expected: tuple[str, ...]
) -> None:
    known = mesh(SOURCE, LOCAL, RANGE, IN_RANGE)
    assert brief(routed(known, to, Settings(compat=compat))) == expected


@pytest.mark.parametrize("compat", list(Compat))
def test_an_address_of_a_service_is_its_own_even_where_a_pod_has_it(compat: Compat) -> None:
    of = service("default/same.test", "127.0.0.2")
    known = mesh(SOURCE, LOCAL, of, behind(workload("default/behind", "10.0.0.1"), of))
    expected = ("HBONE", "10.0.0.1:8080", "10.0.0.1:15008")
    assert brief(routed(known, "127.0.0.2:80", Settings(compat=compat))) == expected


def test_the_waypoint_of_a_pod_is_traversed_where_a_range_covers_the_pod() -> None:
    known = mesh(SOURCE, WAYPOINT, replace(LOCAL, waypoint=BY_ADDRESS), RANGE, IN_RANGE)
    assert brief(routed(known, "127.0.0.2:80")) == ("HBONE", "127.0.0.2:80", "127.0.0.11:15008")
