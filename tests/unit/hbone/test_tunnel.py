"""Tunnels under load, silence and loss."""

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.ca import SERVER, shared_ca
from tests.support.plane import SERVER_IP, Plane
from tests.support.raw import RawPeer, RawServer
from zproxy.config import Limits
from zproxy.model.addr import Endpoint
from zproxy.net.buffers import SIZE
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


def test_a_silent_peer_is_pinged_and_then_given_up() -> None:
    with closing(Plane()) as plane:
        near, _ = plane.pair()
        tunnel = next(iter(plane.client.pool.tunnels()))
        now = tunnel.vigil.heard
        tunnel.on_tick(now + 9)
        assert not tunnel.wire.out
        tunnel.on_tick(now + 11)
        assert tunnel.wire.out, "a PING is on its way"
        heard = tunnel.bytes_recv
        plane.wait(lambda: tunnel.bytes_recv > heard)
        assert tunnel.state.value == "open"
        tunnel.on_tick(tunnel.vigil.heard + 31)
        assert tunnel.state.value == "closed"
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1)
        assert any("has been silent" in c.error for c in plane.ended(2))


def test_an_idle_tunnel_is_neither_pinged_nor_given_up() -> None:
    with closing(Plane()) as plane:
        near, far = plane.pair()
        near.close()
        far.close()
        plane.ended(2)
        tunnel = next(iter(plane.client.pool.tunnels()))
        tunnel.on_tick(tunnel.vigil.heard + 100)
        assert tunnel.state.value == "open"
        assert not tunnel.wire.out


def test_losing_the_tunnel_resets_every_stream_and_says_why() -> None:
    with closing(Plane()) as plane:
        pairs = [plane.pair(port) for port in (8080, 8081)]
        tunnel = next(iter(plane.server.tunnels))
        tunnel.sock.shutdown(socket.SHUT_RDWR)
        for near, far in pairs:
            for sock in (near, far):
                with pytest.raises(ConnectionResetError):
                    plane.receive(sock, 1)
        assert all("tunnel" in c.error for c in plane.ended(4))
        assert list(plane.client.pool.tunnels()) == []


def test_small_streams_get_through_beside_one_that_nobody_reads() -> None:
    with closing(Plane(limits=Limits(stream_window=256 << 10, connection_window=1 << 20))) as plane:
        bulk, _ = plane.pair(8080)
        bulk.setblocking(False)
        near, far = plane.pair(8081)
        for _ in range(200):
            try:
                bulk.send(bytes(1 << 16))
            except BlockingIOError:
                plane.worker.poller.run_batch()
        for number in range(20):
            near.sendall(b"%04d" % number)
            assert plane.receive(far, 4) == b"%04d" % number


def test_a_thousand_connections_leave_nothing_behind() -> None:
    with closing(Plane()) as plane:
        app = plane.serve()
        for _ in range(1000):
            near = plane.dial()
            far = plane.accept(app)
            near.sendall(b"x")
            assert plane.receive(far, 1) == b"x"
            far.close()
            near.close()
        plane.ended(2000)
        tunnel = next(iter(plane.client.pool.tunnels()))
        plane.wait(lambda: tunnel.wire.open_streams == 0)
        assert plane.client.relays == plane.server.relays == set()
        assert plane.connections.live() == 0
        assert (
            len(plane.worker.answering) == len(plane.worker.connecting) == len(plane.worker.half_closed) == 0
        )
        assert tunnel.streams_total == 1000


def played(plane: Plane, limits: Limits = Limits()) -> RawServer:  # noqa: B008 - immutable
    """Put a server that the test plays in the place of the server pod's."""
    server = plane.serve_raw(shared_ca().credentials(SERVER), SERVER_IP, limits)
    plane.routes[Endpoint(SERVER_IP, 15008)] = server.port
    return server


def joined(plane: Plane, server: RawServer) -> tuple[socket.socket, RawPeer]:
    """Open a stream to a played server, which answers 200."""
    near = plane.dial()
    plane.wait(lambda: bool(server.peers) and len(server.peers[0].requests) == 1)
    (peer,) = server.peers
    peer.wire.respond(peer.streams[0], 200)
    near.sendall(b"x")
    plane.wait(lambda: peer.received == b"x")
    return near, peer


def test_a_dead_peer_is_pinged_from_ten_seconds_on_and_given_up_after_thirty(plane: Plane) -> None:
    server = played(plane)
    near, peer = joined(plane, server)
    (tunnel,) = plane.client.pool.tunnels()
    peer.is_mute = True
    sent = tunnel.bytes_sent
    plane.advance(10.0)
    assert tunnel.bytes_sent == sent
    plane.advance(0.5)
    assert tunnel.bytes_sent > sent
    plane.advance(19.5)
    assert plane.lines.ended_connections == []
    plane.advance(0.5)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert record.reason == "TUNNEL_CLOSED"
    assert record.error == "127.0.0.2:15008 has been silent for 30 s and answers no ping"


def test_a_peer_that_answers_pings_may_be_silent_for_ever(plane: Plane) -> None:
    server = played(plane)
    near, peer = joined(plane, server)
    for _ in range(10):
        plane.advance(11.0)
        plane.settle()
    peer.send(peer.streams[0], b"at last")
    assert plane.receive(near, 7) == b"at last"


def test_a_tunnel_that_was_idle_for_long_gives_its_next_stream_time(plane: Plane) -> None:
    server = played(plane)
    near, peer = joined(plane, server)
    near.close()
    peer.wire.end(peer.streams[0])
    plane.ended(1)
    plane.advance(200.0)
    plane.dial()
    plane.wait(lambda: len(peer.requests) == 2)
    peer.is_mute = True
    plane.advance(9.0)
    assert len(list(plane.client.pool.tunnels())) == 1
    assert len(plane.lines.ended_connections) == 1


def test_a_peer_that_leaves_in_order_ends_an_idle_tunnel_without_a_word(plane: Plane) -> None:
    near, far = plane.pair()
    near.close()
    far.close()
    plane.ended(2)
    (tunnel,) = plane.server.tunnels
    tunnel.close()
    plane.wait(lambda: not list(plane.client.pool.tunnels()))
    assert len(plane.lines.ended_connections) == 2
    assert plane.worker.ticking == set()


def test_a_peer_that_leaves_under_a_stream_breaks_it(plane: Plane) -> None:
    server = played(plane)
    near, peer = joined(plane, server)
    peer.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == (
        "127.0.0.2:15008 closed the tunnel under open streams",
        "TUNNEL_CLOSED",
    )


def test_a_peer_that_breaks_the_protocol_is_told_so_and_left(plane: Plane) -> None:
    server = played(plane)
    near, peer = joined(plane, server)
    peer.send_raw(frames.head(1, frames.DATA, 0, 99) + b"?")
    plane.wait(lambda: peer.draining is not None and peer.draining.code == ErrorCode.PROTOCOL_ERROR)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert record.error == "127.0.0.2:15008: HTTP/2 PROTOCOL_ERROR: DATA on idle stream 99"


def test_an_app_is_not_read_beyond_what_the_tunnels_socket_takes() -> None:
    with closing(Plane(limits=Limits(backlog_bytes=256 << 10))) as plane:
        wide = Limits(stream_window=1 << 30, connection_window=1 << 30)
        near, peer = joined(plane, played(plane, wide))
        (tunnel,) = plane.client.pool.tunnels()
        peer.is_mute = True
        sent = plane.flood(near)
        assert len(tunnel._outbox._backlog) < (256 << 10) + 2 * SIZE
        peer.is_mute = False
        plane.wait(lambda: len(peer.received) == sent + 1)


def test_many_apps_that_send_much_to_a_peer_that_does_not_read_are_stopped_and_the_tunnel_lives() -> None:
    limit = 64 << 10
    with closing(Plane(limits=Limits(backlog_bytes=limit))) as plane:
        server = played(plane)
        apps = [plane.dial() for _ in range(8)]
        plane.wait(lambda: bool(server.peers) and len(server.peers[0].streams) == len(apps))
        peer = server.peers[0]
        for stream in peer.streams:
            peer.wire.respond(stream, 200)
        plane.settle()
        server.is_mute = peer.is_mute = True
        for app in apps:
            app.setblocking(False)
        (tunnel,) = plane.client.pool.tunnels()
        stalls = 0

        def push() -> bool:
            nonlocal stalls
            stalls += 1
            for app in apps:
                with contextlib.suppress(BlockingIOError):
                    app.send(bytes(1 << 20))
                    stalls = 0
            assert tunnel._outbox.backlog <= 2 * limit + 2 * SIZE
            return stalls > 20

        plane.wait(push)
        assert tunnel._outbox.is_congested
        assert tunnel.state.value == "open"


def test_streams_that_compete_for_a_tunnel_get_like_shares() -> None:
    with closing(Plane(limits=Limits(stream_window=256 << 10, connection_window=512 << 10))) as plane:
        pairs = [plane.pair(port) for port in (8080, 8081, 8082, 8083)]
        got = [0] * len(pairs)
        for near, far in pairs:
            near.setblocking(False)
            far.setblocking(False)

        def turn() -> bool:
            for index, (near, far) in enumerate(pairs):
                with contextlib.suppress(BlockingIOError):
                    near.send(bytes(1 << 18))
                with contextlib.suppress(BlockingIOError):
                    got[index] += len(far.recv(1 << 20))
            return sum(got) > 192 << 20  # so much that the head start of a first one does not count

        plane.wait(turn)
        assert min(got) > 0.6 * max(got)


def test_a_fault_of_our_own_ends_the_tunnel_and_its_streams(plane: Plane) -> None:
    near, _ = plane.pair()
    (tunnel,) = plane.client.pool.tunnels()
    tunnel.abort("ValueError: a bug")
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert "internal error: ValueError: a bug" in {record.error for record in plane.ended(2)}


def test_a_silent_peer_is_asked_once(plane: Plane) -> None:
    server = played(plane)
    _, peer = joined(plane, server)
    (tunnel,) = plane.client.pool.tunnels()
    peer.is_mute = True
    plane.advance(10.5)
    sent = tunnel.bytes_sent
    for _ in range(19):
        plane.advance(1.0)
    assert tunnel.bytes_sent == sent


def test_a_peer_that_was_heard_again_is_asked_again(plane: Plane) -> None:
    server = played(plane)
    joined(plane, server)
    (tunnel,) = plane.client.pool.tunnels()
    for _ in range(3):
        sent, heard = tunnel.bytes_sent, tunnel.bytes_recv
        plane.advance(10.5)
        assert tunnel.bytes_sent > sent
        plane.wait(lambda heard=heard: tunnel.bytes_recv > heard)  # type: ignore[misc] # a lambda with a default


def test_a_server_that_never_acknowledges_our_settings_is_left(plane: Plane) -> None:
    server = played(plane)
    near, peer = joined(plane, server)
    (tunnel,) = plane.client.pool.tunnels()
    assert len(plane.worker.agreeing) == 0
    plane.worker.agreeing.start(tunnel, plane.now)
    plane.advance(10.0)
    plane.wait(lambda: peer.draining is not None and peer.draining.code == ErrorCode.SETTINGS_TIMEOUT)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert record.reason == "H2_HANDSHAKE_FAILURE"
    assert record.error == "127.0.0.2:15008: SETTINGS acknowledgement took longer than 10 s"


def test_a_draining_tunnel_sends_what_it_holds_before_it_leaves(plane: Plane) -> None:
    server = plane.serve_raw(shared_ca().credentials(SERVER), SERVER_IP)
    plane.routes[Endpoint(SERVER_IP, 15008)] = server.port
    near = plane.dial()
    plane.wait(lambda: bool(server.peers and server.peers[0].requests))
    (peer,) = server.peers
    peer.wire.respond(peer.streams[0], 200)
    peer.wire.end(peer.streams[0])
    peer.wire.goaway()
    plane.wait(lambda: next(iter(plane.client.pool.tunnels())).wire.is_draining)
    assert plane.receive(near, 1) == b""
    server.is_mute = True
    tunnel = next(iter(plane.client.pool.tunnels()))
    tunnel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = os.urandom(3 << 20)
    sent = 0
    near.setblocking(False)

    def push() -> bool:
        nonlocal sent
        with contextlib.suppress(BlockingIOError):
            sent += near.send(data[sent : sent + (1 << 18)])
        return tunnel._outbox.has_backlog or sent == len(data)

    plane.wait(push)
    near.close()
    record = plane.ended(1)[0]
    server.is_mute = False
    plane.wait(lambda: peer.is_cut)
    assert len(peer.received) == record.bytes_sent
    assert peer.ended == {1}
    assert list(plane.client.pool.tunnels()) == []
