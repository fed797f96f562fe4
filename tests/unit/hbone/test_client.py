"""The dialling end: whom it trusts, and that nobody else gets a byte."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.support.ca import SERVER, SpiffeCa, shared_ca, spiffe
from tests.support.plane import SERVER_IP, Plane
from tests.support.raw import RawServer
from zproxy.config import Deadlines, Limits
from zproxy.errors import TlsFailed
from zproxy.hbone.client import connect_error
from zproxy.hbone.tunnel import State
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction, Flag, flag_of
from zproxy.model.credentials import Credentials
from zproxy.net.sockets import close_with_reset
from zproxy.observe.connections import Connection


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


def of_another_ca() -> Credentials:
    return SpiffeCa("other").credentials(SERVER, roots=shared_ca().roots)


def of_another_identity() -> Credentials:
    return shared_ca().credentials(spiffe("demo", "billing"))


def expired() -> Credentials:
    return shared_ca().expired(SERVER)


def nameless() -> Credentials:
    return shared_ca().credentials()


@pytest.mark.parametrize(
    ("credentials", "sentence"),
    [
        (of_another_ca, "unknown"),
        (of_another_identity, "presented spiffe://cluster.local/ns/demo/sa/billing; expected spiffe://"),
        (expired, "expired"),
        (nameless, "no SPIFFE identity; expected"),
    ],
)
def test_a_server_that_is_not_the_expected_one_gets_no_stream(
    credentials: Callable[[], Credentials], sentence: str
) -> None:
    with closing(Plane(server_credentials=credentials())) as plane:
        app = plane.serve()
        near = plane.dial()
        near.sendall(b"secret")
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1)
        record = next(c for c in plane.ended(1) if c.direction is Direction.OUTBOUND)
        assert record.reason == "TLS_FAILURE"
        assert sentence in record.error
        assert (record.bytes_sent, record.bytes_recv) == (0, 0)
        assert list(plane.client.pool.tunnels()) == []
        app.settimeout(0)
        with pytest.raises(BlockingIOError):
            app.accept()


def test_a_goaway_moves_new_streams_to_another_tunnel() -> None:
    with closing(Plane()) as plane:
        near, far = plane.pair(8080)
        first = next(iter(plane.client.pool.tunnels()))
        next(iter(plane.server.tunnels)).drain()
        plane.wait(lambda: first.wire.is_draining)
        again, again_far = plane.pair(8081)
        assert len(list(plane.client.pool.tunnels())) == 2
        for one, other in ((near, far), (again, again_far)):
            one.sendall(b"still here")
            assert plane.receive(other, 10) == b"still here"
        near.close()
        far.close()
        plane.wait(lambda: first.state is State.CLOSED)


def test_a_burst_on_a_cold_tunnel_keeps_to_the_limit_that_the_server_is_about_to_tell() -> None:
    with closing(Plane(limits=Limits(max_streams_server=2, max_streams_unaware=2))) as plane:
        plane.serve()
        plane.client.sockets.destination = Endpoint(SERVER_IP, 8080)  # type: ignore[attr-defined]
        for _ in range(6):
            plane.keep(socket.create_connection(("127.0.0.1", plane.outbound_port)))
        plane.wait(lambda: sum(tunnel.wire.open_streams for tunnel in plane.server.tunnels) == 6)
        assert [tunnel.wire.open_streams for tunnel in plane.server.tunnels] == [2, 2, 2]
        assert plane.connections.totals.failed == 0


def test_one_stream_is_asked_for_before_the_server_has_said_anything(plane: Plane) -> None:
    server = played(plane)
    server.is_mute = True
    plane.dial()
    plane.dial()
    (tunnel,) = plane.client.pool.tunnels()
    server.is_mute = False
    plane.wait(lambda: tunnel.state is State.OPEN)
    server.is_mute = True  # its TLS is done, and it sends nothing more
    plane.settle()
    assert (tunnel.room, tunnel.is_opening, tunnel.wire.open_streams) == (0, True, 1)
    server.is_mute = False
    plane.wait(lambda: tunnel.wire.open_streams == 2)
    assert (tunnel.room, tunnel.is_opening) == (plane.worker.limits.max_streams_client - 2, False)


def test_an_idle_tunnel_is_closed_after_a_while() -> None:
    with closing(Plane(deadlines=Deadlines(pool_idle_s=300))) as plane:
        near, far = plane.pair()
        near.close()
        far.close()
        plane.ended(2)
        tunnel = next(iter(plane.client.pool.tunnels()))
        now = plane.worker.poller.clock()
        tunnel.on_tick(now + 299)
        assert tunnel.state.value == "open"
        tunnel.on_tick(now + 301)
        assert tunnel.state.value == "closed"
        plane.wait(lambda: not plane.server.tunnels)


def test_errors_name_their_likely_cause() -> None:
    assert "nothing listens there" in connect_error("10.0.0.1:15008", 111)
    assert connect_error("10.0.0.1:15008", 5) == "connect to 10.0.0.1:15008 failed: Input/output error"


def played(plane: Plane, credentials: Credentials | None = None) -> RawServer:
    """Put a server that the test plays in the place of the server pod's."""
    server = plane.serve_raw(credentials or shared_ca().credentials(SERVER), SERVER_IP)
    plane.routes[Endpoint(SERVER_IP, 15008)] = server.port
    return server


def failure(plane: Plane, near: socket.socket) -> Connection:
    """Expect the app's connection to be reset, and return its record."""
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    return plane.ended(1)[0]


@pytest.mark.parametrize("credentials", [of_another_ca, of_another_identity, expired, nameless])
def test_a_wrong_server_that_would_take_anything_sees_no_request_and_no_byte(
    plane: Plane, credentials: Callable[[], Credentials]
) -> None:
    server = played(plane, credentials())
    near = plane.dial()
    near.sendall(b"secret")
    record = failure(plane, near)
    assert (record.reason, record.bytes_sent) == ("TLS_FAILURE", 0)
    (peer,) = server.peers
    plane.wait(lambda: peer.is_cut)
    assert (peer.requests, peer.received) == ([], b"")


def test_a_server_that_does_not_know_our_ca_is_reported_as_that(plane: Plane) -> None:
    credentials = shared_ca().credentials(SERVER, roots=SpiffeCa("other").roots)
    server = played(plane, credentials)
    near = plane.dial()
    near.sendall(b"secret")
    record = failure(plane, near)
    assert record.reason == "TLS_FAILURE"
    assert "the peer refused our certificate: it does not know the CA that signed it" in record.error
    assert server.peers[0].received == b""


def test_one_of_several_identities_is_enough(plane: Plane) -> None:
    server = played(plane, shared_ca().credentials(spiffe("demo", "billing"), SERVER))
    plane.dial()
    plane.wait(lambda: bool(server.peers) and len(server.peers[0].requests) == 1)


def test_a_server_that_is_silent_in_the_handshake_is_given_up(plane: Plane) -> None:
    server = played(plane)
    server.is_mute = True
    near = plane.dial()
    plane.settle()
    plane.advance(9.5)
    assert plane.lines.ended_connections == []
    plane.advance(0.5)
    record = failure(plane, near)
    assert record.reason == "TLS_FAILURE"
    assert record.error == "127.0.0.2:15008: TLS and HTTP/2 handshake took longer than 10 s"


def test_an_address_that_does_not_answer_is_given_up(plane: Plane) -> None:
    full = plane.keep(socket.create_server((SERVER_IP, 0), backlog=0))
    for _ in range(2):
        stuffing = plane.keep(socket.socket())
        stuffing.setblocking(False)
        stuffing.connect_ex(full.getsockname())
    plane.routes[Endpoint(SERVER_IP, 15008)] = full.getsockname()[1]
    near = plane.dial()
    plane.settle()
    plane.advance(10.0)
    record = failure(plane, near)
    assert flag_of(record.reason) is Flag.NETWORK_POLICY
    assert record.error == (
        "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: 127.0.0.2 did not answer"
    )


def test_a_server_that_leaves_in_the_handshake_is_a_tls_failure(plane: Plane) -> None:
    server = plane.keep(socket.create_server((SERVER_IP, 0)))
    plane.routes[Endpoint(SERVER_IP, 15008)] = server.getsockname()[1]
    near = plane.dial()
    far = plane.accept(server)
    assert plane.receive(far, 5)[:3] == b"\x16\x03\x01"
    far.shutdown(socket.SHUT_WR)
    record = failure(plane, near)
    assert record.reason == "TLS_FAILURE"
    assert record.error == "127.0.0.2:15008 closed the connection during the TLS handshake"


def test_a_server_without_tls_is_named_as_that(plane: Plane) -> None:
    server = plane.keep(socket.create_server((SERVER_IP, 0)))
    plane.routes[Endpoint(SERVER_IP, 15008)] = server.getsockname()[1]
    near = plane.dial()
    plane.accept(server).sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    record = failure(plane, near)
    assert (record.reason, record.error) == (
        "TLS_FAILURE",
        "TLS failed: the peer does not speak TLS on this port",
    )


def test_a_draining_tunnel_takes_no_stream_and_closes_with_its_last_one(plane: Plane) -> None:
    near, far = plane.pair(8080)
    (tunnel,) = plane.client.pool.tunnels()
    plane.wait(lambda: tunnel.wire.is_ready)
    assert tunnel.room == plane.worker.limits.max_streams_client - 1
    tunnel.drain()
    assert tunnel.room == 0
    plane.pair(8081)
    assert len(list(plane.client.pool.tunnels())) == 2
    near.sendall(b"to the end")
    assert plane.receive(far, 10) == b"to the end"
    near.close()
    far.close()
    plane.wait(lambda: tunnel.state is State.CLOSED)
    assert [record.error for record in plane.ended(2)] == ["", ""]


def test_why_it_failed_is_not_forgotten_when_the_peer_has_gone(plane: Plane) -> None:
    server = played(plane)
    plane.dial()
    plane.wait(lambda: bool(server.peers) and len(server.peers[0].requests) == 1)
    (tunnel,) = plane.client.pool.tunnels()
    close_with_reset(server.peers[0].sock)
    server.peers.clear()
    tunnel.wire.goaway()
    tunnel.fail(TlsFailed("the certificate was revoked"))
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == ("the certificate was revoked", "TLS_FAILURE")
