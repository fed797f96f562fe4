"""What reaches the pod outside HBONE."""

import socket
from collections.abc import Iterator

import pytest

from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


def knock(plane: Plane) -> socket.socket:
    return plane.keep(socket.create_connection((SERVER_IP, plane.plaintext_port)))


def test_it_is_passed_on_with_the_clients_address(plane: Plane) -> None:
    app = plane.keep(socket.create_server((SERVER_IP, 0)))
    plane.routes[Endpoint(SERVER_IP, plane.plaintext_port)] = app.getsockname()[1]
    near = knock(plane)
    far = plane.accept(app)
    near.sendall(b"hello")
    assert plane.receive(far, 5) == b"hello"
    far.sendall(b"bye")
    assert plane.receive(near, 3) == b"bye"
    near.close()
    far.close()
    record = plane.ended(1)[0]
    assert plane.server.sockets.sources == [CLIENT_IP]  # type: ignore[attr-defined]
    assert (record.direction, record.bytes_sent, record.bytes_recv) == (Direction.INBOUND, 3, 5)
    assert record.peers is not None
    assert record.peers.source is not None
    assert record.peers.source_identity is None


def test_ports_of_the_mesh_are_refused(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "ILLEGAL", ports.ILLEGAL | {plane.plaintext_port})
    near = knock(plane)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert record.reason == "DENY"
    assert "attempted recursive call to ourselves" in record.error


def test_an_app_that_does_not_listen_is_a_reset(plane: Plane) -> None:
    near = knock(plane)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert "Connection refused" in plane.ended(1)[0].error
