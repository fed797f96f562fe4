"""A pod that the mesh does not know yet: its connections wait, and nothing of them passes meanwhile."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.support.ca import shared_ca
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from zproxy.config import Deadlines, Limits
from zproxy.model.addr import Endpoint
from zproxy.proxy.straw import Straw
from zproxy.state.awaited import awaited
from zproxy.state.store import Mesh


class Waiting(Plane):
    """A plane whose pods were both enrolled before the mesh knew them; `arrive` makes it know them."""

    def __init__(self, limits: Limits = Limits(), deadlines: Deadlines = Deadlines()) -> None:  # noqa: B008
        super().__init__(limits, deadlines)
        self.whole, self.mesh = self.mesh, Mesh.of()
        self.client_straw.close("replaced")
        self.server_straw.close("replaced")
        client, server = self.whole.workloads
        ca = shared_ca()
        made = [
            self._pod(
                awaited(replace(each, uid=f"uid-{each.name}"), (ip,), self.mesh),
                ca.credentials(str(each.identity)),
            )
            for each, ip in ((client, CLIENT_IP), (server, SERVER_IP))
        ]
        self.client, self.server = made
        self.client_straw, self.server_straw = Straw(self.client), Straw(self.server)
        self.outbound_port = self.client_straw.listeners[0].port
        self.plaintext_port = self.server_straw.listeners[1].port
        self.hbone_port = self.server_straw.listeners[2].port
        self.routes[Endpoint(SERVER_IP, 15008)] = self.hbone_port

    def arrive(self) -> None:
        former, self.mesh = self.mesh, self.whole
        for straw in (self.client_straw, self.server_straw):
            straw.on_mesh(former)

    def leave(self) -> None:
        former, self.mesh = self.mesh, Mesh.of()
        for straw in (self.client_straw, self.server_straw):
            straw.on_mesh(former)

    def hold(self, port: int = 8080, said: bytes = b"") -> socket.socket:
        """Return the app's socket of a connection that is held."""
        self.client.sockets.destination = Endpoint(SERVER_IP, port)  # type: ignore[attr-defined]
        before = len(self.worker.awaiting)
        sock = self.keep(socket.create_connection(("127.0.0.1", self.outbound_port)))
        sock.sendall(said)
        self.wait(lambda: len(self.worker.awaiting) > before)
        return sock

    def refused(self) -> str:
        (connection,) = self.ended(1)
        assert len(self.worker.awaiting) == 0
        return connection.error


@pytest.fixture
def plane() -> Iterator[Waiting]:
    with closing(Waiting()) as made:
        yield made


def test_a_connection_waits_for_the_record_and_then_goes_on(plane: Waiting) -> None:
    app = plane.serve()
    near = plane.hold(said=b"early")
    assert not plane.has_waiting(app)
    plane.arrive()
    far = plane.accept(app)
    assert plane.receive(far, 5) == b"early"
    far.sendall(b"late")
    assert plane.receive(near, 4) == b"late"
    assert len(plane.worker.awaiting) == 0


def test_who_comes_after_the_record_does_not_wait(plane: Waiting) -> None:
    plane.arrive()
    near, far = plane.pair()
    near.sendall(b"hello")
    assert plane.receive(far, 5) == b"hello"


def test_a_mesh_that_still_does_not_know_the_pod_lets_nothing_through(plane: Waiting) -> None:
    app = plane.serve()
    plane.hold()
    plane.client_straw.on_mesh(plane.mesh)
    assert not plane.has_waiting(app)
    assert len(plane.worker.awaiting) == 1


def test_no_record_in_time_is_a_reset_with_a_reason() -> None:
    with closing(Waiting(deadlines=Deadlines(record_s=0.01))) as plane:
        near = plane.hold()
        plane.advance(0.02)
        assert plane.refused() == (
            "failed to fetch information about local workload: demo/client is not in the mesh: "
            "its record took longer than 0.01 s"
        )
        with pytest.raises(ConnectionResetError):
            near.recv(1)


def test_more_than_may_wait_are_refused_at_once() -> None:
    with closing(Waiting(limits=Limits(held_connections=2))) as plane:
        plane.hold()
        plane.hold()
        plane.keep(socket.create_connection(("127.0.0.1", plane.outbound_port)))
        (connection,) = plane.ended(1)
        assert connection.error.endswith("too many connections wait for it")
        assert len(plane.worker.awaiting) == 2


@pytest.mark.parametrize("number", [1, 2], ids=["plaintext", "hbone"])
def test_what_comes_from_outside_waits_too(plane: Waiting, number: int) -> None:
    port = plane.server_straw.listeners[number].port
    plane.keep(socket.create_connection((SERVER_IP, port)))
    plane.wait(lambda: len(plane.worker.awaiting) == 1)
    assert not plane.server.tunnels
    plane.server_straw.close("over")
    assert plane.refused().endswith("over")


def test_a_pod_that_left_the_mesh_again_is_refused(plane: Waiting) -> None:
    plane.arrive()
    plane.pair()
    plane.leave()
    plane.hold(port=8080)


def test_draining_refuses_what_waits(plane: Waiting) -> None:
    plane.hold()
    plane.client_straw.drain()
    assert plane.refused().endswith("zproxy is shutting down")


def test_the_baggage_is_that_of_the_record_once_it_is_there(plane: Waiting) -> None:
    before = plane.client.baggage
    plane.whole = Mesh.of([replace(each, workload_name="shop") for each in plane.whole.workloads])
    plane.arrive()
    assert before != plane.client.baggage
    assert "shop" in plane.client.baggage
