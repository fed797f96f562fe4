"""Every way is one that the data plane would take, and comes to what it would come to there."""

import random
from functools import partial

import pytest

from tests.oracle.meshes import World, destination, world
from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.addr import Endpoint
from zproxy.model.policy import Action, Authorization, Match, PolicyScope, StringKind, StringMatch
from zproxy.model.route import Passthrough, Refuse, Role, Route
from zproxy.model.service import BalancerMode, GatewayAddress, LoadBalancer, NetworkAddress
from zproxy.model.settings import DEFAULT_SETTINGS, OutboundPolicy, Settings
from zproxy.model.workload import Protocol, Workload
from zproxy.node.why_ways import LISTED, Ground, Outcome, telling, ways
from zproxy.state.choose import RandomChooser
from zproxy.state.inbound import Reject, admit
from zproxy.state.policy import Attempt, authorize, judge
from zproxy.state.resolve import resolve
from zproxy.state.store import Mesh

CLIENT = workload("demo/client", "10.0.0.1", "fd00::1")
SERVER = workload("demo/server", "10.0.0.2")
TO = Endpoint("10.0.0.2", 8080)
CASES = 3000


def ground(known: Mesh, settings: Settings = DEFAULT_SETTINGS, *enrolled: str) -> Ground:
    return Ground(known, settings, partial(authorize, settings.compat), enrolled)


def only(known: Mesh, to: Endpoint = TO, settings: Settings = DEFAULT_SETTINGS, *enrolled: str) -> Outcome:
    (way,) = ways(ground(known, settings, *enrolled), CLIENT, to)
    return way.outcome


def is_allowed(of: World, route: Route) -> bool:
    """What the data plane of both nodes would come to, asked without a trace."""
    if isinstance(route, Refuse):
        return False
    if isinstance(route, Passthrough) or not route.identities or not route.address.ip:
        return True
    if route.role is Role.GATEWAY:
        return True
    local: Workload = route.workload
    admitted = admit(of.mesh, local, route.address, route.authority, of.settings)
    if isinstance(admitted, Reject):
        return False
    ips = [ip for ip in of.source.workload_ips if (":" in ip) == route.address.is_v6]
    attempt = Attempt(local, of.source.identity, (ips or of.source.workload_ips)[0], admitted.target)
    return judge(of.mesh, attempt, partial(authorize, of.settings.compat)).is_allowed


def test_it_agrees_with_the_data_plane_on_random_meshes() -> None:
    allowed = refused = several = 0
    for seed in range(CASES):
        rng = random.Random(seed)
        of = world(rng)
        if not of.source.workload_ips:
            continue
        to = destination(rng, of.mesh)
        found = {
            way.route: way.outcome.is_allowed for way in ways(ground(of.mesh, of.settings), of.source, to)
        }
        several += len(found) > 1
        for draw in range(4):
            route = resolve(of.mesh, of.source, to, of.settings, RandomChooser(random.Random(draw)))
            assert found[route] is is_allowed(of, route), f"seed {seed}: {to}, {route}"
            allowed, refused = allowed + found[route], refused + (not found[route])
    assert min(allowed, refused, several) > 50


def test_a_pod_is_reached_by_hbone_where_no_policy_is_against_it() -> None:
    outcome = only(mesh(CLIENT, SERVER))
    assert outcome == Outcome(
        True, "by HBONE to demo/server at 10.0.0.2:15008, where no policy is against it"
    )


def test_a_policy_of_the_far_side_is_named() -> None:
    deny = Authorization("deny", "demo", action=Action.DENY, rules=((),))
    assert only(mesh(CLIENT, SERVER, deny)) == Outcome(
        False, "demo/server answers 401: explicitly denied by: demo/deny"
    )
    mine = StringMatch(StringKind.EXACT, "cluster.local/ns/demo/sa/client")
    allow = Authorization("allow", "demo", rules=((((Match(principals=(mine,))),),),))
    assert only(mesh(CLIENT, SERVER, allow)).why.endswith("where policy demo/allow allows it")


def test_what_is_no_part_of_the_mesh_goes_past_it_or_nowhere() -> None:
    elsewhere = Endpoint("192.0.2.1", 443)
    assert only(mesh(CLIENT), elsewhere).why == "it goes to 192.0.2.1:443 in the clear, past the mesh"
    kept = service("demo/kept.test", "10.96.0.7", load_balancer=LoadBalancer(mode=BalancerMode.PASSTHROUGH))
    to = Endpoint("10.96.0.7", 80)
    assert only(mesh(CLIENT, kept), to).why.endswith(
        "past the mesh, as demo/kept.test has the mode Passthrough"
    )
    strict = Settings(OutboundPolicy.REGISTRY_ONLY)
    refused = only(mesh(CLIENT), elsewhere, strict)
    assert not refused.is_allowed
    assert refused.why.startswith("its own node refuses it: 192.0.2.1:443 is no part of the mesh")


def test_plain_tcp_meets_policy_only_where_a_pod_is_enrolled_all_the_same() -> None:
    plain = workload("demo/server", "10.0.0.2", protocol=Protocol.TCP)
    strict = Authorization(
        "strict", "demo", PolicyScope.GLOBAL, Action.DENY, ((((Match(destination_ports=(8080,))),),),)
    )
    known = mesh(CLIENT, plain, strict)
    assert only(known).why == "in the clear to demo/server at 10.0.0.2:8080, which has no proxy"
    assert only(known, TO, DEFAULT_SETTINGS, "demo/server") == Outcome(
        False, "explicitly denied by: demo/strict"
    )


def test_a_waypoint_and_a_gateway_decide_about_the_rest() -> None:
    waypoint = workload("demo/waypoint", "10.0.0.9")
    guided = workload("demo/server", "10.0.0.2", waypoint=GatewayAddress(NetworkAddress("", "10.0.0.9")))
    assert "demo/waypoint at 10.0.0.9:15008, a waypoint" in only(mesh(CLIENT, guided, waypoint)).why
    far = service("demo/far.test", "10.96.0.1", subject_alt_names=("spiffe://cluster.local/ns/demo/sa/far",))
    gate = GatewayAddress(NetworkAddress("", "10.0.0.9"), 15009)
    there = behind(workload("demo/far", "10.0.0.2", network="net2", network_gateway=gate), far)
    outcome = only(mesh(CLIENT, far, there, waypoint), Endpoint("10.96.0.1", 80))
    assert (
        outcome.why
        == "by HBONE to demo/waypoint at 10.0.0.9:15009, a gateway, behind which another network decides"
    )


def test_each_endpoint_is_a_way_and_a_refused_one_is_told() -> None:
    web = service("demo/web.test", "10.96.0.1")
    pods = [behind(workload(f"demo/pod{n}", f"10.0.0.{n}"), web) for n in (2, 3, 4)]
    lazy = behind(workload("demo/lazy", "10.0.0.5", capacity=0), web)
    guarded = behind(workload("demo/shut", "10.0.0.6", authorization_policies=("demo/deny",)), web)
    deny = Authorization("deny", "demo", PolicyScope.WORKLOAD_SELECTOR, Action.DENY, ((),))
    found = ways(ground(mesh(CLIENT, web, *pods, lazy, guarded, deny)), CLIENT, Endpoint("10.96.0.1", 80))
    assert [way.outcome.is_allowed for way in found] == [True, True, True, False]
    assert telling(found) is found[3]
    assert telling(found[:2]) is found[0]
    assert found[0].sending.steps
    assert found[3].receiving.steps[-1].outcome == "denied"


def test_the_number_of_ways_is_bounded() -> None:
    web = service("demo/web.test", "10.96.0.1")
    pods = [behind(workload(f"demo/pod{n}", f"10.1.{n // 250}.{n % 250 + 1}"), web) for n in range(500)]
    assert len(ways(ground(mesh(CLIENT, web, *pods)), CLIENT, Endpoint("10.96.0.1", 80))) == LISTED + 1


@pytest.mark.parametrize("hostname", ["far.example.com"])
def test_an_address_that_dns_has_to_find_is_not_known(hostname: str) -> None:
    web = service("demo/web.test", "10.96.0.1")
    named = behind(workload("demo/named", hostname=hostname), web)
    assert only(mesh(CLIENT, web, named), Endpoint("10.96.0.1", 80)).why == (
        "by HBONE to demo/named at far.example.com, whose address DNS has to find"
    )
