"""Streams end to end in one process: outbound, a tunnel, inbound, and two apps."""

import gc
import hashlib
import os
import select
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing

import pytest

from tests.support import fuzz_plane
from tests.support.fuzz_frames import AUTHORITY, joined
from tests.support.fuzz_wire import GREETING, Call, Feed
from tests.support.plane import CLIENT_IP, Plane
from zproxy.config import Deadlines, Limits
from zproxy.hbone.tunnel import Tunnel
from zproxy.model.conn import Direction
from zproxy.wire import frames
from zproxy.wire.headers import connect_block
from zproxy.wire.stream import Role

SMALL = Limits(stream_window=256 << 10, connection_window=1 << 20, backlog_bytes=64 << 10)
"""Windows that a test can fill in a moment."""


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


def test_bytes_travel_both_ways(plane: Plane) -> None:
    near, far = plane.pair()
    near.sendall(b"question")
    assert plane.receive(far, 8) == b"question"
    far.sendall(b"answer")
    assert plane.receive(near, 6) == b"answer"


def test_half_close_lets_the_other_direction_live(plane: Plane) -> None:
    near, far = plane.pair()
    near.sendall(b"all I have")
    near.shutdown(socket.SHUT_WR)
    assert plane.receive(far, 100) == b"all I have"
    far.sendall(b"and yet I answer")
    far.close()
    assert plane.receive(near, 100) == b"and yet I answer"
    assert [c.error for c in plane.ended(2)] == ["", ""]


def test_server_may_close_first(plane: Plane) -> None:
    near, far = plane.pair()
    far.sendall(b"greeting")
    far.shutdown(socket.SHUT_WR)
    assert plane.receive(near, 100) == b"greeting"
    near.sendall(b"late")
    near.close()
    assert plane.receive(far, 100) == b"late"


def test_reset_travels_to_the_other_app(plane: Plane) -> None:
    near, far = plane.pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    near.close()
    with pytest.raises(ConnectionResetError):
        plane.receive(far, 1)
    assert {c.direction for c in plane.ended(2)} == set(Direction)
    assert all(c.error for c in plane.ended(2))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_bulk_arrives_intact(plane: Plane, direction: str) -> None:
    near, far = plane.pair()
    source, sink = (near, far) if direction == "up" else (far, near)
    data = os.urandom(1 << 20) * 12
    source.setblocking(True)

    def send() -> None:
        source.sendall(data)
        source.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    got = plane.receive(sink, len(data) + 1)
    sender.join()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()


def test_slow_reader_stops_the_sender_within_the_window() -> None:
    with closing(Plane(limits=SMALL)) as plane:
        near, far = plane.pair()
        relays = [*plane.client.relays, *plane.server.relays]
        sockets = plane.narrow(near, far, *(relay.sock for relay in relays))  # type: ignore[attr-defined]
        sent = plane.flood(near)
        assert sent < SMALL.stream_window + SMALL.backlog_bytes + sockets
        assert len(plane.receive(far, sent)) == sent


def test_both_records_tell_the_same_story(plane: Plane) -> None:
    near, far = plane.pair()
    near.sendall(b"x" * 11)
    near.shutdown(socket.SHUT_WR)
    assert len(plane.receive(far, 12)) == 11
    far.sendall(b"y" * 22)
    far.close()
    assert len(plane.receive(near, 23)) == 22
    by_direction = {c.direction: c for c in plane.ended(2)}
    outbound, inbound = by_direction[Direction.OUTBOUND], by_direction[Direction.INBOUND]
    assert (outbound.bytes_sent, outbound.bytes_recv) == (11, 22)
    assert (inbound.bytes_sent, inbound.bytes_recv) == (22, 11)
    assert outbound.hbone_addr == inbound.hbone_addr == "127.0.0.2:8080"
    assert str(outbound.dst) == "127.0.0.2:15008"
    assert outbound.peers is not None
    assert str(outbound.peers.destination_identity) == "spiffe://cluster.local/ns/demo/sa/server"


def test_app_is_dialled_from_the_peers_address(plane: Plane) -> None:
    plane.pair()
    assert plane.server.sockets.sources == [CLIENT_IP]  # type: ignore[attr-defined]


def test_streams_share_one_tunnel_whatever_their_port(plane: Plane) -> None:
    for port in (8080, 8080, 8081, 9000):
        near, far = plane.pair(port)
        near.sendall(b"hello")
        assert plane.receive(far, 5) == b"hello"
    tunnels = list(plane.client.pool.tunnels())
    assert len(tunnels) == 1
    assert tunnels[0].streams_total == 4
    assert len(plane.server.tunnels) == 1


def test_connection_refused_by_the_app_ends_the_clients(plane: Plane) -> None:
    near = plane.dial(port=4444)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    outbound = next(c for c in plane.ended(2) if c.direction is Direction.OUTBOUND)
    assert outbound.error == "http status: 503"
    inbound = next(c for c in plane.ended(2) if c.direction is Direction.INBOUND)
    assert "Connection refused" in inbound.error


def test_an_app_that_ended_while_nobody_reads_is_heard_to_the_end() -> None:
    with closing(Plane(limits=SMALL)) as plane:
        near, far = plane.pair()
        near.shutdown(socket.SHUT_WR)
        assert plane.receive(far, 1) == b""
        sent = plane.flood(far)
        far.close()
        plane.settle()
        assert len(plane.receive(near, sent + 1)) == sent
        assert [c.error for c in plane.ended(2)] == ["", ""]


def test_an_app_that_breaks_while_nobody_reads_breaks_the_other() -> None:
    with closing(Plane(limits=SMALL)) as plane:
        near, far = plane.pair()
        plane.flood(far)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        plane.ended(2)
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1 << 30)


def test_a_half_closed_stream_is_given_up_when_the_other_half_is_silent() -> None:
    with closing(Plane(deadlines=Deadlines(half_close_s=5))) as plane:
        near, far = plane.pair()
        near.shutdown(socket.SHUT_WR)
        assert plane.receive(far, 1) == b""
        for _ in range(3):
            plane.advance(4.5)
            far.sendall(b"still alive")
            assert plane.receive(near, 11) == b"still alive"
        plane.advance(5.0)
        assert plane.lines.ended_connections == []
        plane.advance(5.0)
        text = "the other direction after a half-close took longer than 5 s"
        assert [(c.error, c.reason) for c in plane.ended(2)] == [(text, "TIMEOUT")] * 2


def test_a_fault_of_our_own_ends_the_connection_and_says_so(plane: Plane) -> None:
    near, _ = plane.pair()
    (relay,) = plane.client.relays
    relay.abort("ValueError: a bug")  # type: ignore[attr-defined] # a StreamRelay is more than a Relay
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = next(c for c in plane.ended(2) if c.direction is Direction.OUTBOUND)
    assert (record.error, record.reason) == ("internal error: ValueError: a bug", "INTERNAL")


def test_a_reader_that_stalls_does_not_stall_the_other_streams_of_its_tunnel() -> None:
    with closing(Plane(limits=SMALL)) as plane:
        slow, _ = plane.pair(8080)
        plane.flood(slow)
        for port in (8081, 8082):
            near, far = plane.pair(port)
            near.sendall(b"x" * 50_000)
            assert len(plane.receive(far, 50_000)) == 50_000
            far.sendall(b"y" * 50_000)
            assert len(plane.receive(near, 50_000)) == 50_000
        assert len(list(plane.client.pool.tunnels())) == 1


@pytest.mark.parametrize("is_near", [True, False], ids=["near", "far"])
def test_an_urgent_close_breaks_the_other_side_although_bytes_are_unread(plane: Plane, is_near: bool) -> None:
    """An app that closes with unread bytes sends RST (RFC 2525 2.17); its peer must not see an end."""
    ends = plane.pair()
    closes, hears = ends if is_near else reversed(ends)
    hears.sendall(b"never read")
    plane.wait(lambda: bool(select.select([closes], [], [], 0)[0]))
    closes.close()
    with pytest.raises(ConnectionResetError):
        plane.receive(hears, 1)
    assert all(record.error for record in plane.ended(2))


def windows(tunnels: Iterable[Tunnel]) -> list[int]:
    """Return how much of each tunnel's receive window is not lost: still open, or to be announced."""
    return [tunnel.wire._link.window.available + tunnel.wire._link.window.owed for tunnel in tunnels]


def test_connections_that_end_in_any_way_leave_nothing_behind() -> None:
    with closing(Plane(limits=SMALL)) as plane:
        before, watched = len(os.listdir("/proc/self/fd")), len(plane.worker.poller)
        app = plane.serve()
        for number in range(300):
            near = plane.dial()
            far = plane.accept(app)
            first, second = (near, far) if number & 1 else (far, near)
            first.sendall(b"never read" * 5000)
            if number % 3 == 0:
                second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                second.close()
                first.close()
            elif number % 3 == 1:
                first.close()
                second.close()
            else:
                first.shutdown(socket.SHUT_WR)
                assert len(plane.receive(second, 60_000)) == 50_000
                second.close()
                first.close()
        plane.ended(600)
        app.close()
        tunnels = (*plane.client.pool.tunnels(), *plane.server.tunnels)
        plane.wait(lambda: not any(tunnel.wire.open_streams for tunnel in tunnels))
        assert len(tunnels) == 2
        assert windows(tunnels) == [SMALL.connection_window] * 2
        assert len(os.listdir("/proc/self/fd")) == before + 2
        assert plane.client.relays == plane.server.relays == set()
        assert len(plane.worker.poller) == watched + 2


def test_an_ended_connection_is_freed_without_the_collector(plane: Plane) -> None:
    app = plane.serve()

    def live_one_life(number: int) -> None:
        near = plane.dial()
        far = plane.accept(app)
        near.sendall(b"x")
        assert plane.receive(far, 1) == b"x"
        near.close()
        far.close()
        plane.ended(2 * number)

    live_one_life(1)
    gc.collect()
    gc.disable()
    try:
        for number in range(2, 12):
            live_one_life(number)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_the_end_of_a_stream_does_not_touch_the_socket_that_its_data_broke() -> None:
    """DATA that the app's socket refuses and END_STREAM come in one batch."""
    story = [
        (frames.HEADERS, frames.END_HEADERS, 1, connect_block(AUTHORITY)),
        (frames.DATA, frames.END_STREAM, 1, b"x"),
    ]
    request, rest = (joined([frame]) for frame in story)
    steps = (
        Feed(frames.PREFACE + GREETING + request, ()),
        Call("connect", 0, 1),
        Call("app breaks", 0, 0),
        Feed(rest, ()),
    )
    fuzz_plane.run(fuzz_plane.Case(Role.SERVER, steps))


def test_a_connection_that_is_idle_for_too_long_is_ended_when_that_is_asked_for() -> None:
    with closing(Plane(deadlines=Deadlines(idle_s=5))) as plane:
        near, far = plane.pair()
        near.sendall(b"x")
        assert plane.receive(far, 1) == b"x"
        plane.advance(5)
        assert plane.lines.ended_connections == []
        plane.advance(5)
        for sock in (near, far):
            with pytest.raises(ConnectionResetError):
                plane.receive(sock, 1)
        assert ("a byte in either direction took longer than 5 s", "TIMEOUT") in {
            (c.error, c.reason) for c in plane.ended(2)
        }
        assert len(plane.worker.idle) == 0


def test_a_connection_may_be_idle_for_ever_unless_told_otherwise(plane: Plane) -> None:
    near, far = plane.pair()
    near.sendall(b"x")
    assert plane.receive(far, 1) == b"x"
    for _ in range(20):
        plane.advance(11)
        plane.settle()
    near.sendall(b"x")
    assert plane.receive(far, 1) == b"x"
