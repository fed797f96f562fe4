"""Tunnels under load, silence and loss."""

import socket

import pytest

from tests.support.plane import Plane
from zproxy.config import Limits


def test_a_silent_peer_is_pinged_and_then_given_up() -> None:
    plane = Plane()
    near, _ = plane.pair()
    tunnel = next(iter(plane.client.pool.tunnels()))
    now = tunnel.heard
    tunnel.on_tick(now + 9)
    assert not tunnel.wire.out
    tunnel.on_tick(now + 11)
    assert tunnel.wire.out, "a PING is on its way"
    heard = tunnel.bytes_recv
    plane.wait(lambda: tunnel.bytes_recv > heard)
    assert tunnel.state.value == "open"
    tunnel.on_tick(tunnel.heard + 31)
    assert tunnel.state.value == "closed"
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert any("has been silent" in c.error for c in plane.ended(2))
    plane.close()


def test_an_idle_tunnel_is_neither_pinged_nor_given_up() -> None:
    plane = Plane()
    near, far = plane.pair()
    near.close()
    far.close()
    plane.ended(2)
    tunnel = next(iter(plane.client.pool.tunnels()))
    tunnel.on_tick(tunnel.heard + 100)
    assert tunnel.state.value == "open"
    assert not tunnel.wire.out
    plane.close()


def test_losing_the_tunnel_resets_every_stream_and_says_why() -> None:
    plane = Plane()
    pairs = [plane.pair(port) for port in (8080, 8081)]
    tunnel = next(iter(plane.server.tunnels))
    tunnel.sock.shutdown(socket.SHUT_RDWR)
    for near, far in pairs:
        for sock in (near, far):
            with pytest.raises(ConnectionResetError):
                plane.receive(sock, 1)
    assert all("tunnel" in c.error for c in plane.ended(4))
    assert list(plane.client.pool.tunnels()) == []
    plane.close()


def test_small_streams_get_through_beside_one_that_nobody_reads() -> None:
    plane = Plane(limits=Limits(stream_window=256 << 10, connection_window=1 << 20))
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
    plane.close()


def test_a_thousand_connections_leave_nothing_behind() -> None:
    plane = Plane()
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
    assert len(plane.worker.answering) == len(plane.worker.connecting) == len(plane.worker.half_closed) == 0
    assert tunnel.streams_total == 1000
    plane.close()
