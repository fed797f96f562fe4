"""Choice by weight."""

import random
from collections import Counter

from tests.support.mesh import workload
from zproxy.model.service import GatewayAddress, NamespacedHostname, Service, WeightedWaypoint
from zproxy.state.choose import Candidate, RandomChooser

SERVICE = Service("web", "demo", "web.test")


def test_endpoints_are_drawn_by_capacity() -> None:
    chooser = RandomChooser(random.Random(1))
    heavy, light, idle = (
        Candidate(workload(f"demo/w{capacity}", capacity=capacity), 80, 0) for capacity in (3, 1, 0)
    )
    drawn = Counter(chooser.endpoint(SERVICE, (heavy, light, idle)) for _ in range(4000))
    assert 2800 < drawn[heavy] < 3200
    assert drawn[idle] == 0


def test_where_all_weigh_nothing_they_are_equal() -> None:
    chooser = RandomChooser(random.Random(1))
    waypoints = [
        WeightedWaypoint(GatewayAddress(NamespacedHostname("demo", name)), 0) for name in ("a.test", "b.test")
    ]
    drawn = Counter(chooser.waypoint(SERVICE, waypoints) for _ in range(100))
    assert set(drawn) == set(waypoints)


def test_the_only_one_needs_no_draw() -> None:
    only = Candidate(workload("demo/only", capacity=0), 80, 0)
    assert RandomChooser(random.Random(1)).endpoint(SERVICE, [only]) is only
