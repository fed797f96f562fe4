"""What becomes of a connection that the pod's app makes."""

import socket
from collections.abc import Iterator

import pytest

from tests.support.mesh import mesh, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.workload import Protocol


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


def test_without_an_original_destination_it_is_reset(plane: Plane) -> None:
    sock = plane.keep(socket.create_connection(("127.0.0.1", plane.outbound_port)))
    with pytest.raises(ConnectionResetError):
        plane.receive(sock, 1)
    record = plane.ended(1)[0]
    assert (record.reason, record.peers) == ("DENY", None)
    assert "no original destination" in record.error


def test_a_port_of_the_mesh_on_a_workload_is_no_target(plane: Plane) -> None:
    sock = plane.dial(port=15008)
    with pytest.raises(ConnectionResetError):
        plane.receive(sock, 1)
    record = plane.ended(1)[0]
    assert record.reason == "DENY"
    assert "listener of the mesh proxy" in record.error


def test_an_address_outside_the_mesh_is_passed_through_in_plain(plane: Plane) -> None:
    outside = plane.keep(socket.create_server(("127.0.0.3", 0)))
    plane.routes[Endpoint("127.0.0.3", 80)] = outside.getsockname()[1]
    near = plane.dial("127.0.0.3", 80)
    far = plane.accept(outside)
    near.sendall(b"plain")
    assert plane.receive(far, 5) == b"plain"
    far.close()
    near.close()
    record = plane.ended(1)[0]
    assert (str(record.dst), record.hbone_addr, record.error) == ("127.0.0.3:80", "", "")
    assert record.peers is not None
    assert record.peers.source_identity is None
    assert list(plane.client.pool.tunnels()) == []


def test_a_plain_workload_is_dialled_directly(plane: Plane) -> None:
    plane.mesh = mesh(
        workload("demo/client", CLIENT_IP), workload("demo/server", SERVER_IP, protocol=Protocol.TCP)
    )
    near, far = plane.pair()
    near.sendall(b"plain")
    assert plane.receive(far, 5) == b"plain"
    assert list(plane.client.pool.tunnels()) == []


def test_a_peer_that_does_not_listen_is_an_error_with_a_cause(plane: Plane) -> None:
    plane.routes[Endpoint(SERVER_IP, 15008)] = 1
    near = plane.dial()
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert record.reason == "CONNECT"
    assert "127.0.0.2:15008 failed: Connection refused (nothing listens there" in record.error


def test_an_app_that_leaves_before_the_tunnel_is_up_is_forgotten(plane: Plane) -> None:
    near = plane.dial()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    near.close()
    record = next(c for c in plane.ended(1) if c.direction is Direction.OUTBOUND)
    assert "broke" in record.error or "abruptly" in record.error
    assert plane.client.relays == set()
