"""Streams end to end in one process: outbound, a tunnel, inbound, and two apps."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.plane import CLIENT_IP, Plane
from zproxy.model.conn import Direction


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


def test_slow_reader_stops_the_sender_within_the_window(plane: Plane) -> None:
    near, far = plane.pair()
    near.setblocking(False)
    block = bytes(1 << 16)
    sent = 0

    def push() -> bool:
        nonlocal sent
        try:
            sent += near.send(block)
        except BlockingIOError:
            stalls.append(sent)
        return len(stalls) > 40 and stalls[-1] == stalls[-40]

    stalls: list[int] = []
    plane.wait(push)
    limits = plane.worker.limits
    assert sent < limits.stream_window + limits.backlog_bytes + (24 << 20)
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
