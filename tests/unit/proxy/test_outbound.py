"""What becomes of a connection that the pod's app makes."""

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from h2.settings import SettingCodes

from tests.support.ca import SERVER, shared_ca
from tests.support.mesh import mesh, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from tests.support.raw import RawPeer, RawServer
from zproxy.config import Deadlines, Limits
from zproxy.errors import IdentityError
from zproxy.hbone.tunnel import LARGEST_PUSH, State
from zproxy.identity.certificate import Certificate
from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction, Flag, flag_of
from zproxy.model.settings import OutboundPolicy, Settings
from zproxy.model.workload import Protocol
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode


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


def played(plane: Plane, limits: Limits = Limits()) -> RawServer:  # noqa: B008 - immutable
    """Put a server that the test plays in the place of the server pod's."""
    server = plane.serve_raw(shared_ca().credentials(SERVER), SERVER_IP, limits)
    plane.routes[Endpoint(SERVER_IP, 15008)] = server.port
    return server


def requested(plane: Plane, server: RawServer, count: int = 1) -> RawPeer:
    """Wait for `count` CONNECTs, and return the tunnel that has the last one."""
    plane.wait(lambda: sum(len(peer.requests) for peer in server.peers) == count)
    return server.peers[-1]


def test_a_connect_says_where_to_and_for_whom(plane: Plane) -> None:
    server = played(plane)
    near = plane.dial()
    (request,) = requested(plane, server).requests
    assert request.authority == f"{SERVER_IP}:8080"
    assert request.forwarded == f'for="{CLIENT_IP}:{near.getsockname()[1]}"'
    assert request.baggage == plane.client.baggage
    assert "k8s.pod.name=client" in request.baggage
    assert request.traceparent is not None
    version, trace, span, flags = request.traceparent.split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "00")


def test_every_connection_has_a_trace_of_its_own(plane: Plane) -> None:
    server = played(plane)
    for _ in range(2):
        plane.dial()
    requests = requested(plane, server, 2).requests
    assert len({request.traceparent for request in requests}) == 2


def warm(plane: Plane) -> RawServer:
    """Return a played server that has accepted a tunnel and answered a stream on it."""
    server = played(plane)
    plane.dial()
    peer = requested(plane, server)
    peer.wire.respond(peer.streams[0], 200)
    plane.wait(lambda: all(tunnel.wire.is_ready for tunnel in plane.client.pool.tunnels()))
    return server


def test_what_the_app_has_said_goes_along_with_its_connect_and_the_rest_waits(plane: Plane) -> None:
    server = warm(plane)
    near = plane.dial(said=b"early")
    peer = requested(plane, server, 2)
    plane.settle()
    assert peer.received == b"early"
    near.sendall(b", late")
    plane.settle()
    assert peer.received == b"early"
    peer.wire.respond(peer.streams[1], 200)
    plane.wait(lambda: peer.received == b"early, late")
    near.close()
    plane.wait(lambda: bool(peer.ended))
    peer.wire.end(peer.streams[1])
    assert plane.ended(1)[0].bytes_sent == len(b"early, late")


def test_no_byte_of_the_app_leaves_before_both_ends_have_accepted_the_tunnel(plane: Plane) -> None:
    server = played(plane)
    plane.dial(said=b"secret")
    peer = requested(plane, server)
    plane.settle()
    assert peer.received == b""
    peer.wire.respond(peer.streams[0], 200)
    plane.wait(lambda: peer.received == b"secret")


def test_an_app_that_says_more_before_the_answer_is_not_asked_again_and_again(plane: Plane) -> None:
    server = warm(plane)
    near = plane.dial(said=b"early")
    peer = requested(plane, server, 2)
    near.sendall(b", late")
    plane.settle()
    poller = plane.worker.poller
    assert not select.select([poller.fileno()], [], [], 0)[0], "the poller has nothing to do"
    peer.wire.respond(peer.streams[1], 200)
    plane.wait(lambda: peer.received == b"early, late")


def test_what_goes_along_is_at_most_a_frame(plane: Plane) -> None:
    server = warm(plane)
    plane.dial(said=bytes(100_000))
    peer = requested(plane, server, 2)
    plane.settle()
    assert 0 < len(peer.received) <= LARGEST_PUSH
    peer.wire.respond(peer.streams[1], 200)
    plane.wait(lambda: len(peer.received) == 100_000)


def test_an_app_that_ends_before_the_answer_ends_after_it(plane: Plane) -> None:
    server = warm(plane)
    near = plane.dial(said=b"all of it")
    near.shutdown(socket.SHUT_WR)
    peer = requested(plane, server, 2)
    plane.settle()
    peer.wire.respond(peer.streams[1], 200)
    plane.wait(lambda: bool(peer.ended))
    assert peer.received == b"all of it"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "PEER_DENY"), (400, "CONNECT"), (404, "CONNECT"), (503, "CONNECT"), (201, "CONNECT")],
)
def test_any_answer_but_200_breaks_the_apps_connection(plane: Plane, status: int, reason: str) -> None:
    server = played(plane)
    near = plane.dial()
    peer = requested(plane, server)
    near.sendall(b"unsaid")
    peer.wire.respond(peer.streams[0], status, end=True)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason, record.bytes_sent) == (f"http status: {status}", reason, 0)
    assert peer.received == b""


def test_an_answer_that_does_not_come_is_given_up(plane: Plane) -> None:
    server = played(plane)
    near = plane.dial()
    peer = requested(plane, server)
    plane.advance(14.9)
    assert plane.lines.ended_connections == []
    plane.advance(0.1)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == ("CONNECT reply took longer than 15 s", "TIMEOUT")
    plane.wait(lambda: peer.resets == {1: ErrorCode.CANCEL})


def test_a_stream_that_the_peer_refused_is_tried_once_more_from_its_first_byte(plane: Plane) -> None:
    server = warm(plane)
    near = plane.dial(said=b"said once, ")
    peer = requested(plane, server, 2)
    plane.wait(lambda: peer.received == b"said once, ")
    peer.wire.reset(peer.streams[1], ErrorCode.REFUSED_STREAM)
    requested(plane, server, 3)
    assert peer.requests[1].authority == peer.requests[2].authority
    peer.wire.respond(peer.streams[2], 200)
    near.sendall(b"heard once")
    plane.wait(lambda: peer.data.get(peer.streams[2].id, b"") == b"said once, heard once")


def test_a_second_tunnel_without_room_for_what_was_said_is_the_end(plane: Plane) -> None:
    server = warm(plane)
    near = plane.dial(said=b"said")
    peer = requested(plane, server, 2)
    plane.wait(lambda: peer.received == b"said")
    shut = SettingCodes.INITIAL_WINDOW_SIZE.to_bytes(2, "big") + bytes(4)
    peer.send_raw(frames.head(6, frames.SETTINGS, 0, 0) + shut)
    peer.wire.reset(peer.streams[1], ErrorCode.REFUSED_STREAM)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert "no room for it" in plane.ended(1)[0].error


def test_a_second_refusal_is_an_answer(plane: Plane) -> None:
    server = played(plane)
    near = plane.dial()
    for count in (1, 2):
        peer = requested(plane, server, count)
        peer.wire.reset(peer.streams[-1], ErrorCode.REFUSED_STREAM)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == ("the peer reset the stream: REFUSED_STREAM", "RESET")
    plane.settle()
    assert len(peer.requests) == 2


def test_any_other_reset_is_not_tried_again(plane: Plane) -> None:
    server = played(plane)
    near = plane.dial()
    peer = requested(plane, server)
    peer.wire.reset(peer.streams[0], ErrorCode.INTERNAL_ERROR)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert plane.ended(1)[0].error == "the peer reset the stream: INTERNAL_ERROR"
    assert len(peer.requests) == 1


@pytest.mark.parametrize("size", [0, 7, 3 << 20])
def test_an_answer_that_is_complete_survives_the_reset_of_the_rest(plane: Plane, size: int) -> None:
    """RFC 9113 8.1: NO_ERROR after END_STREAM only says that nothing more is wanted of us."""
    server = played(plane)
    near = plane.dial()
    peer = requested(plane, server)
    stream = peer.streams[0]
    peer.wire.respond(stream, 200)
    plane.wait(lambda: all(relay.is_open for relay in plane.client.relays))  # type: ignore[attr-defined] # streams all
    answer = os.urandom(size)
    for at in range(0, size, 1 << 19):
        peer.send(stream, answer[at : at + (1 << 19)])
    peer.wire.end(stream)
    peer.wire.reset(stream, ErrorCode.NO_ERROR)
    assert plane.receive(near, size + 1) == answer
    record = plane.ended(1)[0]
    assert (record.state, record.bytes_recv, record.error) == ("closed", size, "")
    assert not plane.client.relays


def test_the_same_reset_before_the_end_is_a_break(plane: Plane) -> None:
    server = played(plane)
    near = plane.dial()
    peer = requested(plane, server)
    peer.wire.respond(peer.streams[0], 200)
    peer.wire.reset(peer.streams[0], ErrorCode.NO_ERROR)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert plane.ended(1)[0].error == "the peer reset the stream: NO_ERROR"


def test_streams_that_a_goaway_disowns_go_to_another_tunnel(plane: Plane) -> None:
    server = played(plane)
    for _ in range(2):
        plane.dial()
    first = requested(plane, server, 2)
    first.send_raw(frames.head(8, frames.GOAWAY, 0, 0) + bytes(8))  # last stream 0: none was touched
    second = requested(plane, server, 4)
    assert (len(server.peers), len(second.requests)) == (2, 2)
    plane.wait(lambda: first.is_cut)
    for stream in second.streams:
        second.wire.respond(stream, 200)
    plane.wait(lambda: all(relay.is_open for relay in plane.client.relays))  # type: ignore[attr-defined] # streams all


def test_a_tunnel_that_refused_its_last_stream_falls_idle_while_another_serves_it() -> None:
    with closing(Plane(deadlines=Deadlines(pool_idle_s=20))) as plane:
        server = played(plane)
        plane.dial()
        first = requested(plane, server)
        plane.worker.sweep()
        no_more = SettingCodes.MAX_CONCURRENT_STREAMS.to_bytes(2, "big") + bytes(4)
        first.send_raw(frames.head(6, frames.SETTINGS, 0, 0) + no_more)
        first.wire.reset(first.streams[0], ErrorCode.REFUSED_STREAM)
        second = requested(plane, server, 2)
        assert second is not first
        second.wire.respond(second.streams[0], 200)
        for _ in range(2):
            plane.advance(11.0)
            plane.settle()
        plane.wait(lambda: first.is_cut)
        assert not second.is_cut


def test_a_peer_with_a_low_limit_gets_one_tunnel_per_so_many_streams(plane: Plane) -> None:
    server = played(plane, Limits(max_streams_server=2, max_streams_unaware=2))
    plane.dial()
    peer = requested(plane, server)
    peer.wire.respond(peer.streams[0], 200)
    for _ in range(4):
        plane.dial()
    requested(plane, server, 5)
    assert sorted(len(peer.requests) for peer in server.peers) == [1, 2, 2]


def test_a_place_that_becomes_free_serves_a_waiting_connection(plane: Plane) -> None:
    server = played(plane, Limits(max_streams_server=1, max_streams_unaware=1))
    near = plane.dial()
    first = requested(plane, server)
    first.wire.respond(first.streams[0], 200)
    plane.routes[Endpoint(SERVER_IP, 15008)] = silent(plane)
    plane.dial()
    plane.settle()
    near.close()
    first.wire.end(first.streams[0])
    requested(plane, server, 2)


def silent(plane: Plane) -> int:
    """Return a port where connections are taken and never answered."""
    return int(plane.keep(socket.create_server((SERVER_IP, 0))).getsockname()[1])


def test_an_app_that_gives_up_while_it_waits_leaves_the_tunnel_to_others(plane: Plane) -> None:
    server = played(plane)
    server.is_mute = True
    near, other = plane.dial(), plane.dial()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    near.close()
    plane.ended(1)
    server.is_mute = False
    requested(plane, server)
    assert server.peers[0].requests[0].forwarded == f'for="{CLIENT_IP}:{other.getsockname()[1]}"'
    record = plane.ended(1)[0]
    assert "Connection reset by peer" in record.error


def test_an_app_that_ends_before_the_answer_is_heard_to_the_end(plane: Plane) -> None:
    server = played(plane)
    near = plane.dial()
    near.sendall(b"all at once")
    near.shutdown(socket.SHUT_WR)
    peer = requested(plane, server)
    peer.wire.respond(peer.streams[0], 200)
    plane.wait(lambda: peer.ended == {1})
    assert peer.received == b"all at once"
    peer.send(peer.streams[0], b"thanks", end=True)
    assert plane.receive(near, 100) == b"thanks"
    assert plane.ended(1)[0].error == ""


def test_an_identity_without_a_certificate_carries_nothing(plane: Plane) -> None:
    def current() -> Certificate:
        raise IdentityError("the CA is not available")

    plane.client.certificates.current = current  # type: ignore[method-assign]
    near = plane.dial()
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == ("the CA is not available", "IDENTITY")


def test_a_loopback_port_of_the_mesh_is_no_target_either(plane: Plane) -> None:
    for port in ports.ILLEGAL:
        with pytest.raises(ConnectionResetError):
            plane.receive(plane.dial("127.0.0.1", port), 1)
    assert {record.reason for record in plane.ended(3)} == {"DENY"}


def test_registry_only_resets_an_unknown_destination_with_a_line_and_a_counter() -> None:
    with closing(Plane(settings=Settings(OutboundPolicy.REGISTRY_ONLY))) as plane:
        outside = plane.keep(socket.create_server(("127.0.0.3", 0)))
        plane.mesh = mesh(*plane.mesh.workloads)
        plane.routes[Endpoint("192.0.2.1", 80)] = outside.getsockname()[1]
        with pytest.raises(ConnectionResetError):
            plane.receive(plane.dial("192.0.2.1", 80), 1)
        record = plane.ended(1)[0]
        assert record.reason == "DENY"
        assert record.error == "192.0.2.1:80 is no part of the mesh, and the outbound policy is registry_only"
        assert plane.connections.totals.early == {(Direction.OUTBOUND, "DENY"): 1}
        near, far = plane.pair()
        near.sendall(b"in the mesh")
        assert plane.receive(far, 11) == b"in the mesh"


def test_http_2_that_never_begins_has_a_flag_of_its_own(plane: Plane) -> None:
    server = played(plane)
    near = plane.dial()
    server_preface(plane, server)
    plane.advance(10.0)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert flag_of(record.reason) is Flag.H2_HANDSHAKE_FAILURE
    assert "TLS and HTTP/2 handshake took longer than 10 s" in record.error
    assert plane.connections.totals.tunnels["client"].failed == {Flag.H2_HANDSHAKE_FAILURE: 1}


def server_preface(plane: Plane, server: RawServer) -> None:
    """Let TLS come up and keep the server's SETTINGS back."""

    def is_up() -> bool:
        for peer in server.peers:
            peer.holds_preface = True
        return any(tunnel.state is State.OPEN for tunnel in plane.client.pool.tunnels())

    plane.wait(is_up)
