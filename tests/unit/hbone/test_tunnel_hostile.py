"""Peers that break HTTP/2 against a live 15008: each loses its tunnel, and nobody else notices.

The clients are authenticated; what they send afterwards is raw frames.
"""

import itertools
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hpack import Encoder

from tests.support.ca import CLIENT, shared_ca
from tests.support.frame_peer import HELLO, FramePeer, frame
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from zproxy.config import Limits
from zproxy.model.addr import Endpoint
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode
from zproxy.wire.headers import connect_block
from zproxy.wire.hpack_blocks import literal

LIMITS = Limits(stream_window=128 << 10, connection_window=256 << 10, max_frame=1 << 16)
MEMORY = 24 << 20
"""More than a case and both ends of it need, less than any of these attacks is after."""
BUDGET = LIMITS.chatter + 50
PING = frame(frames.PING, 0, 0, bytes(8))
END, WHOLE, PADDED = frames.END_STREAM, frames.END_HEADERS, frames.PADDED


def request(stream_id: int, authority: str = "127.0.0.2:8080", flags: int = WHOLE) -> bytes:
    return frame(frames.HEADERS, flags, stream_id, connect_block(authority))


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(frames.DATA, flags, stream_id, payload)


def each(count: int, make: Callable[[int], bytes], first: int = 3) -> bytes:
    """Join what `make` returns for `count` streams from `first` on."""
    return b"".join(map(make, range(first, first + 2 * count, 2)))


def bomb() -> bytes:
    """Fill the table, then name its largest entry again and again: 240 MB in 64 kB."""
    block = Encoder().encode([("x-bomb", "b" * 4000)], huffman=False)
    return frame(frames.HEADERS, WHOLE, 3, bytes(block) + b"\xbe" * 60_000)


STUCK = 8081
"""A port of the app where a connect waits for ever, so that nobody takes what its stream brings."""
AT_STUCK = request(1, f"127.0.0.2:{STUCK}")
OPEN = request(1)
CALM, FLOW, PROTOCOL = ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.PROTOCOL_ERROR
SIZE, CLOSED = ErrorCode.FRAME_SIZE_ERROR, ErrorCode.STREAM_CLOSED

ATTACKS: dict[str, tuple[bytes, ErrorCode]] = {
    "PING flood": (PING * BUDGET, CALM),
    "SETTINGS flood": (frame(frames.SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") * BUDGET, CALM),
    "SETTINGS that nobody knows": (frame(frames.SETTINGS, 0, 0, b"\xf0\0\0\0\0\1" * 2000) * 200, CALM),
    "DATA without a byte": (OPEN + data(1, b"") * BUDGET, CALM),
    "padding alone": (OPEN + frame(frames.DATA, PADDED, 1, b"\0") * BUDGET, CALM),
    "PRIORITY flood": (frame(frames.PRIORITY, 0, 1, bytes(5)) * BUDGET, CALM),
    "unknown frames": (frame(0x42, 0, 0, b"?") * BUDGET, CALM),
    "rapid reset": (each(BUDGET, lambda n: request(n) + frames.rst_stream(n, 8)), CALM),
    "made you reset": (each(BUDGET, lambda n: request(n) + frames.window_update(n, 0)), CALM),
    "streams beyond the limit": (each(BUDGET, request), CALM),
    "malformed requests": (
        each(BUDGET, lambda n: frame(frames.HEADERS, WHOLE, n, b"\x82") + frames.rst_stream(n, 8)),
        CALM,
    ),
    "CONTINUATION flood": (frame(frames.HEADERS, 0, 3) + frame(frames.CONTINUATION, 0, 3) * 1000, CALM),
    "CONTINUATION without end": (
        frame(frames.HEADERS, 0, 3) + frame(frames.CONTINUATION, 0, 3, bytes(16_000)) * 10,
        CALM,
    ),
    "HPACK bomb": (bomb(), CALM),
    "a header list beyond the limit": (
        frame(frames.HEADERS, 0, 3, connect_block("127.0.0.2:8080"))
        + frame(frames.CONTINUATION, WHOLE, 3, literal("x", "y") * 12_000),
        CALM,
    ),
    "WINDOW_UPDATE by 0": (frames.window_update(0, 0), PROTOCOL),
    "a window that overflows": (frames.window_update(0, (1 << 31) - 1), FLOW),
    "a stream's window that overflows by SETTINGS": (
        OPEN
        + frames.window_update(1, (1 << 31) - 1 - 65_535)
        + frame(frames.SETTINGS, 0, 0, b"\0\4\0\1\0\0"),
        FLOW,
    ),
    "DATA beyond the stream's window": (AT_STUCK + data(1, bytes(50_000)) * 3, FLOW),
    "DATA beyond the connection's window": (
        each(3, lambda n: request(n, f"127.0.0.2:{STUCK}"), first=1)
        + b"".join(data(n, bytes(50_000)) * 2 for n in (1, 3, 5)),
        FLOW,
    ),
    "DATA on stream 0": (data(0, b"x"), PROTOCOL),
    "DATA on an idle stream": (data(9, b"x"), PROTOCOL),
    "HEADERS on stream 0": (request(0), PROTOCOL),
    "an even stream": (request(2), PROTOCOL),
    "a stream used again": (OPEN + frames.rst_stream(1, 8) + request(1), PROTOCOL),
    "a stream below the last": (request(5) + request(3), PROTOCOL),
    "DATA on a stream that the peer reset": (OPEN + frames.rst_stream(1, 8) + data(1, b"x"), CLOSED),
    "RST_STREAM on an idle stream": (frames.rst_stream(9, 8), PROTOCOL),
    "WINDOW_UPDATE on an idle stream": (frames.window_update(9, 1), PROTOCOL),
    "DATA larger than announced": (OPEN + frames.head((1 << 16) + 1, frames.DATA, 0, 1), SIZE),
    "an unknown frame larger than announced": (frames.head((1 << 24) - 1, 0x42, 0, 0), SIZE),
    "PING of 9 bytes": (frame(frames.PING, 0, 0, bytes(9)), SIZE),
    "more padding than DATA": (OPEN + frame(frames.DATA, PADDED, 1, b"\x09abc"), PROTOCOL),
    "more padding than HEADERS": (frame(frames.HEADERS, PADDED | WHOLE, 3, b"\x09abc"), PROTOCOL),
    "PUSH_PROMISE": (OPEN + frame(frames.PUSH_PROMISE, WHOLE, 1, bytes(4)), PROTOCOL),
    "CONTINUATION from nowhere": (frame(frames.CONTINUATION, WHOLE, 1), PROTOCOL),
    "a frame inside a header block": (frame(frames.HEADERS, 0, 3) + PING, PROTOCOL),
    "SETTINGS on a stream": (frame(frames.SETTINGS, 0, 1), PROTOCOL),
    "MAX_FRAME_SIZE of 1": (frame(frames.SETTINGS, 0, 0, b"\0\5\0\0\0\1"), PROTOCOL),
}


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    with closing(Plane(limits=LIMITS)) as made:
        made.serve(8080)
        app = made.serve(STUCK, backlog=0)
        made.keep(socket.create_connection(app.getsockname()))  # whoever follows it is not answered
        yield made


@pytest.fixture(scope="module")
def bystander(plane: Plane) -> tuple[socket.socket, socket.socket]:
    """A connection over another peer's tunnel to the same pod; it lives through all attacks."""
    return plane.pair(9000)


def attacker(plane: Plane) -> FramePeer:
    peer = plane.dial_frames(
        Endpoint(SERVER_IP, plane.hbone_port), shared_ca().credentials(CLIENT), CLIENT_IP
    )
    plane.wait(lambda: peer.is_secured)
    return peer


def exchange(plane: Plane, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.sendall(b"are you there?")
    assert plane.receive(far, 14) == b"are you there?"
    far.sendall(b"yes")
    assert plane.receive(near, 3) == b"yes"


def tunnel_faults(plane: Plane) -> list[str]:
    """Errors of the lines that no stream left."""
    return [
        record.error
        for record in plane.lines.ended_connections
        if record.reason == "H2_HANDSHAKE_FAILURE" and not record.hbone_addr
    ]


@pytest.mark.parametrize("case", ATTACKS)
def test_an_attack_costs_the_attacker_its_tunnel_and_nobody_anything_else(
    plane: Plane, bystander: tuple[socket.socket, socket.socket], case: str
) -> None:
    raw, code = ATTACKS[case]
    plane.lines.ended_connections.clear()
    counted = plane.connections.totals.reasons.get("H2_HANDSHAKE_FAILURE", 0)
    exchange(plane, bystander)
    peer = attacker(plane)
    tracemalloc.start()
    try:
        peer.send(HELLO + raw)
        exchange(plane, bystander)
        plane.wait(lambda: peer.is_cut)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert peer.goaway is not None
    assert peer.goaway[0] == code
    (fault,) = tunnel_faults(plane)
    assert f"HTTP/2 {code.name}: " in fault
    assert fault.startswith(f"{CLIENT_IP}:")
    exchange(plane, bystander)
    plane.wait(lambda: len(plane.server.tunnels) == 1)
    assert len(plane.server.relays) == len(plane.client.relays) == 1
    assert plane.connections.totals.reasons["H2_HANDSHAKE_FAILURE"] > counted


@pytest.mark.parametrize(
    "fault",
    [frames.rst_stream(1, 8) + frame(frames.PING, 0, 0, bytes(9)), frame(frames.RST_STREAM, 0, 1, bytes(3))],
    ids=["behind its end", "its end itself"],
)
def test_a_stream_that_ends_with_the_fault_is_not_forgotten(
    plane: Plane, bystander: tuple[socket.socket, socket.socket], fault: bytes
) -> None:
    peer = attacker(plane)
    peer.send(HELLO + OPEN)
    plane.wait(lambda: len(plane.server.relays) == 2)
    peer.send(fault)
    plane.wait(lambda: peer.is_cut)
    assert len(plane.server.relays) == 1
    exchange(plane, bystander)


TOLERATED = {
    "unknown frames": frame(0x42, 0xFF, 7, bytes(10_000)) * 20,
    "PRIORITY": frame(frames.PRIORITY, 0, 1, bytes(5)) + frame(frames.PRIORITY, 0, 99, bytes(5)),
    "reserved bits": PING[:5] + b"\x80\0\0\0" + PING[9:],
    "keepalive": PING * 20,
    "SETTINGS in mid-stream": frame(frames.SETTINGS, 0, 0, b"\0\4\0\0\0\1") * 3,
    "a fault of another stream": request(3) + frames.window_update(3, 0),
    "trailers": request(3) + frame(frames.HEADERS, WHOLE | END, 3, literal("x", "y")),
    "a request that is no CONNECT": frame(frames.HEADERS, WHOLE, 3, b"\x82\x87\x84"),
}


@pytest.mark.parametrize("case", TOLERATED)
def test_what_is_odd_and_legal_leaves_the_tunnel_and_its_other_stream(plane: Plane, case: str) -> None:
    app = plane.serve(8082)
    peer = attacker(plane)
    peer.send(HELLO + request(1, "127.0.0.2:8082"))
    far = plane.accept(app)
    peer.send(TOLERATED[case] + data(1, b"fine"))
    assert plane.receive(far, 4) == b"fine"
    assert peer.goaway is None
    peer.close()
    with pytest.raises(ConnectionResetError):
        plane.receive(far, 1)


class Stuck:
    """A socket whose buffer is full for good."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno = sock.fileno

    def send(self, _: object) -> int:
        raise BlockingIOError


def test_a_peer_that_lets_answers_pile_up_is_left() -> None:
    with closing(Plane(limits=Limits(backlog_bytes=512))) as plane:
        peer = attacker(plane)
        peer.send(HELLO)
        plane.wait(lambda: len(peer.heard) > 2)
        (tunnel,) = plane.server.tunnels
        tunnel._outbox._sock = Stuck(tunnel.sock)  # type: ignore[assignment] # stands in for it
        while tunnel._outbox.backlog <= 4 * 512:
            plane.advance(1.0)
            read = tunnel.bytes_recv
            peer.send(PING * 10)
            plane.wait(lambda read=read: tunnel.bytes_recv > read)  # type: ignore[misc] # a default
        plane.advance(1.0)
        assert not plane.server.tunnels
        assert "makes us answer and does not read the answers" in plane.ended(1)[0].error


SLOW = {
    "in the preface": frames.PREFACE[:10],
    "before SETTINGS": frames.PREFACE,
    "in SETTINGS": HELLO[:30],
    "before the ACK": frames.PREFACE + frame(frames.SETTINGS),
    "in a frame's head": HELLO + PING[:4],
    "in a frame": HELLO + request(3)[:20],
    "in a header block": HELLO + frame(frames.HEADERS, 0, 3),
}


@pytest.mark.parametrize("case", SLOW)
def test_a_peer_that_stalls_loses_its_tunnel_in_time(case: str) -> None:
    with closing(Plane(limits=LIMITS)) as plane:
        pair = plane.pair(9000)
        exchange(plane, pair)
        peer = attacker(plane)
        peer.send(SLOW[case])
        plane.settle()
        allowed = 10.0 if "HELLO" not in case and not SLOW[case].startswith(HELLO) else 32.0
        while plane.now < 1000.0 + allowed - 1.5:
            plane.advance(1.0)
            exchange(plane, pair)
        assert len(plane.server.tunnels) == 2
        for _ in range(3):
            plane.advance(1.0)
        (record,) = plane.ended(1)
        assert "took longer than" in record.error
        assert record.reason == "H2_HANDSHAKE_FAILURE"
        plane.wait(lambda: peer.is_cut)
        assert peer.goaway is not None
        assert peer.goaway[0] == ErrorCode.SETTINGS_TIMEOUT
        exchange(plane, pair)


def test_a_peer_that_trickles_one_frame_for_ever_is_no_exception() -> None:
    with closing(Plane(limits=LIMITS)) as plane:
        peer = attacker(plane)
        peer.send(HELLO)
        for byte in itertools.repeat(ord("x"), 20):
            if peer.is_cut:
                break
            peer.send(bytes((byte,)) if plane.now > 1000.0 else frames.head(1000, frames.HEADERS, WHOLE, 3))
            plane.settle()
            plane.advance(2.0)
        plane.wait(lambda: peer.is_cut)
        assert "a frame took longer than 30 s" in plane.ended(1)[0].error
