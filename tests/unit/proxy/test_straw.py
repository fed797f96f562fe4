"""A pod's listeners."""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.support.mesh import mesh, workload
from tests.support.netns import namespace
from tests.support.plane import SERVER_IP, Plane
from zproxy.errors import EnrollError
from zproxy.hbone.tunnel import State
from zproxy.model.conn import Direction
from zproxy.net.sockets import SocketFactory
from zproxy.proxy.straw import PORTS, Straw
from zproxy.state.store import Mesh


@pytest.mark.root
def test_three_listeners_stand_in_the_pod_and_go_with_the_straw() -> None:
    with closing(Plane()) as plane, namespace() as pod:
        plane.server.sockets = SocketFactory(pod.netns, lambda fd: None)
        straw = Straw(plane.server)
        assert tuple(listener.port for listener in straw.listeners) == PORTS
        shown = pod.execute("ss", "-Hltn").stdout
        assert all(f":{port} " in shown for port in PORTS)
        assert straw.plaintext_fd == straw.listeners[1].sock.fileno()
        straw.close("over")
        assert pod.execute("ss", "-Hltn").stdout == ""


@pytest.mark.root
@pytest.mark.parametrize("port", PORTS)
def test_a_taken_port_is_named_and_the_others_are_given_back(port: int) -> None:
    with closing(Plane()) as plane, namespace() as pod:
        squatter = pod.listen(port)
        plane.server.sockets = SocketFactory(pod.netns, lambda fd: None)
        with pytest.raises(EnrollError, match=f"port {port} is in use inside the pod"):
            Straw(plane.server)
        squatter.close()
        assert pod.execute("ss", "-Hltn").stdout == ""


def test_a_port_that_cannot_be_had_leaves_no_listener_and_no_identity() -> None:
    with closing(Plane()) as plane:
        listen = plane.server.sockets.listen

        def refuse(port: int, backlog: int) -> socket.socket:
            if port == PORTS[-1]:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
            return listen(port, backlog)

        plane.server.sockets.listen = refuse  # type: ignore[method-assign]
        before, watched = len(os.listdir("/proc/self/fd")), len(plane.worker.poller)
        with pytest.raises(
            EnrollError, match="cannot listen on port 15053 inside the pod: No buffer space available"
        ):
            Straw(plane.server)
        assert (len(os.listdir("/proc/self/fd")), len(plane.worker.poller)) == (before, watched)
        assert plane.server.certificates.is_closed  # type: ignore[attr-defined] # the fake's


def test_closing_ends_everything_and_says_why() -> None:
    with closing(Plane()) as plane:
        ends = [*plane.pair(8080), *plane.pair(8081)]
        plane.client_straw.close("demo/client was unenrolled")
        for sock in ends:
            with pytest.raises(ConnectionResetError):
                plane.receive(sock, 1)
        records = [record for record in plane.ended(4) if record.direction is Direction.OUTBOUND]
        assert [(c.error, c.reason) for c in records] == [("demo/client was unenrolled", "DRAIN")] * 2
        assert plane.client.relays == set()
        assert list(plane.client_straw.tunnels()) == []
        assert plane.client.certificates.is_closed  # type: ignore[attr-defined] # the fake's
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", plane.outbound_port))


def test_closing_lets_the_peer_go_in_order() -> None:
    with closing(Plane()) as plane:
        near, far = plane.pair()
        near.close()
        far.close()
        plane.ended(2)
        plane.server_straw.close("demo/server was unenrolled")
        plane.wait(lambda: not list(plane.client.pool.tunnels()))
        assert [record.error for record in plane.ended(2)] == ["", ""]


def test_draining_takes_nothing_new_and_lets_the_rest_end() -> None:
    with closing(Plane()) as plane:
        near, far = plane.pair()
        (mine,), (theirs,) = plane.client_straw.tunnels(), plane.server_straw.tunnels()
        plane.server_straw.drain()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", plane.hbone_port))
        far.sendall(b"to the end")
        assert plane.receive(near, 10) == b"to the end"
        near.close()
        far.close()
        assert [record.error for record in plane.ended(2)] == ["", ""]
        plane.wait(lambda: mine.state is theirs.state is State.CLOSED)


def test_waiters_of_a_straw_that_drains_still_get_their_tunnel() -> None:
    with closing(Plane()) as plane:
        app = plane.serve()
        near = plane.dial()
        plane.client_straw.drain()
        near.sendall(b"just in time")
        assert plane.receive(plane.accept(app), 12) == b"just in time"


def test_its_tunnels_are_those_it_dialled_and_those_it_accepted() -> None:
    with closing(Plane()) as plane:
        plane.pair()
        assert [tunnel.role for tunnel in plane.client_straw.tunnels()] == ["client"]
        assert [tunnel.role for tunnel in plane.server_straw.tunnels()] == ["server"]


def leave(plane: Plane) -> Mesh:
    return mesh(plane.mesh.workloads[0])


def change_identity(plane: Plane) -> Mesh:
    return mesh(plane.mesh.workloads[0], workload("demo/server", SERVER_IP, service_account="other"))


def change_owner(plane: Plane) -> Mesh:
    other = workload("demo/successor", SERVER_IP, service_account="server")
    return mesh(plane.mesh.workloads[0], other)


@pytest.mark.parametrize("change", [leave, change_identity, change_owner])
def test_a_tunnel_whose_peer_pod_is_gone_is_dropped_at_once(change: Callable[[Plane], Mesh]) -> None:
    with closing(Plane()) as plane:
        near, _ = plane.pair()
        former, plane.mesh = plane.mesh, change(plane)
        plane.client_straw.on_mesh(former)
        assert list(plane.client.pool.tunnels()) == []
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1)
        outbound = next(c for c in plane.ended(2) if c.direction is Direction.OUTBOUND)
        assert outbound.error == "the pod at the end of the tunnel left the mesh"
        assert outbound.reason == "TUNNEL_CLOSED"


def test_who_waits_for_a_tunnel_to_a_pod_that_is_gone_hears_it_at_once() -> None:
    with closing(Plane()) as plane:
        near = plane.dial()
        assert [tunnel.state for tunnel in plane.client.pool.tunnels()] == [State.CONNECTING]
        former, plane.mesh = plane.mesh, leave(plane)
        plane.client_straw.on_mesh(former)
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1)
        assert "left the mesh" in plane.ended(1)[0].error
        assert list(plane.client.pool.tunnels()) == []


def test_a_mesh_in_which_the_peer_stays_cuts_nothing() -> None:
    with closing(Plane()) as plane:
        near, far = plane.pair()
        former = plane.mesh
        plane.mesh = mesh(former.workloads[0], workload("demo/server", SERVER_IP, node="moved"))
        plane.client_straw.on_mesh(former)
        near.sendall(b"still there")
        assert plane.receive(far, 11) == b"still there"


@pytest.mark.root
def test_a_listener_that_was_destroyed_is_opened_again_and_the_others_stay() -> None:
    with closing(Plane()) as plane, namespace() as pod:
        plane.server.sockets = SocketFactory(pod.netns, lambda fd: None)
        straw = Straw(plane.server)
        before = [listener.sock for listener in straw.listeners]
        straw.reopen()
        assert [listener.sock for listener in straw.listeners] == before
        pod.execute("ss", "-K", "-t", "state", "listening", "sport", "=", f":{PORTS[1]}")
        squatter = pod.listen(PORTS[1])
        with pytest.raises(EnrollError, match=f"port {PORTS[1]} is in use inside the pod"):
            straw.reopen()
        squatter.close()
        straw.reopen()
        assert [listener.sock is sock for listener, sock in zip(straw.listeners, before, strict=True)] == [
            True,
            False,
            True,
            True,
        ]
        assert straw.listeners[1].is_listening
        assert straw.plaintext_fd == straw.listeners[1].sock.fileno()
        straw.close("over")
        assert pod.execute("ss", "-Hltn").stdout == ""
