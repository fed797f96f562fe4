"""Framing: whatever the pieces, the same events; DATA is never copied; little is held back."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.wire import peers
from tests.unit.wire.peers import data, frame, frozen, pieces, ready, request, serve
from zproxy.config import Limits
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.events import DataReceived, StreamEnded
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.stream import Role

BUSY = b"".join(
    (
        frames.PREFACE,
        peers.settings(s4=100_000),
        frame(frames.SETTINGS, frames.ACK),
        request(1),
        data(1, b"first"),
        data(1, bytes(3000)),
        frame(frames.DATA, frames.PADDED, 1, b"\x04" + b"padded" + bytes(4)),
        frame(0x42, 0, 1, bytes(5000)),
        request(3, ends=True),
        frame(frames.PRIORITY, 0, 1, bytes(5)),
        frame(frames.DATA, frames.PADDED, 1, b"\xff" + bytes(255)),
        frame(frames.PING, 0, 0, b"12345678"),
        data(1, b"last", frames.END_STREAM),
        frames.window_update(0, 10),
        frames.window_update(1, 10),
        frames.rst_stream(1, 8),
        frame(frames.GOAWAY, 0, 0, bytes(8)),
    )
)


def server() -> HboneConnection:
    connection = HboneConnection(Role.SERVER, Limits())
    connection.start()
    return connection


def merged(events: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Join the data of a stream that came in several batches; the other events keep their order."""
    whole: dict[object, bytes] = {}
    others = []
    for event in events:
        if event[0] == "DataReceived":
            assert isinstance(event[2], bytes)
            whole[event[1]] = whole.get(event[1], b"") + event[2]
        else:
            others.append(event)
    return [*others, *whole.items()]


def run(raw: bytes, sizes: list[int]) -> list[tuple[object, ...]]:
    connection, events = server(), []
    cycle = iter(sizes * (len(raw) + 1))
    for piece in pieces(raw, lambda: next(cycle)):
        buffer = bytearray(piece)
        events += frozen(connection.receive(memoryview(buffer)))
        buffer[:] = b"\xee" * len(buffer)
    return merged(events)


WHOLE = run(BUSY, [len(BUSY)])


def test_the_busy_bytes_mean_what_they_should() -> None:
    expected = b"first" + bytes(3000) + b"padded" + b"last"
    assert (1, expected) in WHOLE
    assert [event[0] for event in WHOLE[:-1]] == [
        "PeerReady", "PeerAgreed", "StreamRequested", "StreamRequested", "StreamEnded", "StreamEnded",
        "StreamReset", "PeerDraining",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 10, 11, 13, 100, 4096])
def test_pieces_of_any_size_mean_the_same(size: int) -> None:
    assert run(BUSY, [size]) == WHOLE


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30))
def test_random_pieces_mean_the_same(sizes: list[int]) -> None:
    assert run(BUSY, sizes) == WHOLE


def test_chunks_are_slices_of_the_buffer_one_event_per_stream_and_batch() -> None:
    connection = ready(Role.SERVER)
    serve(connection, 1)
    serve(connection, 3)
    buffer = bytearray(data(1, b"a") + data(3, b"b") + data(1, b"c") + data(3, b"d"))
    first, second = connection.receive(memoryview(buffer))
    assert isinstance(first, DataReceived)
    assert isinstance(second, DataReceived)
    assert [bytes(chunk) for chunk in first.chunks] == [b"a", b"c"]
    assert [bytes(chunk) for chunk in second.chunks] == [b"b", b"d"]
    assert all(chunk.obj is buffer for chunk in (*first.chunks, *second.chunks))


def test_a_large_frame_flows_through_in_slices() -> None:
    connection = ready(Role.SERVER)
    stream = serve(connection)
    payload = random.Random(1).randbytes(1 << 20)
    raw = data(1, payload, frames.END_STREAM)
    got = bytearray()
    for piece in pieces(raw, lambda: 256 << 10):
        for event in connection.receive(piece):
            if isinstance(event, DataReceived):
                got += b"".join(event.chunks)
                assert len(got) <= len(payload)
            else:
                assert event == StreamEnded(stream)
                assert len(got) == len(payload), "the end comes after the last byte"
    assert got == payload


def test_the_buffer_is_free_again_when_the_events_are_gone() -> None:
    connection = ready(Role.SERVER)
    serve(connection)
    buffer = bytearray(data(1, b"a") + data(1, b"cut")[:-1])
    events = connection.receive(memoryview(buffer))
    with pytest.raises(BufferError):
        buffer.clear()
    del events
    buffer.clear()


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    connection = ready(Role.SERVER)
    stream = serve(connection)
    connection.receive(memoryview(data(1 | 1 << 31, b"data")))
    assert stream.unread == 4


def test_a_whole_frame_larger_than_announced_is_refused() -> None:
    connection = ready(Role.SERVER, Limits(max_frame=16_384))
    serve(connection)
    with pytest.raises(RemoteProtocolError, match="FRAME_SIZE_ERROR"):
        connection.receive(memoryview(data(1, bytes(16_385))))


def test_little_is_held_back() -> None:
    connection = ready(Role.SERVER)
    serve(connection)
    held = connection._inbound._partial
    for raw in (data(1, bytes(100_000)), frame(0x42, 0, 0, bytes(100_000)), request(3)):
        for piece in pieces(raw, lambda: 5):
            connection.receive(piece)
            assert len(held) < 100


@pytest.mark.parametrize("kind", range(11))
def test_a_frame_larger_than_announced_is_refused_by_its_head(kind: int) -> None:
    connection = ready(Role.SERVER)
    serve(connection)
    with pytest.raises(RemoteProtocolError) as caught:
        connection.receive(memoryview(frames.head((1 << 20) + 1, kind, 0, 1)))
    expected = ErrorCode.ENHANCE_YOUR_CALM if kind in {1, 9} else ErrorCode.FRAME_SIZE_ERROR
    assert caught.value.code is expected


def test_what_is_unfinished_is_known_until_it_is_whole() -> None:
    connection = peers.ready(Role.SERVER)
    assert connection.unfinished == 0
    ping = frame(frames.PING, 0, 0, bytes(8))
    connection.receive(memoryview(ping[:5]))
    first = connection.unfinished
    connection.receive(memoryview(ping[5:9]))
    assert connection.unfinished == first > 0
    connection.receive(memoryview(ping[9:] + ping[:1]))
    assert connection.unfinished == first + 1
    connection.receive(memoryview(ping[1:]))
    assert connection.unfinished == 0


def test_a_header_block_that_wants_more_is_unfinished_and_a_long_data_frame_is_not() -> None:
    connection = peers.ready(Role.SERVER)
    peers.serve(connection)
    connection.receive(memoryview(data(1, bytes(1000))[:500]))
    assert connection.unfinished == 0
    connection.receive(memoryview(bytes(509)))
    connection.receive(memoryview(frame(frames.HEADERS, 0, 3)))
    assert connection.unfinished
