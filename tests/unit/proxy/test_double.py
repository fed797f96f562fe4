"""A tunnel inside a tunnel: through a gateway to who serves on another network."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest

from tests.support.ca import shared_ca, spiffe
from tests.support.gateway import Gateway
from tests.support.mesh import behind, mesh, service, workload
from tests.support.plane import CLIENT_IP, Plane
from tests.support.raw import RawPeer, RawServer
from zproxy.hbone.tunnel import State
from zproxy.model.addr import Endpoint
from zproxy.model.service import GatewayAddress, NetworkAddress
from zproxy.observe.access import line
from zproxy.proxy.outbound_stream import OutboundStream
from zproxy.state.store import Mesh
from zproxy.wire.errors import ErrorCode

ECHO, GATE = spiffe("default", "echo"), spiffe("istio-system", "gateway")
AUTHORITY = "remote.default.svc.cluster.local:80"
GATE_IP, GATE2_IP, ECHO_IP = "127.0.0.7", "127.0.0.8", "127.0.0.9"
TO = Endpoint("10.96.0.9", 80)


def remote_mesh(*gates: str) -> Mesh:
    """A service whose endpoints are on another network, behind gateways at these addresses."""
    remote = replace(service("default/remote.default.svc.cluster.local", TO.ip), subject_alt_names=(ECHO,))
    return mesh(
        remote,
        workload("demo/client", CLIENT_IP),
        *(
            behind(
                workload(
                    f"default/remote-{number}",
                    network="elsewhere",
                    network_gateway=GatewayAddress(NetworkAddress("elsewhere", ip), 15009),
                ),
                remote,
            )
            for number, ip in enumerate(gates)
        ),
        *(
            workload(f"istio-system/gateway-{ip}", ip, network="elsewhere", service_account="gateway")
            for ip in gates
        ),
    )


class World(NamedTuple):
    """A plane, a gateway, and a server behind it that the test plays."""

    plane: Plane
    gateway: Gateway
    echo: RawServer

    def dial(self, said: bytes = b"") -> socket.socket:
        return self.plane.dial(*TO, said=said)

    def asked(self, count: int = 1) -> RawPeer:
        """Wait for `count` inner CONNECTs; return the tunnel that has the last."""
        self.plane.wait(lambda: sum(len(peer.requests) for peer in self.echo.peers) == count)
        return self.echo.peers[-1]


def gateway_at(plane: Plane, ip: str, identity: str, echo: RawServer) -> Gateway:
    made = Gateway(
        socket.create_server((ip, 0)),
        shared_ca().credentials(identity),
        {AUTHORITY: lambda: socket.create_connection((ECHO_IP, echo.port))},
    )
    plane.play(made)
    plane.routes[Endpoint(ip, 15009)] = made.port
    return made


def world(plane: Plane, inner: str = ECHO, outer: str = GATE) -> World:
    plane.mesh = remote_mesh(GATE_IP)
    echo = plane.serve_raw(shared_ca().credentials(inner), ECHO_IP)
    return World(plane, gateway_at(plane, GATE_IP, outer, echo), echo)


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


def opened(to: World, said: bytes = b"") -> tuple[socket.socket, RawPeer]:
    """Return the app's socket and the inner tunnel, whose CONNECT is answered."""
    near = to.dial(said)
    peer = to.asked()
    peer.wire.respond(
        peer.streams[0], 200, (("baggage", "k8s.namespace.name=default,k8s.deployment.name=echo"),)
    )
    to.plane.wait(lambda: all(relay.is_open for relay in to.plane.client.relays))  # type: ignore[attr-defined]
    return near, peer


def test_bytes_travel_through_both_tunnels_and_records_name_who_served(plane: Plane) -> None:
    to = world(plane)
    near, peer = opened(to)
    near.sendall(b"hello")
    plane.wait(lambda: peer.received == b"hello")
    peer.send(peer.streams[0], b"hello yourself")
    assert plane.receive(near, 14) == b"hello yourself"
    near.shutdown(socket.SHUT_WR)
    plane.wait(lambda: bool(peer.ended))
    peer.wire.end(peer.streams[0])
    record = plane.ended(1)[0]
    text = line(record, plane.now)
    assert f" dst.addr={GATE_IP}:15009 dst.hbone_addr={AUTHORITY} " in text
    assert (
        'dst.service="remote.default.svc.cluster.local" dst.workload="echo" dst.namespace="default"' in text
    )
    assert f'dst.identity="{ECHO}"' in text
    assert "bytes_sent=5 bytes_recv=14 " in text
    assert "error=" not in text
    (outer,) = plane.client.pool.tunnels()
    assert (record.tunnel, outer.peer) == (outer.id, GATE)


def test_the_inner_connect_names_our_network_and_the_outer_one_does_not(plane: Plane) -> None:
    to = world(plane)
    home = replace(plane.mesh.workloads[0], network="home")
    remote, *rest = plane.mesh.services
    plane.mesh = mesh(
        replace(remote, vips=(NetworkAddress("home", TO.ip),)), home, *plane.mesh.workloads[1:], *rest
    )
    to.dial()
    (inner,), (outer,) = to.asked().requests, to.gateway.requests
    assert inner.authority == outer.authority == AUTHORITY
    assert inner.headers.get("x-forwarded-network") == "home"
    assert outer.headers.get("x-forwarded-network") is None
    for request in (inner, outer):
        assert request.forwarded is not None
        assert request.forwarded.endswith(";host=remote.default.svc.cluster.local")
        assert request.baggage == plane.client.baggage


def test_the_outer_tunnel_is_shared_and_the_inner_one_is_not(plane: Plane) -> None:
    to = world(plane)
    for count in (1, 2):
        to.dial()
        to.asked(count)
    assert len(list(plane.client.pool.tunnels())) == 1
    assert [len(peer.requests) for peer in to.echo.peers] == [1, 1]


def test_half_close_travels_both_ways_and_leaves_nothing_behind(plane: Plane) -> None:
    to = world(plane)
    near, peer = opened(to)
    peer.send(peer.streams[0], b"bye", end=True)
    assert plane.receive(near, 4) == b"bye"
    assert plane.lines.ended_connections == []
    near.sendall(b"still here")
    plane.wait(lambda: peer.received == b"still here")
    near.close()
    plane.wait(lambda: bool(peer.ended))
    plane.ended(1)
    plane.wait(lambda: peer.is_cut)
    plane.wait(lambda: not plane.client.relays)
    (outer,) = plane.client.pool.tunnels()
    assert (outer.state, outer.wire.open_streams) == (State.OPEN, 0)
    assert plane.connections.totals.tunnels["client"].opened == 2
    assert plane.connections.totals.tunnels["client"].closed == 1


@pytest.mark.parametrize("direction", ["up", "down"])
def test_much_arrives_intact_however_slow_the_other_side(plane: Plane, direction: str) -> None:
    to = world(plane)
    near, peer = opened(to)
    data, stream = os.urandom(6 << 20), peer.streams[0]
    if direction == "up":
        near.setblocking(False)
        at = 0

        def push() -> bool:
            nonlocal at
            with contextlib.suppress(BlockingIOError):
                at += near.send(data[at : at + (1 << 18)])
            waiting = len(peer.received)
            peer.wire.credit(stream, stream.unread)
            return waiting == len(data)

        plane.wait(push, 30)
        assert peer.received == data
        near.close()
        plane.wait(lambda: bool(peer.ended))
        peer.wire.end(stream)
    else:
        at, got = 0, bytearray()
        near.setblocking(False)

        def pull() -> bool:
            nonlocal at
            while at < len(data) and (room := min(peer.wire.budget(stream), 1 << 16, len(data) - at)):
                peer.send(stream, data[at : at + room])
                at += room
            with contextlib.suppress(BlockingIOError):
                got.extend(near.recv(1 << 18))
            return len(got) == len(data)

        plane.wait(pull, 30)
        assert got == data
        peer.wire.end(stream)
        near.close()
    record = plane.ended(1)[0]
    assert (record.error, record.bytes_moved) == ("", len(data))


def test_a_reset_by_the_server_reaches_the_app(plane: Plane) -> None:
    to = world(plane)
    near, peer = opened(to)
    peer.wire.reset(peer.streams[0], ErrorCode.CANCEL)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert plane.ended(1)[0].error == "the peer reset the stream: CANCEL"
    plane.wait(lambda: not plane.client.relays)


def test_a_reset_by_the_app_reaches_the_server(plane: Plane) -> None:
    to = world(plane)
    near, peer = opened(to)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    near.close()
    plane.wait(lambda: peer.resets == {1: ErrorCode.CANCEL})
    plane.wait(lambda: not plane.client.relays)


def test_a_break_between_the_tunnels_reaches_the_app_with_its_reason(plane: Plane) -> None:
    to = world(plane)
    near, _ = opened(to)
    to.gateway.cut()
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == ("the peer reset the stream: INTERNAL_ERROR", "RESET")
    assert not plane.client.relays


def test_the_loss_of_the_outer_tunnel_reaches_the_app_with_its_reason(plane: Plane) -> None:
    to = world(plane)
    near, _ = opened(to)
    for tunnel in to.gateway.tunnels:
        tunnel.sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == (
        f"{GATE_IP}:15009 closed the tunnel under open streams", "TUNNEL_CLOSED",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("inner", "outer", "words"),
    [
        (spiffe("default", "impostor"), GATE, f"{AUTHORITY} presented {spiffe('default', 'impostor')}"),
        (ECHO, spiffe("default", "impostor"), f"{GATE_IP}:15009 presented {spiffe('default', 'impostor')}"),
    ],
    ids=["server", "gateway"],
)
def test_nothing_is_said_to_who_is_not_who_it_should_be(
    plane: Plane, inner: str, outer: str, words: str
) -> None:
    to = world(plane, inner, outer)
    near = to.dial(b"secret")
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert record.reason == "TLS_FAILURE"
    assert words in record.error
    assert record.bytes_sent == 0
    assert not any(peer.received for peer in to.echo.peers)
    assert record.peers is not None
    assert record.peers.destination_identity is None
    plane.wait(lambda: not plane.client.relays)


@pytest.mark.parametrize(("status", "reason"), [(401, "PEER_DENY"), (404, "CONNECT"), (503, "CONNECT")])
def test_a_refusal_of_the_gateway_is_the_apps(plane: Plane, status: int, reason: str) -> None:
    to = world(plane)
    to.gateway.status = status
    near = to.dial()
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == (f"http status: {status}", reason)
    assert len(to.gateway.requests) == 1
    assert not plane.client.relays


@pytest.mark.parametrize("status", [401, 503])
def test_a_refusal_of_the_server_is_the_apps(plane: Plane, status: int) -> None:
    to = world(plane)
    near = to.dial()
    peer = to.asked()
    peer.wire.respond(peer.streams[0], status, end=True)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert plane.ended(1)[0].error == f"http status: {status}"
    plane.wait(lambda: not plane.client.relays)


def test_another_gateway_is_tried_when_one_does_not_answer(plane: Plane) -> None:
    to = world(plane)
    plane.mesh = remote_mesh(GATE2_IP, GATE_IP)
    plane.routes[Endpoint(GATE2_IP, 15009)] = 1
    for count in range(1, 9):
        to.dial()
        to.asked(count)
    assert plane.connections.totals.balancing.retries > 0
    assert plane.lines.ended_connections == []


def test_a_stream_that_the_gateway_did_not_begin_with_is_tried_once_more(plane: Plane) -> None:
    to = world(plane)
    plane.routes[Endpoint(GATE_IP, 15009)] = (
        server := plane.serve_raw(shared_ca().credentials(GATE), GATE_IP)
    ).port
    to.dial()
    plane.wait(lambda: sum(len(peer.requests) for peer in server.peers) == 1)
    server.peers[0].wire.reset(server.peers[0].streams[0], ErrorCode.REFUSED_STREAM)
    plane.wait(lambda: sum(len(peer.requests) for peer in server.peers) == 2)


@pytest.mark.parametrize("stage", ["outer", "handshake", "inner", "open"])
def test_an_app_that_leaves_leaves_nothing_behind(plane: Plane, stage: str) -> None:
    to = world(plane)
    if stage == "outer":
        plane.routes[Endpoint(GATE_IP, 15009)] = plane.keep(socket.create_server((GATE_IP, 0))).getsockname()[
            1
        ]
    to.echo.is_mute = stage == "handshake"
    near = to.dial()
    if stage == "handshake":
        plane.wait(lambda: bool(to.gateway.requests))
        plane.settle()
    elif stage != "outer":
        peer = to.asked()
        if stage == "open":
            peer.wire.respond(peer.streams[0], 200)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    near.close()
    plane.ended(1)
    to.echo.is_mute = False
    plane.wait(lambda: not any(isinstance(each, OutboundStream) for each in plane.client.relays))


def test_a_server_that_says_nothing_is_given_up(plane: Plane) -> None:
    to = world(plane)
    to.echo.is_mute = True
    near = to.dial()
    plane.wait(lambda: bool(to.gateway.requests))
    plane.settle()
    plane.advance(10.1)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert "TLS and HTTP/2 handshake took longer" in plane.ended(1)[0].error


def test_the_end_of_the_straw_is_the_end_of_both(plane: Plane) -> None:
    to = world(plane)
    near, _ = opened(to)
    plane.client_straw.close("the pod is gone")
    assert plane.ended(1)[0].error == "the pod is gone"
    assert not plane.client.relays
    assert list(plane.client.pool.tunnels()) == []
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)


def test_without_descriptors_for_the_inner_tunnel_it_is_refused(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = world(plane)

    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("zproxy.proxy.double.socket.socketpair", none_left)
    near = to.dial()
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == (
        "no socket pair for a tunnel inside a tunnel: Too many open files", "LIMIT",
    )  # fmt: skip
    assert not plane.client.relays
    assert plane.connections.totals.balancing.retries == 0
