"""Hostile and odd frames, one row each: what ends the connection, what a stream, what nothing."""

import itertools

import pytest

from tests.unit.wire.peers import (
    AUTHORITY,
    LIMITS,
    SMALL,
    data,
    dial,
    frame,
    parse,
    ready,
    request,
    serve,
    settings,
    take,
)
from zproxy.config import Limits
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.events import (
    PeerDraining,
    PeerReady,
    PingAnswered,
    StreamAnswered,
    StreamEnded,
    StreamRefused,
    StreamRequested,
    StreamReset,
    WindowOpened,
)
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.headers import Refusal, connect_block
from zproxy.wire.hpack_blocks import literal
from zproxy.wire.stream import Role, Stream

END, PADDED = frames.END_STREAM, frames.PADDED
PROTOCOL, FLOW, SIZE = ErrorCode.PROTOCOL_ERROR, ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.FRAME_SIZE_ERROR
CLOSED, CALM, COMPRESSION = ErrorCode.STREAM_CLOSED, ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.COMPRESSION_ERROR


def refused(connection: HboneConnection, raw: bytes) -> ErrorCode:
    """Return the code of the connection error that `raw` is, and check that the peer is told."""
    take(connection)
    with pytest.raises(RemoteProtocolError) as caught:
        connection.receive(memoryview(raw))
    kind, _, stream_id, payload = parse(take(connection))[-1]
    assert (kind, stream_id) == (frames.GOAWAY, 0)
    assert int.from_bytes(payload[4:8], "big") == caught.value.code
    assert payload[8:].decode() == str(caught.value)
    assert connection.receive(memoryview(request(99))) == [], "a dead tunnel hears nothing"
    return caught.value.code


CONNECTION_ERRORS = {
    "DATA on stream 0": (data(0, b"x"), PROTOCOL),
    "DATA on an idle stream": (data(3, b"x"), PROTOCOL),
    "DATA on an even stream": (data(2, b"x"), PROTOCOL),
    "DATA beyond the stream's window": (data(1, bytes(1001)), FLOW),
    "DATA beyond the stream's window, whole in one batch": (data(1, bytes(600)) * 2, FLOW),
    "padded DATA without a pad length": (frame(frames.DATA, PADDED, 1), SIZE),
    "padding as long as the payload": (frame(frames.DATA, PADDED, 1, b"\x05" + bytes(4)), PROTOCOL),
    "HEADERS on stream 0": (request(0), PROTOCOL),
    "HEADERS on an even stream": (request(2), PROTOCOL),
    "HEADERS with more padding than payload": (
        frame(frames.HEADERS, PADDED | frames.END_HEADERS, 3, b"\x09abc"),
        PROTOCOL,
    ),
    "CONTINUATION without HEADERS": (frame(frames.CONTINUATION, frames.END_HEADERS, 1), PROTOCOL),
    "CONTINUATION on stream 0": (frame(frames.CONTINUATION, frames.END_HEADERS, 0), PROTOCOL),
    "CONTINUATION of another stream": (
        frame(frames.HEADERS, 0, 3, b"\x82") + frame(frames.CONTINUATION, 4, 5),
        PROTOCOL,
    ),
    "DATA inside a header block": (frame(frames.HEADERS, 0, 3, b"\x82") + data(1, b"x"), PROTOCOL),
    "PING inside a header block": (
        frame(frames.HEADERS, 0, 3) + frame(frames.PING, 0, 0, bytes(8)),
        PROTOCOL,
    ),
    "an unknown frame inside a header block": (frame(frames.HEADERS, 0, 3) + frame(0x42, 0, 3), PROTOCOL),
    "a block with an index into nothing": (request(3, block=b"\xff\x20"), COMPRESSION),
    "a block that uses the table": (request(3, block=b"\x40\x01a\x01b"), COMPRESSION),
    "a truncated block": (request(3, block=b"\x00\x05ab"), COMPRESSION),
    "a header list beyond the limit": (request(3, block=b"\x88" * 4000), CALM),
    "RST_STREAM on stream 0": (frames.rst_stream(0, 8), PROTOCOL),
    "RST_STREAM on an idle stream": (frames.rst_stream(3, 8), PROTOCOL),
    "RST_STREAM of 3 bytes": (frame(frames.RST_STREAM, 0, 1, bytes(3)), SIZE),
    "RST_STREAM of 5 bytes": (frame(frames.RST_STREAM, 0, 1, bytes(5)), SIZE),
    "PRIORITY on stream 0": (frame(frames.PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "PRIORITY of 4 bytes": (frame(frames.PRIORITY, 0, 1, bytes(4)), SIZE),
    "SETTINGS on a stream": (frame(frames.SETTINGS, 0, 1), PROTOCOL),
    "SETTINGS of 5 bytes": (frame(frames.SETTINGS, 0, 0, bytes(5)), SIZE),
    "a SETTINGS ACK with a payload": (frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), SIZE),
    "an INITIAL_WINDOW_SIZE beyond the largest": (settings(s4=1 << 31), FLOW),
    "a MAX_FRAME_SIZE below the smallest": (settings(s5=100), PROTOCOL),
    "an ENABLE_PUSH of 2": (settings(s2=2), PROTOCOL),
    "PING of 9 bytes": (frame(frames.PING, 0, 0, bytes(9)), SIZE),
    "PING on a stream": (frame(frames.PING, 0, 1, bytes(8)), PROTOCOL),
    "GOAWAY on a stream": (frame(frames.GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "GOAWAY of 7 bytes": (frame(frames.GOAWAY, 0, 0, bytes(7)), SIZE),
    "PUSH_PROMISE": (frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, bytes(4)), PROTOCOL),
    "WINDOW_UPDATE of 3 bytes": (frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "WINDOW_UPDATE by 0": (frames.window_update(0, 0), PROTOCOL),
    "WINDOW_UPDATE by 0, reserved bit set": (frames.window_update(0, 1 << 31), PROTOCOL),
    "WINDOW_UPDATE beyond the largest": (frames.window_update(0, (1 << 31) - 1), FLOW),
    "WINDOW_UPDATE on an idle stream": (frames.window_update(3, 1), PROTOCOL),
    "SETTINGS that make a stream's window overflow": (
        frames.window_update(1, (1 << 31) - 1 - 65_535) + settings(s4=65_536),
        FLOW,
    ),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("case", CONNECTION_ERRORS)
def test_a_fault_of_the_connection_ends_it(case: str, role: Role) -> None:
    raw, code = CONNECTION_ERRORS[case]
    connection = ready(role, SMALL)
    if role is Role.CLIENT:
        dial(connection)
        if "block" in case or "header list" in case:
            raw = raw.replace(b"\0\0\0\x03", b"\0\0\0\x01")
            connection.open_stream(connect_block(AUTHORITY))
    else:
        serve(connection)
    if case == "a header list beyond the limit":
        connection = ready(role, Limits(header_list=1000))
        if role is Role.CLIENT:
            connection.open_stream(connect_block(AUTHORITY))
    assert refused(connection, raw) is code


SERVER_ERRORS = {
    "HEADERS on a lower stream than before": (request(5) + request(3), PROTOCOL),
    "HEADERS on a closed stream": (frames.rst_stream(1, 8) + request(1), PROTOCOL),
    "DATA on a stream that the peer reset": (frames.rst_stream(1, 8) + data(1, b"x"), CLOSED),
    "DATA on a stream that was skipped": (request(5) + data(3, b"x"), CLOSED),
}


@pytest.mark.parametrize("case", SERVER_ERRORS)
def test_a_server_keeps_to_the_order_of_streams(case: str) -> None:
    raw, code = SERVER_ERRORS[case]
    connection = ready(Role.SERVER)
    serve(connection)
    assert refused(connection, raw) is code


def test_a_server_accepts_no_push_setting_of_1_from_a_server() -> None:
    connection = ready(Role.CLIENT)
    assert refused(connection, settings(s2=1)) is PROTOCOL


@pytest.mark.parametrize("stream_id", [2, 3])
def test_a_client_takes_no_streams_from_its_server(stream_id: int) -> None:
    connection = ready(Role.CLIENT)
    dial(connection)
    assert refused(connection, request(stream_id)) is PROTOCOL


def test_headers_on_a_closed_stream_end_a_clients_connection() -> None:
    connection = ready(Role.CLIENT)
    dial(connection)
    raw = frames.rst_stream(1, 8) + frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x88")
    assert refused(connection, raw) is CLOSED


@pytest.mark.parametrize(
    "first",
    [
        frame(frames.SETTINGS, frames.ACK),
        frame(frames.PING, 0, 0, bytes(8)),
        request(1),
        data(1, b""),
        frame(0x42),
        frames.window_update(0, 1),
    ],
)
@pytest.mark.parametrize("role", Role)
def test_the_first_frame_must_be_settings(role: Role, first: bytes) -> None:
    connection = HboneConnection(role, SMALL)
    connection.start()
    preface = frames.PREFACE if role is Role.SERVER else b""
    assert refused(connection, preface + first) is PROTOCOL


def test_another_protocol_is_no_http2() -> None:
    connection = HboneConnection(Role.SERVER, SMALL)
    connection.start()
    assert refused(connection, b"GET / HTTP/1.1\r\n\r\n") is PROTOCOL


def test_a_continuation_block_is_one_request() -> None:
    connection = ready(Role.SERVER)
    block = connect_block(AUTHORITY, baggage="b" * 100)
    raw = frame(frames.HEADERS, END, 1, block[:5]) + frame(frames.CONTINUATION, 0, 1, block[5:9])
    raw += frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[9:])
    requested, ended = connection.receive(memoryview(raw))
    assert isinstance(requested, StreamRequested)
    assert not isinstance(requested.request, Refusal)
    assert requested.request.baggage == "b" * 100
    assert ended == StreamEnded(requested.stream)


def test_continuations_are_few() -> None:
    connection = ready(Role.SERVER)
    raw = frame(frames.HEADERS, 0, 1) + frame(frames.CONTINUATION, 0, 1) * LIMITS.continuations
    assert refused(connection, raw) is CALM


def test_continuations_are_small() -> None:
    connection = ready(Role.SERVER)
    raw = frame(frames.HEADERS, 0, 1) + frame(frames.CONTINUATION, 0, 1, bytes(30_000)) * 3
    assert refused(connection, raw) is CALM


STREAM_ERRORS = {
    "DATA after the peer's end": (data(1, b"", END) + data(1, b"x"), CLOSED),
    "HEADERS after the peer's end": (data(1, b"", END) + request(1), CLOSED),
    "HEADERS in the middle": (request(1), PROTOCOL),
    "WINDOW_UPDATE by 0": (frames.window_update(1, 0), PROTOCOL),
    "WINDOW_UPDATE beyond the largest": (frames.window_update(1, (1 << 31) - 1), FLOW),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("case", STREAM_ERRORS)
def test_a_fault_of_one_stream_ends_it_and_no_other(case: str, role: Role) -> None:
    raw, code = STREAM_ERRORS[case]
    connection = ready(role)
    bad = serve(connection) if role is Role.SERVER else dial(connection)
    good = serve(connection, 3) if role is Role.SERVER else dial(connection)
    events = connection.receive(memoryview(raw + data(3, b"fine")))
    assert StreamReset(bad, code) in events
    assert bad.is_closed
    assert (frames.RST_STREAM, 0, 1, int(code).to_bytes(4, "big")) in parse(take(connection))
    assert good.unread == 4
    assert connection.open_streams == 1


@pytest.mark.parametrize("block", [b"", b"\x84", literal(":status", "99"), literal(":status", "2x0")])
def test_a_malformed_answer_resets_the_stream(block: bytes) -> None:
    connection = ready(Role.CLIENT)
    stream = connection.open_stream(connect_block(AUTHORITY))
    events = connection.receive(memoryview(frame(frames.HEADERS, frames.END_HEADERS, 1, block)))
    assert events == [StreamReset(stream, PROTOCOL)]


def test_data_before_the_answer_resets_the_stream_and_costs_no_window() -> None:
    connection = ready(Role.CLIENT, SMALL)
    stream = connection.open_stream(connect_block(AUTHORITY))
    before = connection._link.window.available + connection._link.window.owed
    assert connection.receive(memoryview(data(1, bytes(900)))) == [StreamReset(stream, PROTOCOL)]
    assert connection._link.window.available + connection._link.window.owed == before


def test_data_before_the_answer_is_counted_against_the_stream_it_resets() -> None:
    connection = ready(Role.CLIENT, SMALL)
    connection.open_stream(connect_block(AUTHORITY))
    connection.receive(memoryview(data(1, bytes(900)) + data(1, bytes(100))))
    assert refused(connection, data(1, b"x")) is FLOW


def test_informational_answers_are_passed_over() -> None:
    connection = ready(Role.CLIENT)
    stream = connection.open_stream(connect_block(AUTHORITY))
    raw = frame(frames.HEADERS, frames.END_HEADERS, 1, literal(":status", "103"))
    raw += frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x88")
    (answered,) = connection.receive(memoryview(raw))
    assert isinstance(answered, StreamAnswered)
    assert (answered.stream, answered.status) == (stream, 200)


def test_trailers_that_end_the_stream_are_its_end() -> None:
    connection = ready(Role.CLIENT)
    stream = dial(connection)
    raw = frame(frames.HEADERS, frames.END_HEADERS | END, 1, literal("grpc-status", "0"))
    assert connection.receive(memoryview(raw)) == [StreamEnded(stream)]


def test_a_malformed_request_is_a_refusal_and_the_tunnel_lives() -> None:
    connection = ready(Role.SERVER)
    raw = request(1, block=literal(":method", "GET") + literal(":authority", AUTHORITY)) + request(3)
    first, second = connection.receive(memoryview(raw))
    assert isinstance(first, StreamRequested)
    assert first.request == Refusal(400, "expected method CONNECT")
    assert isinstance(second, StreamRequested)
    assert not isinstance(second.request, Refusal)
    connection.respond(first.stream, 400, end=True)
    headers, reset = parse(take(connection))
    assert headers[1] & END
    assert reset == (frames.RST_STREAM, 0, 1, bytes(4)), "nothing more of it is wanted"
    assert connection.open_streams == 1


def test_streams_beyond_the_limit_are_refused_and_counted_again_when_one_ends() -> None:
    connection = ready(Role.SERVER, SMALL)
    streams = [serve(connection, stream_id) for stream_id in (1, 3, 5)]
    assert connection.receive(memoryview(request(7) + data(7, b"early"))) == [StreamRefused(7)]
    assert parse(take(connection)) == [(frames.RST_STREAM, 0, 7, (7).to_bytes(4, "big"))]
    connection.reset(streams[0], ErrorCode.CANCEL)
    assert isinstance(connection.receive(memoryview(request(9)))[0], StreamRequested)


def crossing(stream: Stream) -> bytes:
    """Build what an honest peer may have under way when we reset its stream."""
    trailers = frame(frames.HEADERS, frames.END_HEADERS | END, stream.id, literal("x", "1"))
    return (
        data(stream.id, bytes(400)) + frames.window_update(stream.id, 9) + trailers + frames.rst_stream(1, 8)
    )


def test_frames_that_cross_our_reset_are_dropped_and_cost_no_window() -> None:
    connection = ready(Role.SERVER, SMALL)
    stream = serve(connection)
    before = connection._link.window.available
    connection.reset(stream, ErrorCode.CANCEL)
    assert connection.receive(memoryview(crossing(stream))) == []
    assert connection._link.window.available + connection._link.window.owed == before


def test_a_stream_that_was_reset_has_no_more_window_than_before() -> None:
    connection = ready(Role.SERVER, SMALL)
    stream = serve(connection)
    connection.receive(memoryview(data(1, bytes(700))))
    connection.reset(stream, ErrorCode.CANCEL)
    assert connection.receive(memoryview(data(1, bytes(300)))) == []
    assert refused(connection, data(1, b"x")) is FLOW


def test_a_reset_in_the_middle_of_a_frame_drops_the_rest() -> None:
    connection = ready(Role.SERVER, SMALL)
    stream = serve(connection)
    before = connection._link.window.available
    raw = data(1, b"a" * 500)
    connection.receive(memoryview(raw[:100]))
    connection.reset(stream, ErrorCode.CANCEL)
    events = connection.receive(memoryview(raw[100:] + request(3)))
    assert [type(event) for event in events] == [StreamRequested]
    assert connection._link.window.available + connection._link.window.owed == before


def test_padding_is_credited_at_once() -> None:
    connection = ready(Role.SERVER, SMALL)
    stream = serve(connection)
    connection.receive(memoryview(frame(frames.DATA, PADDED, 1, b"\xc8" + b"data" + bytes(200))))
    assert stream.unread == 4
    assert stream.window.available + stream.window.owed == 996


def test_a_window_event_comes_when_a_shut_window_opens_and_not_otherwise() -> None:
    connection = ready(Role.SERVER)
    stream = serve(connection)
    assert connection.receive(memoryview(frames.window_update(1, 5))) == []
    assert connection.receive(memoryview(frames.window_update(0, 5))) == []
    stream.send_window = 0
    assert connection.receive(memoryview(frames.window_update(1, 5))) == [WindowOpened(stream)]
    connection._link.send_window = 0
    assert connection.receive(memoryview(frames.window_update(0, 5))) == [WindowOpened(None)]


def test_a_smaller_initial_window_makes_windows_negative_until_they_are_made_up_for() -> None:
    connection = ready(Role.SERVER)
    stream = serve(connection)
    connection.put_data_header(bytearray(9), 0, stream, 10_000)
    assert connection.receive(memoryview(settings(s4=4_000))) == []
    assert stream.send_window == -6_000
    assert connection.budget(stream) == 0
    assert connection.receive(memoryview(frames.window_update(1, 6_000))) == []
    assert connection.receive(memoryview(settings(s4=4_001))) == [WindowOpened(None)]
    assert connection.budget(stream) == 1


def test_settings_bind_us() -> None:
    connection = HboneConnection(Role.CLIENT, Limits())
    connection.start()
    was_ready = connection.is_ready
    (event,) = connection.receive(memoryview(settings(s3=7, s4=10, s5=20_000)))
    assert event == PeerReady()
    assert (was_ready, connection.is_ready) == (False, True)
    assert connection.max_streams == 7
    stream = dial(connection)
    assert connection.budget(stream) == 10


def test_a_ping_is_answered_and_ours_is_reported() -> None:
    connection = ready(Role.SERVER)
    assert connection.receive(memoryview(frame(frames.PING, 0, 0, b"12345678"))) == []
    assert parse(take(connection)) == [(frames.PING, frames.ACK, 0, b"12345678")]
    raw = frame(frames.PING, frames.ACK, 0, b"abcdefgh")
    assert connection.receive(memoryview(raw)) == [PingAnswered(b"abcdefgh")]


def test_goaway_disowns_later_streams_and_no_others() -> None:
    connection = ready(Role.CLIENT)
    first, second = dial(connection), dial(connection)
    raw = frame(frames.GOAWAY, 0, 0, (1).to_bytes(4, "big") + (11).to_bytes(4, "big"))
    events = connection.receive(memoryview(raw + data(1, b"still here")))
    assert StreamReset(second, ErrorCode.REFUSED_STREAM) in events
    assert PeerDraining(1, 11) in events
    assert connection.is_draining
    assert not connection.can_open
    assert not first.is_closed
    connection.receive(memoryview(frame(frames.PING, 0, 0, bytes(8)) + settings(s4=1)))
    assert [kind for kind, *_ in parse(take(connection))] == [frames.PING, frames.SETTINGS]


def test_a_client_that_says_goaway_may_still_open_streams() -> None:
    connection = ready(Role.SERVER)
    events = connection.receive(memoryview(frame(frames.GOAWAY, 0, 0, bytes(8)) + request(1)))
    assert isinstance(events[-1], StreamRequested)


FLOODS = {
    "PING": itertools.repeat(frame(frames.PING, 0, 0, bytes(8))),
    "SETTINGS": itertools.repeat(settings(s4=5)),
    "empty DATA": itertools.repeat(data(1, b"")),
    "padding alone": itertools.repeat(frame(frames.DATA, PADDED, 1, b"\x00")),
    "PRIORITY": itertools.repeat(frame(frames.PRIORITY, 0, 1, bytes(5))),
    "unknown frames": itertools.repeat(frame(0x42)),
    "rapid reset": (request(n) + frames.rst_stream(n, 8) for n in itertools.count(3, 2)),
    "streams beyond the limit": (request(n) for n in itertools.count(3, 2)),
    "resets that we are made to send": (
        request(n) + frames.window_update(n, 0) for n in itertools.count(3, 2)
    ),
}


@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_ends_the_connection(case: str) -> None:
    connection = ready(Role.SERVER, SMALL)
    serve(connection)
    raw = b"".join(itertools.islice(FLOODS[case], LIMITS.chatter + 10))
    assert refused(connection, raw) is CALM


@pytest.mark.parametrize("case", ["PING", "rapid reset", "unknown frames"])
def test_what_would_be_a_flood_may_trickle_for_ever(case: str) -> None:
    connection = ready(Role.SERVER)
    serve(connection)
    for _ in range(3 * LIMITS.chatter):
        connection.receive(memoryview(next(FLOODS[case])))
        if case == "rapid reset":
            connection.receive(memoryview(b""))
            connection.tick()
        connection.out.clear()


def test_many_small_honest_frames_are_no_flood() -> None:
    connection = ready(Role.SERVER)
    stream = serve(connection)
    raw = data(1, b"x") * 5000 + frames.window_update(1, 1) * 5000 + frames.window_update(0, 1) * 5000
    connection.receive(memoryview(raw))
    assert stream.unread == 5000


def test_streams_reset_after_their_answer_are_no_flood() -> None:
    connection = ready(Role.SERVER)
    for stream_id in range(1, 6 * LIMITS.chatter, 2):
        serve(connection, stream_id)
        connection.receive(memoryview(frames.rst_stream(stream_id, 8)))
    assert connection.open_streams == 0


def test_rapid_reset_ends_the_connection_however_it_is_read() -> None:
    connection = ready(Role.SERVER)

    def reset_slowly() -> None:
        for raw in itertools.islice(FLOODS["rapid reset"], LIMITS.wasted_streams + 1):
            for _ in range(3):
                connection.receive(memoryview(b""))
            connection.receive(memoryview(raw))
            connection.out.clear()

    with pytest.raises(RemoteProtocolError) as caught:
        reset_slowly()
    assert caught.value.code is CALM


def test_a_window_smaller_than_the_first_one_binds_from_the_ack_on() -> None:
    connection = HboneConnection(Role.SERVER, SMALL)
    connection.start()
    connection.receive(memoryview(frames.PREFACE + settings() + request(1) + data(1, bytes(16_000))))
    stream = connection.streams[0]
    assert stream.unread == 16_000
    connection.receive(memoryview(frame(frames.SETTINGS, frames.ACK)))
    connection.credit(stream, 16_000)
    connection.receive(memoryview(data(1, bytes(1000))))
    assert refused(connection, data(1, b"x")) is FLOW


def test_an_authority_longer_than_any_host_is_refused_and_not_kept() -> None:
    connection = ready(Role.SERVER)
    block = connect_block("h" * 300 + ":80")
    (event,) = connection.receive(memoryview(request(1, block=block)))
    assert isinstance(event, StreamRequested)
    assert event.request == Refusal(400, "no valid authority")


def test_a_reason_repeats_only_the_beginning_of_what_the_peer_sent() -> None:
    connection = ready(Role.SERVER)
    block = connect_block(AUTHORITY) + literal("X" * 5000, "y")
    (event,) = connection.receive(memoryview(request(1, block=block)))
    assert isinstance(event, StreamRequested)
    assert isinstance(event.request, Refusal)
    assert len(event.request.reason) < 120
