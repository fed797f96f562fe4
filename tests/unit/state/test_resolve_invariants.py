"""What no mesh may bring about, however it was written: asked of random meshes."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.meshes import World, destination, world
from zproxy.model.addr import Endpoint
from zproxy.model.route import Passthrough, Refuse, Role, Route, Upstream
from zproxy.model.service import BalancerMode
from zproxy.model.settings import WaypointPolicy
from zproxy.model.workload import Protocol
from zproxy.state.choose import RandomChooser
from zproxy.state.lookup import dialled
from zproxy.state.reference import is_meant
from zproxy.state.resolve import resolve

SEEDS = st.integers(0, 2**32 - 1)
DIALS_A_WORLD = 10


def dials(seed: int) -> list[tuple[World, Endpoint, Route]]:
    rng = random.Random(seed)
    made = world(rng)
    found = []
    for _ in range(DIALS_A_WORLD):
        to = destination(rng, made.mesh)
        found.append((made, to, resolve(made.mesh, made.source, to, made.settings, RandomChooser(rng))))
    return found


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_a_tunnel_always_knows_whom_it_expects(seed: int) -> None:
    for _, _, route in dials(seed):
        if isinstance(route, Upstream) and route.authority:
            assert route.identities
            assert bool(route.inner) == (route.role is Role.GATEWAY)


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_a_workload_with_hbone_is_never_dialled_in_plain_text(seed: int) -> None:
    for made, to, route in dials(seed):
        if isinstance(route, Upstream) and not route.authority:
            assert route.workload.protocol is Protocol.TCP
        # A service that keeps the dialled address may hold a pod's, as it may with ztunnel.
        if isinstance(route, Passthrough) and made.mesh.by_ip(to.ip, made.source.network) is not None:
            assert route.service is not None
            assert route.service.load_balancer.mode is BalancerMode.PASSTHROUGH


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_where_waypoints_must_be_traversed_none_is_gone_past(seed: int) -> None:
    for made, to, route in dials(seed):
        if made.settings.waypoint_policy is not WaypointPolicy.MUST_TRAVERSE or isinstance(route, Refuse):
            continue
        source = made.source
        service, workload = dialled(made.mesh, source, to.ip, made.settings.compat)
        if workload is None and service is not None and (service.waypoint or service.weighted_waypoints):
            assert isinstance(route, Upstream)
            assert route.role in (Role.WAYPOINT, Role.GATEWAY)
        if service is None and workload is not None and workload.waypoint is not None:
            assert isinstance(route, Upstream)
            if route.role is not Role.WAYPOINT:
                assert is_meant(made.mesh, workload.waypoint, source, source.namespace)
