"""Which tunnel carries a connection."""

from typing import Any

import pytest

from tests.support.ca import CLIENT, SERVER
from zproxy.errors import ConnectFailed, ZproxyError
from zproxy.hbone.client import TunnelWatcher
from zproxy.hbone.pool import Pool, Verdict, plan
from zproxy.hbone.tunnel import State
from zproxy.model.addr import Endpoint
from zproxy.model.conn import PoolKey
from zproxy.model.identity import SpiffeId

KEY = PoolKey(SpiffeId.parse(CLIENT), SpiffeId.parse(SERVER), "10.0.0.1", Endpoint("10.0.0.2", 15008))


class FakeTunnel:
    """A tunnel that opens and closes when the test says so."""

    def __init__(self, key: PoolKey, watcher: TunnelWatcher, room: int) -> None:
        self.key = key
        self.remote = key.dst
        self.state = State.CONNECTING
        self.room = room
        self._watcher: Any = watcher

    def open(self) -> None:
        self.state = State.OPEN
        self._watcher.on_open(self)

    def close(self, error: ZproxyError | None = None) -> None:
        self.state = State.CLOSED
        self._watcher.on_closed(self, error)

    def drain(self) -> None:
        self.close()


class Waiter:
    """Takes one place of the tunnel that it gets."""

    def __init__(self) -> None:
        self.tunnel: FakeTunnel | None = None
        self.error = ""

    def on_tunnel(self, tunnel: Any) -> None:
        assert self.tunnel is None
        self.tunnel = tunnel
        tunnel.room -= 1

    def on_no_tunnel(self, error: ZproxyError) -> None:
        self.error = str(error)


class Bench:
    """A pool whose dials are counted."""

    def __init__(self, room: int = 100, max_waiting: int = 1000) -> None:
        self.dialled: list[FakeTunnel] = []
        self.room = room
        self.fails = False
        self.pool = Pool(self._dial, max_waiting)

    def _dial(self, key: PoolKey, watcher: TunnelWatcher) -> Any:
        if self.fails:
            raise ConnectFailed("no route")
        self.dialled.append(FakeTunnel(key, watcher, self.room))
        return self.dialled[-1]

    def want(self, count: int, key: PoolKey = KEY) -> list[Waiter]:
        waiters = [Waiter() for _ in range(count)]
        for waiter in waiters:
            self.pool.want(key, waiter)
        return waiters


def test_a_hundred_waiters_are_one_dial() -> None:
    bench = Bench()
    waiters = bench.want(100)
    assert len(bench.dialled) == 1
    bench.dialled[0].open()
    assert {waiter.tunnel for waiter in waiters} == {bench.dialled[0]}


def test_an_open_tunnel_is_used_at_once() -> None:
    bench = Bench()
    bench.want(1)
    bench.dialled[0].open()
    assert bench.want(1)[0].tunnel is bench.dialled[0]
    assert len(bench.dialled) == 1


@pytest.mark.parametrize("other", [
    KEY._replace(src_identity=SpiffeId.parse(SERVER)),
    KEY._replace(dst_identity=SpiffeId.parse(CLIENT)),
    KEY._replace(src_ip="10.0.0.9"),
    KEY._replace(dst=Endpoint("10.0.0.3", 15008)),
])  # fmt: skip
def test_keys_that_differ_in_anything_never_share(other: PoolKey) -> None:
    bench = Bench()
    bench.want(1)
    bench.want(1, other)
    assert [tunnel.key for tunnel in bench.dialled] == [KEY, other]


def test_a_full_tunnel_gets_a_sibling_and_comes_back() -> None:
    bench = Bench(room=2)
    waiters = bench.want(5)
    bench.dialled[0].open()
    assert [waiter.tunnel is not None for waiter in waiters] == [True, True, False, False, False]
    assert len(bench.dialled) == 2, "one more dial, not three"
    bench.dialled[1].open()
    assert len(bench.dialled) == 3
    bench.dialled[0].room += 1
    bench.pool.has_room(KEY)
    assert waiters[4].tunnel is bench.dialled[0]


def test_a_failed_dial_reaches_every_waiter_and_the_next_one_dials_again() -> None:
    bench = Bench()
    waiters = bench.want(3)
    bench.dialled[0].close(ConnectFailed("connect to 10.0.0.2:15008 failed"))
    assert {waiter.error for waiter in waiters} == {"connect to 10.0.0.2:15008 failed"}
    bench.want(1)
    assert len(bench.dialled) == 2


def test_a_dial_that_fails_at_once_is_an_answer_too() -> None:
    bench = Bench()
    bench.fails = True
    assert bench.want(1)[0].error == "no route"
    assert list(bench.pool.tunnels()) == []


def test_a_draining_tunnel_takes_nothing_new() -> None:
    bench = Bench()
    bench.want(1)
    bench.dialled[0].open()
    bench.dialled[0].room = 0  # as after GOAWAY
    bench.want(1)
    assert len(bench.dialled) == 2


def test_who_gave_up_gets_nothing() -> None:
    bench = Bench()
    first, second = bench.want(2)
    bench.pool.give_up(KEY, first)
    bench.pool.give_up(KEY, first)
    bench.dialled[0].open()
    assert first.tunnel is None
    assert second.tunnel is bench.dialled[0]


def test_waiting_is_bounded() -> None:
    bench = Bench(max_waiting=2)
    waiters = bench.want(3)
    assert "already wait" in waiters[2].error
    bench.dialled[0].open()
    assert bench.want(1)[0].tunnel is bench.dialled[0]


def test_closing_refuses_waiters_and_forgets_tunnels() -> None:
    bench = Bench()
    waiters = bench.want(2)
    bench.pool.close()
    assert all("closed" in waiter.error for waiter in waiters)
    assert list(bench.pool.tunnels()) == []


def test_the_plan_has_three_cases() -> None:
    watcher: Any = TunnelWatcher(lambda tunnel: None, lambda tunnel, error: None)
    full, young, free = (FakeTunnel(KEY, watcher, room) for room in (0, 100, 100))
    full.state = free.state = State.OPEN
    assert plan([]) is Verdict.DIAL
    assert plan([full]) is Verdict.DIAL
    assert plan([full, young]) is Verdict.WAIT
    assert plan([full, young, free]) == 2


def test_a_failed_dial_reaches_the_waiters_although_a_full_tunnel_lives() -> None:
    bench = Bench(room=1)
    bench.want(1)
    bench.dialled[0].open()
    waiters = bench.want(2)
    bench.dialled[1].close(ConnectFailed("connect to 10.0.0.2:15008 failed"))
    assert {waiter.error for waiter in waiters} == {"connect to 10.0.0.2:15008 failed"}
    assert list[Any](bench.pool.tunnels()) == bench.dialled[:1]


def test_an_open_tunnel_that_closes_leaves_the_waiters_to_the_dial_under_way() -> None:
    bench = Bench(room=1)
    bench.want(1)
    bench.dialled[0].open()
    (waiter,) = bench.want(1)
    bench.dialled[0].close()
    assert waiter.error == ""
    bench.dialled[1].open()
    assert waiter.tunnel is bench.dialled[1]


def test_who_comes_first_is_served_first() -> None:
    bench = Bench(room=1)
    waiters = bench.want(3)
    for number, waiter in enumerate(waiters):
        bench.dialled[number].open()
        assert waiter.tunnel is bench.dialled[number]


def test_draining_reaches_every_tunnel() -> None:
    bench = Bench(room=1)
    bench.want(1)
    bench.want(1, KEY._replace(src_ip="10.0.0.9"))
    for tunnel in bench.dialled:
        tunnel.open()
    bench.pool.drain()
    assert [tunnel.state for tunnel in bench.dialled] == [State.CLOSED] * 2
    assert list(bench.pool.tunnels()) == []


def test_giving_up_costs_the_same_however_many_wait() -> None:
    compared = 0

    class Counting(Waiter):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        __hash__ = object.__hash__

    bench = Bench()
    waiters = [Counting() for _ in range(500)]
    for waiter in waiters:
        bench.pool.want(KEY, waiter)
    for waiter in reversed(waiters[1:]):
        bench.pool.give_up(KEY, waiter)
    assert compared < 10
    bench.dialled[0].open()
    assert [waiter.tunnel is not None for waiter in waiters] == [True] + [False] * 499
