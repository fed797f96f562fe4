"""Which tunnel carries a connection."""

import socket
from contextlib import closing
from typing import Any

import pytest

from tests.support.ca import CLIENT, SERVER, shared_ca
from tests.support.plane import SERVER_IP, Plane
from tests.support.raw import RawServer
from zproxy.config import Deadlines, Limits
from zproxy.errors import ConnectFailed, TlsFailed, TunnelClosed, ZproxyError
from zproxy.hbone.client import TunnelWatcher
from zproxy.hbone.pool import Pool, Verdict, plan
from zproxy.hbone.tunnel import State
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Flag, PoolKey
from zproxy.model.identity import SpiffeId
from zproxy.net.sockets import close_with_reset
from zproxy.observe.series import TunnelCounts

KEY = PoolKey(SpiffeId.parse(CLIENT), (SERVER,), "10.0.0.1", Endpoint("10.0.0.2", 15008))


class FakeTunnel:
    """A tunnel that opens and closes when the test says so."""

    def __init__(self, key: PoolKey, watcher: TunnelWatcher, room: int) -> None:
        self.key = key
        self.remote = key.dst
        self.state = State.CONNECTING
        self.room = room
        self.is_opening = True
        self._watcher: Any = watcher

    def open(self) -> None:
        """TLS and the server's SETTINGS are here."""
        self.state, self.is_opening = State.OPEN, False
        self._watcher.on_open(self)

    def secure(self, room: int) -> None:
        """TLS is up, the server's SETTINGS are to come."""
        self.state, self.room = State.OPEN, room
        self._watcher.on_open(self)

    def learn(self, room: int) -> None:
        """The server's SETTINGS are here."""
        self.room, self.is_opening = room, False
        self._watcher.on_ready(self)

    def close(self, error: ZproxyError | None = None) -> None:
        self.state, self.is_opening = State.CLOSED, False
        self._watcher.on_closed(self, error)

    def drain(self) -> None:
        self.close()

    def fail(self, error: ZproxyError) -> None:
        self.close(error)


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
        self.counts = TunnelCounts()
        self.pool = Pool(self._dial, max_waiting, self.counts)

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


def test_the_first_goes_at_once_and_the_rest_when_the_server_has_said_how_many_it_takes() -> None:
    bench = Bench()
    waiters = bench.want(5)
    (first,) = bench.dialled
    first.secure(room=1)
    late = bench.want(1)
    assert [waiter.tunnel for waiter in (*waiters, *late)] == [first] + [None] * 5
    assert len(bench.dialled) == 1
    first.learn(room=2)
    assert [waiter.tunnel for waiter in waiters] == [first] * 3 + [None] * 2
    assert len(bench.dialled) == 2, "the rest is worth another"
    bench.dialled[1].open()
    assert {waiter.tunnel for waiter in (*waiters[3:], *late)} == {bench.dialled[1]}


def test_who_waits_for_settings_that_never_come_is_refused_with_the_tunnel() -> None:
    bench = Bench()
    first, second = bench.want(2)
    bench.dialled[0].secure(room=1)
    bench.dialled[0].close(TunnelClosed("no SETTINGS"))
    assert (first.error, second.error) == ("", "no SETTINGS")
    assert len(bench.dialled) == 1


def test_an_open_tunnel_is_used_at_once() -> None:
    bench = Bench()
    bench.want(1)
    bench.dialled[0].open()
    assert bench.want(1)[0].tunnel is bench.dialled[0]
    assert len(bench.dialled) == 1


@pytest.mark.parametrize("other", [
    KEY._replace(src_identity=SpiffeId.parse(SERVER)),
    KEY._replace(dst_identities=(CLIENT,)),
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
    watcher: Any = TunnelWatcher(lambda tunnel: None, lambda tunnel: None, lambda tunnel, error: None)
    full, young, free = (FakeTunnel(KEY, watcher, room) for room in (0, 100, 100))
    full.state = free.state = State.OPEN
    full.is_opening = free.is_opening = False
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


def test_a_hundred_sources_are_a_hundred_tunnels() -> None:
    bench = Bench()
    for number in range(100):
        bench.want(1, KEY._replace(src_ip=f"10.0.1.{number}"))
    assert len({tunnel.key for tunnel in bench.dialled}) == len(bench.dialled) == 100


def test_three_hundred_connections_of_three_sources_are_three_tunnels() -> None:
    bench = Bench()
    waiters = [bench.want(1, KEY._replace(src_ip=f"10.0.1.{number % 3}"))[0] for number in range(300)]
    for tunnel in bench.dialled:
        tunnel.open()
    assert len(bench.dialled) == 3
    assert [sum(waiter.tunnel is tunnel for waiter in waiters) for tunnel in bench.dialled] == [100] * 3


def test_only_stale_tunnels_are_retired() -> None:
    bench = Bench()
    other = KEY._replace(dst=Endpoint("10.0.0.3", 15008))
    bench.want(1)
    bench.want(1, other)
    bench.pool.retire(lambda tunnel: tunnel.key == other, TunnelClosed("gone"))
    assert [tunnel.state for tunnel in bench.dialled] == [State.CONNECTING, State.CLOSED]
    assert list[Any](bench.pool.tunnels()) == bench.dialled[:1]


def test_what_became_of_tunnels_is_counted() -> None:
    bench = Bench()
    for failure in (ConnectFailed("no"), TlsFailed("no"), None):
        bench.want(1)
        bench.dialled[-1].close(failure)
    bench.want(1)
    bench.dialled[-1].open()
    bench.dialled[-1].close()
    bench.fails = True
    bench.want(1)
    assert (bench.counts.opened, bench.counts.closed) == (1, 1)
    assert bench.counts.failed == {Flag.CONNECT: 2, Flag.TLS_FAILURE: 1}


def pairs(plane: Plane, count: int) -> list[socket.socket]:
    """Return both ends of `count` connections of one key, all open together."""
    app = plane.serve()
    ends = []
    for _ in range(count):
        ends += [plane.dial(), plane.accept(app)]
    return ends


def shut(plane: Plane, ends: list[socket.socket]) -> None:
    """Close connections and wait until both records have ended."""
    before = plane.connections.totals.closed
    for sock in ends:
        sock.close()
    plane.wait(lambda: plane.connections.totals.closed == before + len(ends))


def tunnels(plane: Plane) -> int:
    return len(list(plane.client.pool.tunnels()))


def test_connections_reuse_a_tunnel_at_once_and_later() -> None:
    with closing(Plane(limits=Limits(max_streams_client=3))) as plane:
        first = pairs(plane, 2)
        assert tunnels(plane) == 1
        shut(plane, first)
        pairs(plane, 2)
        assert plane.connections.totals.tunnels["client"].opened == 1


def test_a_hundred_connections_share_a_tunnel() -> None:
    with closing(Plane()) as plane:
        pairs(plane, 100)
        assert (tunnels(plane), len(plane.server.tunnels)) == (1, 1)


def test_full_tunnels_return_to_service_when_their_streams_end() -> None:
    with closing(Plane(limits=Limits(max_streams_client=2))) as plane:
        for _ in range(3):
            ends = pairs(plane, 4)
            assert tunnels(plane) == 2
            shut(plane, ends)
        assert plane.connections.totals.tunnels["client"].opened == 2


def test_a_limit_of_one_is_a_tunnel_per_connection() -> None:
    with closing(Plane(limits=Limits(max_streams_client=1))) as plane:
        for _ in range(2):
            ends = pairs(plane, 3)
            assert tunnels(plane) == 3
            shut(plane, ends)
        assert plane.connections.totals.tunnels["client"].opened == 3


def test_load_spreads_over_as_many_tunnels_as_it_needs() -> None:
    with closing(Plane(limits=Limits(max_streams_client=10))) as plane:
        pairs(plane, 25)
        assert sorted(tunnel.wire.open_streams for tunnel in plane.client.pool.tunnels()) == [5, 10, 10]


def test_idle_tunnels_are_evicted_and_one_with_a_stream_is_not() -> None:
    with closing(Plane(limits=Limits(max_streams_client=1), deadlines=Deadlines(pool_idle_s=5))) as plane:
        ends = pairs(plane, 2)
        shut(plane, ends[2:])
        assert tunnels(plane) == 2
        for _ in range(3):
            plane.advance(4.0)
            ends[0].sendall(b"x")
            assert plane.receive(ends[1], 1) == b"x"
        (kept,) = plane.client.pool.tunnels()
        assert kept.wire.open_streams == 1
        shut(plane, ends[:2])
        plane.advance(4.0)
        assert tunnels(plane) == 1
        plane.advance(4.0)
        assert tunnels(plane) == 0


def played(plane: Plane) -> RawServer:
    """Put a server that the test plays in the place of the server pod's."""
    server = plane.serve_raw(shared_ca().credentials(SERVER), SERVER_IP)
    plane.routes[Endpoint(SERVER_IP, 15008)] = server.port
    return server


def requested(plane: Plane, server: RawServer, count: int) -> None:
    plane.wait(lambda: sum(len(peer.requests) for peer in server.peers) == count)


def test_after_a_goaway_connections_go_to_a_new_tunnel_and_old_streams_live() -> None:
    with closing(Plane()) as plane:
        server = played(plane)
        near = plane.dial()
        requested(plane, server, 1)
        first = server.peers[0]
        first.wire.respond(first.streams[0], 200)
        first.wire.goaway()
        plane.wait(lambda: any(tunnel.wire.is_draining for tunnel in plane.client.pool.tunnels()))
        plane.dial()
        requested(plane, server, 2)
        assert [len(peer.requests) for peer in server.peers] == [1, 1]
        near.sendall(b"still here")
        plane.wait(lambda: first.received == b"still here")


def test_a_tunnel_that_its_peer_resets_is_gone_at_once_and_the_next_connection_dials_anew() -> None:
    with closing(Plane()) as plane:
        server = played(plane)
        near = plane.dial()
        requested(plane, server, 1)
        broken = server.peers.pop()
        close_with_reset(broken.sock)
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1)
        assert tunnels(plane) == 0
        plane.dial()
        requested(plane, server, 1)


def test_a_dial_that_fails_is_not_tried_again_before_the_next_connection() -> None:
    with closing(Plane()) as plane:
        plane.routes[Endpoint(SERVER_IP, 15008)] = 1
        counts = plane.connections.totals.tunnels["client"]
        for number in (1, 2):
            near = plane.dial()
            with pytest.raises(ConnectionResetError):
                plane.receive(near, 1)
            plane.settle()
            assert counts.failed == {Flag.CONNECT: number}
        plane.routes[Endpoint(SERVER_IP, 15008)] = plane.hbone_port
        near, far = plane.pair()
        near.sendall(b"back")
        assert plane.receive(far, 4) == b"back"
