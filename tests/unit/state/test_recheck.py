"""Whether a connection may go on in another mesh: a table of what changed, and what must end."""

import random
from dataclasses import replace

import pytest

from tests.oracle.meshes import World, destination, world
from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.addr import Endpoint
from zproxy.model.policy import Authorization
from zproxy.model.route import Passthrough, Refuse, Role, Upstream
from zproxy.model.service import (
    GatewayAddress,
    NamespacedHostname,
    NetworkAddress,
    NetworkCidr,
    Service,
    WeightedWaypoint,
)
from zproxy.model.settings import DEFAULT_SETTINGS, OutboundPolicy, Settings
from zproxy.model.workload import Protocol, Status, Workload
from zproxy.state.balance import CROWD
from zproxy.state.choose import RandomChooser
from zproxy.state.crowd import Crowd
from zproxy.state.recheck import has_left, objection
from zproxy.state.resolve import resolve
from zproxy.state.store import Change, Mesh

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
LEFT = replace(SHARED, weighted_waypoints=SHARED.weighted_waypoints[:1])
GATE = service("demo/gate.test", "10.96.0.9", ports={15008: 15008})
ONE = behind(workload("demo/one", "10.0.0.5"), GATE)
TWO = behind(workload("demo/two", "10.0.0.6"), GATE)
BY_NAME = replace(WEB, waypoint=GatewayAddress(NamespacedHostname("demo", "gate.test")))
SICK_ONE = replace(ONE, status=Status.UNHEALTHY)
GUIDED_POD = replace(POD, waypoint=BY_NAME.waypoint)
AROUND = replace(service("demo/around.test"), cidr_vips=(NetworkCidr("", "10.0.0.0", 8),))
EDGE = workload("demo/edge", "10.0.0.7")
BY_EDGE = GatewayAddress(NetworkAddress("", "10.0.0.7"), 15009)
FAR = workload("demo/far", "10.0.0.8", network="far", network_gateway=BY_EDGE)
NAMED = replace(WEB, subject_alt_names=("spiffe://cluster.local/ns/demo/sa/web",))
FAR_POD = behind(workload("demo/far-pod", "10.0.0.9", network="far", network_gateway=BY_EDGE), NAMED)
DISTANT = replace(NAMED, waypoint=GatewayAddress(NetworkAddress("far", "10.0.0.8")))


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
        ((BY_NAME, GATE, ONE, TWO), TO_WEB, (BY_NAME, GATE, replace(ONE, status=Status.UNHEALTHY), TWO), ""),
        ((BY_NAME, GATE, ONE), TO_WEB, (BY_NAME, GATE, replace(ONE, status=Status.UNHEALTHY)), ""),
        ((BY_NAME, GATE, ONE), TO_WEB, (BY_NAME, GATE, replace(ONE, services=()), TWO), "demo/two now"),
        ((AROUND, GUIDED_POD, GATE, ONE), TO_POD, (AROUND, GUIDED_POD, GATE, SICK_ONE, TWO), ""),
        ((SHARED, WAYPOINT, SECOND), TO_WEB, (LEFT, WAYPOINT, SECOND), "the waypoint demo/second now"),
        ((WEB, POD), TO_WEB, (DISTANT, POD, FAR, EDGE), "a waypoint behind the gateway demo/edge now"),
        ((GUIDED, WAYPOINT), TO_WEB, (DISTANT, WAYPOINT, FAR, EDGE), "behind the gateway demo/edge now"),
        ((NAMED, FAR_POD, EDGE), TO_WEB, (DISTANT, FAR_POD, FAR, EDGE), ""),
        ((), OUTSIDE, (POD,), ""),
        ((), TO_POD, (POD,), "10.0.0.1:80 is reached by HBONE at demo/pod now, and this is in the clear"),
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


@pytest.mark.parametrize("status", list(Status))
def test_a_connection_to_one_of_very_many_goes_on_without_a_look_at_the_others(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = [behind(workload(f"demo/w{n}", f"10.1.{n >> 8}.{n & 255}"), WEB) for n in range(CROWD)]
    route = resolve(mesh(SOURCE, WEB, *crowd), SOURCE, TO_WEB)
    assert isinstance(route, Upstream)
    now = [replace(each, status=status) if each.uid == route.workload.uid else each for each in crowd]
    monkeypatch.setattr(Crowd, "all", None)
    assert objection(mesh(SOURCE, WEB, *now), SOURCE, TO_WEB, route, DEFAULT_SETTINGS) == ""
    guided = mesh(SOURCE, GUIDED, WAYPOINT, *now)
    assert "waypoint demo/waypoint now" in objection(guided, SOURCE, TO_WEB, route, DEFAULT_SETTINGS)


def test_a_destination_that_left_the_registry_is_forbidden_where_only_that_may_be_dialled() -> None:
    route = resolve(mesh(SOURCE), SOURCE, OUTSIDE)
    strict = Settings(OutboundPolicy.REGISTRY_ONLY)
    assert "outbound policy is registry_only" in objection(mesh(SOURCE), SOURCE, OUTSIDE, route, strict)


def test_what_was_refused_is_over_already() -> None:
    refused = resolve(mesh(SOURCE, WEB), SOURCE, TO_WEB)
    assert objection(mesh(SOURCE), SOURCE, TO_WEB, refused, DEFAULT_SETTINGS) == ""


SAN = "spiffe://cluster.local/ns/demo/sa/shared"
OWN = str(POD.identity)
DISTANT_POD = replace(POD, workload_ips=(), hostname="pod.test")
OF_WEB = replace(WEB, subject_alt_names=(SAN,))


@pytest.mark.parametrize(
    ("before", "after", "identities", "expected"),
    [
        ((POD,), (POD,), (OWN,), False),
        ((POD,), (), (OWN,), True),
        ((POD,), (workload("demo/heir", "10.0.0.1", service_account="pod"),), (OWN,), True),
        ((POD,), (replace(POD, service_account="x"),), (OWN,), True),
        ((POD,), (PLAIN,), (OWN,), True),
        ((POD, OF_WEB), (POD, OF_WEB), (SAN,), False),
        ((POD, OF_WEB), (POD, WEB), (SAN,), True),
        ((POD, OF_WEB), (POD, WEB), (OWN,), False),
        ((POD, OF_WEB), (POD, WEB), (OWN, SAN), False),
        ((POD, OF_WEB), (replace(POD, service_account="x"), OF_WEB), (SAN,), False),
        ((), (POD,), (OWN,), True),
        ((POD,), (replace(POD, workload_ips=("10.0.0.8",)),), (OWN,), True),
        ((DISTANT_POD,), (DISTANT_POD,), (OWN,), False),
    ],
    ids=[
        "nothing changed",
        "it left",
        "another pod has the address",
        "it is somebody else now",
        "it has no HBONE any more",
        "a name of its service",
        "a name that its service has no more",
        "its own name, and its service has lost one",
        "one of several may still be proven",
        "somebody else, whom the service's name still covers",
        "nobody was known there",
        "it has another address",
        "its address was found by DNS",
    ],
)
def test_who_is_not_at_the_end_of_a_tunnel_any_more(
    before: tuple[Record, ...], after: tuple[Record, ...], identities: tuple[str, ...], expected: bool
) -> None:
    assert has_left(mesh(*before), mesh(*after), POD.uid, "10.0.0.1", identities) is expected


def routes_of(rng: random.Random, made: World, count: int) -> list[tuple[Endpoint, Upstream | Passthrough]]:
    """Return some destinations and where connections to them go."""
    found = []
    for _ in range(count):
        to = destination(rng, made.mesh)
        route = resolve(made.mesh, made.source, to, made.settings, RandomChooser(rng))
        if not isinstance(route, Refuse):
            found.append((to, route))
    return found


def test_nothing_is_objected_to_while_nothing_changes() -> None:
    rng = random.Random(4)
    seen = set()
    for _ in range(400):
        made = world(rng)
        for to, route in routes_of(rng, made, 5):
            assert objection(made.mesh, made.source, to, route, made.settings) == ""
            seen.add(route.role if isinstance(route, Upstream) else None)
    assert seen == {*Role, None}


def changed(rng: random.Random, made: World) -> Mesh:
    """Return the mesh with one record of a workload changed or gone."""
    known = [each for each in made.mesh.workloads if each.uid != made.source.uid]
    one = rng.choice(known)
    what = rng.randrange(5)
    if what == 0:
        return made.mesh.changed(Change(gone_workloads=(one.uid,)))
    other = (
        replace(one, service_account="another"),
        replace(one, protocol=Protocol.HBONE),
        replace(one, status=Status.UNHEALTHY),
        replace(one, waypoint=GatewayAddress(NetworkAddress("", rng.choice(known).workload_ips[0]))),
    )[what - 1]
    return made.mesh.changed(Change(workloads=(other,)))


def test_what_goes_on_after_a_change_leads_to_who_it_led_to_and_passes_no_waypoint_by() -> None:
    rng = random.Random(6)
    ended = 0
    for _ in range(400):
        made = world(rng)
        if not all(each.workload_ips for each in made.mesh.workloads):
            continue
        now = changed(rng, made)
        for to, route in routes_of(rng, made, 5):
            if objection(now, made.source, to, route, made.settings):
                ended += 1
                continue
            ways = [resolve(now, made.source, to, made.settings, RandomChooser(rng)) for _ in range(20)]
            is_guided = all(isinstance(way, Upstream) and way.role is Role.WAYPOINT for way in ways)
            if isinstance(route, Passthrough):
                assert not is_guided
                continue
            record = now.by_uid(route.workload.uid)
            assert record is not None
            assert str(record.identity) in route.identities or record.protocol is Protocol.TCP
            assert route.role is not Role.DESTINATION or not is_guided
    assert ended > 20
