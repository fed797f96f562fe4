"""Who of several equal endpoints takes a connection: shares, least request, ejection, affinity."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.mesh import mesh, service, workload
from zproxy.model.service import (
    GatewayAddress,
    LoadBalancer,
    NetworkAddress,
    Service,
    SessionAffinity,
    WeightedWaypoint,
)
from zproxy.model.settings import Balancing, Settings
from zproxy.proxy.balancer import (
    EJECTION_S,
    FAILURES,
    LONGEST_EJECTION_S,
    TROUBLED,
    WHOLE,
    Balancer,
    Known,
    Standing,
)
from zproxy.state.choose import Candidate
from zproxy.state.crowd import Crowd

WEB = service("demo/web.test", "10.96.0.1")
STICKY = replace(WEB, load_balancer=LoadBalancer(session_affinity=SessionAffinity.CLIENT_IP))
DRAWN = 4000


def endpoints(*weights: int) -> tuple[Candidate, ...]:
    """Endpoints w0, w1 ... of these weights; their uids are their names."""
    return tuple(
        Candidate(workload(f"demo/w{n}", f"10.0.0.{n}", uid=f"w{n}", capacity=weight), 80, 0, f"10.0.0.{n}")
        for n, weight in enumerate(weights)
    )


def balancer(**chosen: Any) -> Balancer:
    return Balancer(Settings()._replace(**chosen), rng=random.Random(7))


def draw(
    by: Balancer, among: tuple[Candidate, ...], of: Service = WEB, ip: str = "10.1.1.1", now: float = 0
) -> str:
    return by.choice(ip, now).endpoint(of, among).workload.uid


def shares(by: Balancer, among: tuple[Candidate, ...], now: float = 0) -> dict[str, float]:
    """Draw often, without keeping any connection open."""
    counted = Counter(draw(by, among, now=now) for _ in range(DRAWN))
    return {each.workload.uid: counted[each.workload.uid] / DRAWN for each in among}


def fail(by: Balancer, uid: str, times: int, now: float = 0) -> float:
    """Let connects fail one after another; return when the last one did."""
    for _ in range(times):
        now += 0.1
        by.failed(uid, now)
    return now


def test_idle_endpoints_share_by_weight() -> None:
    for balancing in Balancing:
        found = shares(balancer(balancing=balancing), endpoints(1, 3, 0))
        assert 0.22 < found["w0"] < 0.28
        assert found["w2"] == 0


def test_where_all_weigh_nothing_all_are_equal() -> None:
    found = shares(balancer(), endpoints(0, 0))
    assert 0.46 < found["w0"] < 0.54


def test_open_connections_spread_more_evenly_than_at_random() -> None:
    spreads = {}
    for balancing in Balancing:
        by, among = balancer(balancing=balancing), endpoints(*[1] * 10)
        for _ in range(1000):
            by.took(draw(by, among))
        opened = [by.standing(each.workload.uid, 0).open for each in among]
        assert sum(opened) == 1000
        spreads[balancing] = max(opened) - min(opened)
    assert spreads[Balancing.LEAST_REQUEST] <= 6
    assert spreads[Balancing.RANDOM] > 10


def test_a_heavier_endpoint_holds_more_open_connections_in_proportion() -> None:
    by, among = balancer(), endpoints(1, 4)
    for _ in range(1000):
        by.took(draw(by, among))
    assert 180 <= by.standing("w0", 0).open <= 220


def test_a_connection_that_ended_counts_no_more() -> None:
    by = balancer()
    by.took("w0")
    by.took("w0")
    by.released("w0")
    assert by.standing("w0", 0) == Standing(1, 0, 0.0)
    by.released("w0")
    by.released("w0")
    assert by.standing("w0", 0).open == 0


def test_failures_in_a_row_eject_an_endpoint_for_a_while() -> None:
    by, among = balancer(), endpoints(1, 1, 1)
    now = fail(by, "w1", FAILURES - 1)
    assert shares(by, among, now)["w1"] > 0
    now = fail(by, "w1", 1, now)
    assert shares(by, among, now)["w1"] == 0
    assert by.standing("w1", now) == Standing(0, FAILURES, EJECTION_S)
    assert by.counts.ejections == 1
    assert shares(by, among, now + EJECTION_S - 0.01)["w1"] == 0
    assert shares(by, among, now + EJECTION_S)["w1"] > 0


def test_after_its_time_one_more_failure_ejects_it_for_longer() -> None:
    by, among, now = balancer(), endpoints(1, 1), 0.0
    now = fail(by, "w1", FAILURES)
    for times in range(2, 40):
        now = fail(by, "w1", 1, now + LONGEST_EJECTION_S)
        assert by.standing("w1", now).ejected_s == min(EJECTION_S * times, LONGEST_EJECTION_S)
    assert shares(by, among, now)["w1"] == 0


def test_a_success_heals_at_once() -> None:
    by, among = balancer(), endpoints(1, 1)
    now = fail(by, "w1", FAILURES)
    assert shares(by, among, now)["w1"] == 0
    by.succeeded("w1", 80)
    assert shares(by, among, now)["w1"] > 0.4
    assert by.standing("w1", now) == Standing(0, 0, 0.0)


def test_a_port_that_is_not_open_says_nothing_about_the_others() -> None:
    by, among = balancer(), endpoints(1, 1)
    others = tuple(each._replace(target_port=81) for each in among)
    for now in (1.0, 2.0, 3.0):
        by.failed("w1", now, 80)
    assert shares(by, among, 3.0)["w1"] == 0
    assert shares(by, others, 3.0)["w1"] > 0
    assert by.standing("w1", 3.0, 80).ejected_s == EJECTION_S
    by.succeeded("w1", 81)
    assert shares(by, among, 3.0)["w1"] == 0
    by.succeeded("w1", 80)
    assert shares(by, among, 3.0)["w1"] > 0


def test_connections_that_waited_for_one_tunnel_fail_once() -> None:
    by = balancer()
    for _ in range(100):
        by.failed("w1", 5.0)
    assert by.standing("w1", 5.0) == Standing(0, 1, 0.0)


def test_ejection_can_be_switched_off() -> None:
    by = balancer(outlier_ejection=False)
    now = fail(by, "w1", 10)
    assert by.standing("w1", now) == Standing(0, 0, 0.0)


@given(st.integers(1, 9), st.sets(st.integers(0, 8)), st.integers())
def test_at_most_half_are_left_out_and_never_all(count: int, sick: set[int], seed: int) -> None:
    by, among = Balancer(rng=random.Random(seed)), endpoints(*[1] * count)
    now = 0.0
    for number in sick:
        now = fail(by, f"w{number}", FAILURES, now)
    served = {draw(by, among, now=now) for _ in range(count * 40)}
    out = {each.workload.uid for each in among} - served
    ejected = {f"w{number}" for number in sick if number < count}
    assert len(out) <= count // 2
    assert out <= ejected
    if len(ejected) <= count // 2:
        assert out == ejected


def test_of_too_many_ejected_ones_those_that_come_back_first_are_taken_back() -> None:
    by, among = balancer(), endpoints(1, 1, 1)
    now = fail(by, "w0", FAILURES)
    now = fail(by, "w1", FAILURES, now)
    found = shares(by, among, now)
    assert (found["w0"] > 0, found["w1"]) == (True, 0)


def test_the_table_of_failures_is_bounded() -> None:
    by = balancer()
    for number in range(TROUBLED + 10):
        by.failed(f"u{number}", float(number))
    assert by.standing("u0", 0).failures == 0
    assert by.standing(f"u{TROUBLED + 9}", 0).failures == 1


def test_workloads_that_left_the_mesh_are_forgotten() -> None:
    by, among = balancer(), endpoints(1, 1)
    now = fail(by, "w0", FAILURES)
    now = fail(by, "w1", FAILURES, now)
    by.on_mesh(mesh(among[0].workload))
    assert by.standing("w0", now).failures == FAILURES
    assert by.standing("w1", now).failures == 0


def test_what_was_tried_in_vain_is_left_out_while_there_is_anything_else() -> None:
    by, among = balancer(), endpoints(1, 1, 1)
    found = {by.choice("10.1.1.1", 0, ("w0", "w2")).endpoint(WEB, among).workload.uid for _ in range(50)}
    assert found == {"w1"}
    assert by.choice("10.1.1.1", 0, ("w0", "w1", "w2")).endpoint(WEB, among) in among


def test_a_client_keeps_its_endpoint_and_clients_share_by_weight() -> None:
    by, among = balancer(), endpoints(1, 3)
    homes = Counter[str]()
    for number in range(2000):
        ip = f"10.1.{number // 250}.{number % 250}"
        home = draw(by, among, STICKY, ip)
        by.took(home)
        assert draw(by, among, STICKY, ip) == home
        homes[home] += 1
    assert 0.21 < homes["w0"] / 2000 < 0.29


@settings(max_examples=50)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=12), st.data())
def test_only_clients_of_what_goes_are_moved(weights: list[int], data: st.DataObject) -> None:
    among = endpoints(*weights)
    gone = data.draw(st.sampled_from(among))
    left = tuple(each for each in among if each is not gone)
    for ip in (f"10.1.1.{number}" for number in range(20)):
        home = draw(balancer(), among, STICKY, ip)
        if home != gone.workload.uid:
            assert draw(balancer(), left, STICKY, ip) == home
        assert draw(balancer(), (*left, gone), STICKY, ip) == home


def test_an_ejected_home_is_left_and_returned_to() -> None:
    by, among = balancer(), endpoints(1, 1, 1)
    home = draw(by, among, STICKY)
    now = fail(by, home, FAILURES)
    assert draw(by, among, STICKY, now=now) != home
    assert draw(by, among, STICKY, now=now + EJECTION_S) == home


def test_waypoints_are_drawn_by_weight() -> None:
    waypoints = [
        WeightedWaypoint(GatewayAddress(NetworkAddress("", f"10.0.0.{weight}")), weight) for weight in (1, 3)
    ]
    choice = balancer().choice("10.1.1.1", 0)
    counted = Counter(choice.waypoint(WEB, waypoints).weight for _ in range(DRAWN))
    assert 0.22 < counted[1] / DRAWN < 0.28


def test_what_is_known_are_connections_and_failures_each_by_itself() -> None:
    by = balancer()
    assert by.known(0) == []
    by.took("w0")
    by.took("w1")
    by.failed("w1", 1.0, 80)
    assert by.known(1.0) == [
        Known("w0", WHOLE, Standing(1, 0, 0.0)),
        Known("w1", WHOLE, Standing(1, 0, 0.0)),
        Known("w1", 80, Standing(1, 1, 0.0)),
    ]
    by.released("w0")
    by.succeeded("w1", 80)
    assert [each.uid for each in by.known(2.0)] == ["w1"]


class Watched:
    """A crowd of `count` endpoints, w0, w1 ..., and how often somebody asked for all of them."""

    def __init__(self, count: int) -> None:
        self.among = endpoints(*[1] * count)
        self.lists = 0
        by_uid = {each.workload.uid: each for each in self.among}
        self.crowd = Crowd([each.workload for each in self.among], lambda of: by_uid[of.uid], self._all)

    def _all(self) -> tuple[Candidate, ...]:
        self.lists += 1
        return self.among


def picked(by: Balancer, of: Watched, now: float = 0.0, failed: tuple[str, ...] = ()) -> str:
    return by.choice("10.1.1.1", now, failed).endpoint(WEB, of.crowd).workload.uid


def test_of_a_crowd_each_is_picked_as_often() -> None:
    for each in Balancing:
        by, watched = balancer(balancing=each), Watched(10)
        counted = Counter(picked(by, watched) for _ in range(DRAWN))
        assert all(0.08 < counted[f"w{number}"] / DRAWN < 0.12 for number in range(10))
        assert watched.lists == 0


def test_connections_spread_over_a_crowd_as_they_do_over_a_list() -> None:
    by, watched = balancer(), Watched(10)
    for _ in range(1000):
        by.took(picked(by, watched))
    opened = [by.standing(each.workload.uid, 0).open for each in watched.among]
    assert max(opened) - min(opened) <= 6
    assert watched.lists == 0


def test_of_a_crowd_nobody_ejected_or_tried_in_vain_is_picked() -> None:
    by, watched = balancer(), Watched(10)
    now = fail(by, "w1", FAILURES)
    found = {picked(by, watched, now, ("w2",)) for _ in range(400)}
    assert found == {f"w{number}" for number in range(10)} - {"w1", "w2"}
    assert watched.lists == 0
    assert "w1" in {picked(by, watched, now + EJECTION_S) for _ in range(400)}


def test_of_a_crowd_too_at_most_half_are_left_out() -> None:
    by, watched, now = balancer(), Watched(10), 0.0
    for number in range(8):
        now = fail(by, f"w{number}", FAILURES, now)
    assert {picked(by, watched, now) for _ in range(400)} == {f"w{number}" for number in (0, 1, 2, 8, 9)}


def test_where_all_of_a_crowd_were_tried_in_vain_one_of_them_comes_again() -> None:
    by, watched = balancer(), Watched(3)
    assert picked(by, watched, failed=("w0", "w1", "w2")) in {"w0", "w1", "w2"}


def test_a_crowd_with_somebody_out_of_reach_is_looked_at_as_a_whole_when_he_is_met() -> None:
    watched = Watched(4)
    reached = {each.workload.uid: each for each in watched.among[1:]}
    crowd = Crowd(
        [each.workload for each in watched.among],
        lambda of: reached.get(of.uid),
        lambda: tuple(reached.values()),
    )
    by = balancer()
    counted = Counter(by.choice("10.1.1.1", 0).endpoint(WEB, crowd).workload.uid for _ in range(DRAWN))
    assert all(0.30 < counted[f"w{number}"] / DRAWN < 0.37 for number in (1, 2, 3))
    assert counted["w0"] == 0
