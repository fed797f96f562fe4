"""What becomes of a CONNECT that reaches the pod."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.support.ca import CLIENT, SERVER, SpiffeCa, shared_ca, spiffe
from tests.support.mesh import mesh, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from tests.support.raw import RawPeer
from zproxy.config import Limits
from zproxy.errors import IdentityError
from zproxy.identity.certificate import Certificate
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.credentials import Credentials
from zproxy.net.sockets import close_with_reset
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode
from zproxy.wire.hpack_blocks import literal
from zproxy.wire.stream import Stream


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
    with closing(Plane(limits=Limits(pending_handshakes=2))) as plane:
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


def client(plane: Plane, credentials: Credentials | None = None) -> RawPeer:
    """Dial the server pod's 15008 with a client that the test plays."""
    credentials = credentials or shared_ca().credentials(CLIENT)
    return plane.dial_raw(Endpoint(SERVER_IP, plane.hbone_port), credentials, CLIENT_IP)


def ask(plane: Plane, authority: str) -> tuple[RawPeer, Stream]:
    """Send one CONNECT over a tunnel of its own."""
    peer = client(plane)
    plane.wait(lambda: peer.wire.is_ready)
    return peer, peer.request(authority)


@pytest.mark.parametrize(
    ("authority", "status", "reason", "sentence"),
    [
        ("127.0.0.9:8080", 400, "DENY", "ip mismatch: 127.0.0.2 != 127.0.0.9"),
        ("127.0.0.2:15001", 503, "CONNECT", "attempted recursive call to ourselves: 127.0.0.2:15001"),
        ("127.0.0.2:15006", 503, "CONNECT", "attempted recursive call to ourselves: 127.0.0.2:15006"),
        ("127.0.0.2:15008", 503, "CONNECT", "attempted recursive call to ourselves: 127.0.0.2:15008"),
        ("web.demo.svc:80", 503, "CONNECT", "no service or workload for hostname: 'web.demo.svc:80'"),
        ("[::1:80", 400, "DENY", "invalid CONNECT address"),
        ("127.0.0.2:4444", 503, "CONNECT", "connect to 127.0.0.2:4444 failed: Connection refused"),
    ],
)
def test_what_may_not_pass_is_answered_and_written_down(
    plane: Plane, authority: str, status: int, reason: str, sentence: str
) -> None:
    peer, stream = ask(plane, authority)
    plane.wait(lambda: stream.id in peer.answers and stream.is_closed)
    assert peer.answers[stream.id][0] == status
    assert peer.resets in ({}, {stream.id: ErrorCode.NO_ERROR})
    record = plane.ended(1)[0]
    assert (record.reason, record.hbone_addr) == (reason, authority)
    assert sentence in record.error
    assert plane.server.relays == set()


def test_a_refusal_leaves_the_tunnel_to_the_next_stream(plane: Plane) -> None:
    app = plane.serve()
    peer, refused_stream = ask(plane, "127.0.0.9:8080")
    plane.wait(lambda: refused_stream.id in peer.answers)
    stream = peer.request("127.0.0.2:8080")
    far = plane.accept(app)
    peer.wire.budget(stream)
    plane.wait(lambda: peer.answers.get(stream.id, (0,))[0] == 200)
    peer.send(stream, b"fine")
    assert plane.receive(far, 4) == b"fine"


def test_a_request_that_is_no_connect_is_refused(plane: Plane) -> None:
    peer = client(plane)
    plane.wait(lambda: peer.wire.is_ready)
    block = literal(":method", "GET") + literal(":authority", "127.0.0.2:8080") + literal(":path", "/")
    stream = peer.wire.open_stream(block)
    plane.wait(lambda: stream.id in peer.answers)
    assert peer.answers[stream.id][0] == 400
    record = plane.ended(1)[0]
    assert (record.reason, record.error) == ("DENY", "expected method CONNECT")


def test_the_answer_carries_the_servers_labels(plane: Plane) -> None:
    app = plane.serve()
    peer, stream = ask(plane, "127.0.0.2:8080")
    plane.accept(app)
    plane.wait(lambda: stream.id in peer.answers)
    status, headers = peer.answers[stream.id]
    assert (status, headers.get("baggage")) == (200, plane.server.baggage)


def test_the_record_shows_who_the_client_proved_to_be_not_who_it_says(plane: Plane) -> None:
    app = plane.serve()
    peer = client(plane, shared_ca().credentials(spiffe("demo", "billing")))
    plane.wait(lambda: peer.wire.is_ready)
    peer.request("127.0.0.2:8080")
    plane.accept(app)
    (row,) = plane.connections.rows(plane.now)
    assert row["src_identity"] == "spiffe://cluster.local/ns/demo/sa/billing"
    assert row["dst_identity"] == SERVER


def test_what_a_client_sends_before_the_app_is_up_waits_for_it(plane: Plane) -> None:
    app = plane.serve()
    peer, stream = ask(plane, "127.0.0.2:8080")
    peer.send(stream, b"early", end=True)
    far = plane.accept(app)
    assert plane.receive(far, 100) == b"early"
    far.sendall(b"late")
    far.close()
    plane.wait(lambda: stream.id in peer.ended)
    assert peer.received == b"late"
    assert plane.ended(1)[0].error == ""


def test_a_client_that_resets_before_the_app_is_up_costs_nothing(plane: Plane) -> None:
    plane.serve()
    peer, stream = ask(plane, "127.0.0.2:8080")
    peer.wire.reset(stream, ErrorCode.CANCEL)
    record = plane.ended(1)[0]
    assert record.error == "the peer reset the stream: CANCEL"
    assert plane.server.relays == set()


def test_streams_beyond_the_limit_are_refused_and_may_be_tried_again() -> None:
    with closing(Plane(limits=Limits(max_streams_server=2))) as plane:
        app = plane.serve()
        peer = client(plane)
        plane.wait(lambda: peer.wire.is_ready)
        plane.settle()  # our acknowledgement is there
        peer.wire._link.peer_max_streams = 3
        streams = [peer.request("127.0.0.2:8080") for _ in range(3)]
        for _ in range(2):
            plane.accept(app)
        plane.wait(lambda: peer.resets == {streams[2].id: ErrorCode.REFUSED_STREAM})
        record = plane.ended(1)[0]
        assert (record.reason, record.error) == ("LIMIT", "2 streams are open on this tunnel already")


def test_a_burst_before_the_limit_is_known_is_served_within_a_wider_one() -> None:
    with closing(Plane(limits=Limits(max_streams_server=2, max_streams_unaware=4))) as plane:
        app = plane.serve()
        peer = client(plane)
        plane.wait(lambda: peer.is_secured)
        streams = [peer.request("127.0.0.2:8080") for _ in range(5)]
        for _ in range(4):
            plane.accept(app)
        plane.wait(lambda: peer.resets == {streams[4].id: ErrorCode.REFUSED_STREAM})


def of_another_ca() -> Credentials:
    return SpiffeCa("other").credentials(CLIENT, roots=shared_ca().roots)


def of_another_trust_domain() -> Credentials:
    return shared_ca().credentials(spiffe("demo", "client", "elsewhere.example"))


def nameless() -> Credentials:
    return shared_ca().credentials()


@pytest.mark.parametrize("credentials", [of_another_ca, of_another_trust_domain, nameless])
def test_a_client_that_is_refused_gives_its_handshake_slot_back(
    credentials: Callable[[], Credentials],
) -> None:
    with closing(Plane(limits=Limits(pending_handshakes=1))) as plane:
        for count in range(1, 4):
            client(plane, credentials())
            records = plane.ended(count)
        assert {(record.reason, record.peers) for record in records} == {("TLS_FAILURE", None)}
        peer = client(plane)
        plane.wait(lambda: peer.wire.is_ready)


def leave(peer: RawPeer, plane: Plane) -> None:
    peer.close()


def be_slow(peer: RawPeer, plane: Plane) -> None:
    plane.advance(10.0)


def speak_no_tls(peer: RawPeer, plane: Plane) -> None:
    peer.sock.send(b"GET / HTTP/1.1\r\n\r\n")


def break_off(peer: RawPeer, plane: Plane) -> None:
    close_with_reset(peer.sock)


@pytest.mark.parametrize("misbehave", [leave, be_slow, speak_no_tls, break_off])
def test_a_handshake_that_ends_in_any_way_gives_its_slot_back(
    misbehave: Callable[[RawPeer, Plane], None],
) -> None:
    with closing(Plane(limits=Limits(pending_handshakes=1))) as plane:
        for count in range(1, 4):
            peer = client(plane)
            peer.is_mute = True
            plane.wait(lambda: len(plane.server.tunnels) == 1)
            misbehave(peer, plane)
            plane.ended(count)
            assert plane.server.tunnels == set()
        sound = client(plane)
        plane.wait(lambda: sound.wire.is_ready)


def test_a_client_that_secures_its_tunnel_and_says_nothing_more_is_given_up(plane: Plane) -> None:
    peer = client(plane)
    peer.holds_preface = True
    plane.wait(lambda: any(tunnel.peer is not None for tunnel in plane.server.tunnels))
    plane.advance(9.9)
    assert len(plane.server.tunnels) == 1
    plane.advance(0.1)
    assert plane.server.tunnels == set()
    assert "TLS and HTTP/2 handshake took longer than 10 s" in plane.ended(1)[0].error


def test_tunnels_are_bounded_and_the_refusal_says_so() -> None:
    with closing(Plane(limits=Limits(tunnels_per_pod=1))) as plane:
        first = client(plane)
        plane.wait(lambda: first.wire.is_ready)
        second = client(plane)
        record = plane.ended(1)[0]
        assert (record.reason, record.error) == ("LIMIT", "1 tunnels lead to this pod already")
        plane.wait(lambda: second.is_cut)


def test_a_pod_without_a_certificate_accepts_no_tunnel(plane: Plane) -> None:
    def current() -> Certificate:
        raise IdentityError("the CA is not available")

    plane.server.certificates.current = current  # type: ignore[method-assign]
    peer = client(plane)
    plane.wait(lambda: peer.is_cut)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == ("the CA is not available", "IDENTITY")


def test_a_stream_that_ends_without_a_byte_before_the_app_is_up_ends_there_too(plane: Plane) -> None:
    app = plane.serve()
    peer, stream = ask(plane, "127.0.0.2:8080")
    peer.wire.end(stream)
    assert plane.receive(plane.accept(app), 1) == b""


def test_an_open_tunnel_holds_no_handshake_slot() -> None:
    with closing(Plane(limits=Limits(pending_handshakes=1))) as plane:
        for _ in range(2):
            peer = client(plane)
            plane.wait(lambda peer=peer: peer.wire.is_ready)  # type: ignore[misc] # a lambda with a default
        assert len(plane.server.tunnels) == 2


def test_one_peer_may_not_hold_every_handshake_slot() -> None:
    with closing(Plane(limits=Limits(pending_handshakes_per_peer=2))) as plane:
        strangers = [socket.create_connection((SERVER_IP, plane.hbone_port)) for _ in range(3)]
        record = plane.ended(1)[0]
        assert record.reason == "LIMIT"
        assert record.error == f"2 handshakes with {CLIENT_IP} are pending on this pod"
        other = from_elsewhere(plane)
        plane.wait(lambda: other.wire.is_ready)
        for sock in strangers:
            sock.close()
        plane.wait(lambda: len(plane.server.tunnels) == 1)
        peer = client(plane)
        plane.wait(lambda: peer.wire.is_ready)


def test_one_peer_may_not_hold_every_tunnel() -> None:
    with closing(Plane(limits=Limits(tunnels_per_peer=1))) as plane:
        first = client(plane)
        plane.wait(lambda: first.wire.is_ready)
        second = client(plane)
        plane.wait(lambda: second.is_cut)
        record = plane.ended(1)[0]
        assert (record.reason, record.error) == (
            "LIMIT",
            f"1 tunnels from {CLIENT_IP} lead to this pod already",
        )
        other = from_elsewhere(plane)
        plane.wait(lambda: other.wire.is_ready)
        first.sock.shutdown(socket.SHUT_RDWR)
        plane.wait(lambda: len(plane.server.tunnels) == 1)
        third = client(plane)
        plane.wait(lambda: third.wire.is_ready)


def from_elsewhere(plane: Plane) -> RawPeer:
    """Dial as another peer."""
    return plane.dial_raw(Endpoint(SERVER_IP, plane.hbone_port), shared_ca().credentials(CLIENT), "127.0.0.3")


def test_a_client_that_never_acknowledges_our_settings_is_given_up(plane: Plane) -> None:
    peer = plane.dial_frames(
        Endpoint(SERVER_IP, plane.hbone_port), shared_ca().credentials(CLIENT), CLIENT_IP
    )
    peer.send(frames.PREFACE + frames.head(0, frames.SETTINGS, 0, 0))
    plane.wait(lambda: len(peer.heard) == 3)
    plane.advance(9.9)
    assert len(plane.server.tunnels) == 1
    plane.advance(0.1)
    plane.wait(lambda: peer.is_cut)
    assert peer.goaway == (ErrorCode.SETTINGS_TIMEOUT, "SETTINGS acknowledgement took longer than 10 s")
    assert plane.ended(1)[0].reason == "H2_HANDSHAKE_FAILURE"


@pytest.mark.parametrize("credentials", [of_another_trust_domain, nameless])
def test_an_identity_that_is_not_ours_is_told_why(
    plane: Plane, credentials: Callable[[], Credentials]
) -> None:
    peer = plane.dial_frames(Endpoint(SERVER_IP, plane.hbone_port), credentials(), CLIENT_IP)
    plane.wait(lambda: peer.is_cut)
    assert peer.goaway is not None
    assert peer.goaway[0] == ErrorCode.INADEQUATE_SECURITY
    assert plane.ended(1)[0].error.endswith(peer.goaway[1].removeprefix("the client "))
