"""What becomes of a CONNECT that reaches the pod."""

from collections.abc import Iterator

import pytest

from tests.support.mesh import mesh, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from zproxy.config import Limits
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


def refused(plane: Plane, port: int = 8080) -> tuple[str, str]:
    """Dial, expect a reset, and return both sides' errors."""
    near = plane.dial(port=port)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    by_direction = {c.direction: c.error for c in plane.ended(2)}
    return by_direction[Direction.OUTBOUND], by_direction[Direction.INBOUND]


def test_an_address_that_is_another_pods_is_refused(plane: Plane) -> None:
    plane.routes[Endpoint("127.0.0.9", 15008)] = plane.hbone_port
    plane.mesh = mesh(
        workload("demo/client", CLIENT_IP),
        workload("demo/server", SERVER_IP),
        workload("demo/moved", "127.0.0.9", service_account="server"),
    )
    near = plane.dial("127.0.0.9", 8080)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    by_direction = {c.direction: c.error for c in plane.ended(2)}
    assert by_direction[Direction.OUTBOUND] == "http status: 401"
    assert "belongs to demo/moved" in by_direction[Direction.INBOUND]


def test_a_pod_that_the_mesh_forgot_is_refused(plane: Plane) -> None:
    plane.pair(9000)
    known = plane.mesh
    plane.client.mesh = lambda: known
    plane.mesh = mesh(workload("demo/client", CLIENT_IP))
    outbound, inbound = refused(plane)
    assert outbound == "http status: 401"
    assert "workload not found" in inbound


def test_a_closed_app_port_is_503_and_named(plane: Plane) -> None:
    outbound, inbound = refused(plane, port=4444)
    assert outbound == "http status: 503"
    assert "connection failed: connect to 127.0.0.2:4444 failed: Connection refused" in inbound


def test_an_app_that_never_answers_is_503_at_the_deadline(plane: Plane) -> None:
    app = plane.serve(backlog=0)
    queue = [plane.dial() for _ in range(4)]
    plane.settle()
    plane.advance(11)
    records = plane.ended(2)
    assert any("TCP connect took longer than 10 s" in c.error for c in records)
    assert len(queue) == 4
    app.close()


def test_pending_handshakes_are_bounded() -> None:
    import socket

    plane = Plane(limits=Limits(pending_handshakes=2))
    strangers = [socket.create_connection((SERVER_IP, plane.hbone_port)) for _ in range(3)]
    record = plane.ended(1)[0]
    assert record.reason == "LIMIT"
    assert len(plane.server.tunnels) == 2
    for sock in strangers:
        sock.close()
    plane.wait(lambda: not plane.server.tunnels)
    near, far = plane.pair()
    near.sendall(b"room again")
    assert plane.receive(far, 10) == b"room again"
    plane.close()
