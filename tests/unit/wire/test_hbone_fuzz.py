"""Hostile bytes: events or a RemoteProtocolError ever, whatever comes, and memory that stays small."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.wire.peers import SMALL, data, dial, frame, ready, request, serve, take
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.events import DataReceived, StreamRequested
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.stream import REMEMBERED_RESETS, Role

FRAMES = st.builds(
    frame, st.integers(0, 10), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=300)
) | st.sampled_from(
    [
        request(3), request(5, ends=True), data(1, bytes(50)), data(1, b"", frames.END_STREAM),
        data(3, bytes(900)), frames.rst_stream(1, 8), frames.rst_stream(3, 8), frames.window_update(0, 1000),
        frames.window_update(1, 7), frame(frames.PING, 0, 0, bytes(8)), frame(frames.GOAWAY, 0, 0, bytes(8)),
        frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x88"),
    ]
)  # fmt: skip


def drive(connection: HboneConnection, raw: bytes, sizes: random.Random) -> bool:
    """Feed `raw` as a careless driver would; return whether the tunnel survived."""
    at = 0
    while at < len(raw):
        size = sizes.choice((1, 9, 10, 40, 1000))
        try:
            events = connection.receive(memoryview(raw)[at : at + size])
        except RemoteProtocolError:
            assert frames.head(0, frames.GOAWAY, 0, 0)[3:] in take(connection)
            return False
        at += size
        for event in events:
            if isinstance(event, StreamRequested) and sizes.random() < 0.7:
                connection.respond(event.stream, 200)
            elif isinstance(event, DataReceived) and sizes.random() < 0.7:
                connection.credit(event.stream, sum(map(len, event.chunks)))
            elif sizes.random() < 0.1:
                for stream in connection.streams:
                    connection.reset(stream, ErrorCode.CANCEL)
        check_bounds(connection)
    return True


def check_bounds(connection: HboneConnection) -> None:
    link, inbound = connection._link, connection._inbound
    assert len(inbound._partial) <= SMALL.max_frame + frames.HEAD_SIZE
    assert sum(map(len, inbound._fragments)) <= SMALL.header_list
    assert len(link.streams) <= SMALL.max_streams_server
    assert len(link.resets) <= REMEMBERED_RESETS
    assert 0 <= link.window.available <= SMALL.connection_window
    assert len(take(connection)) <= 20_000
    assert not inbound._batches


@pytest.mark.parametrize("role", Role)
@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=2000), seed=st.integers(0, 1000))
def test_random_bytes_are_events_or_an_error(role: Role, raw: bytes, seed: int) -> None:
    connection = ready(role, SMALL)
    drive(connection, raw, random.Random(seed))


@pytest.mark.parametrize("role", Role)
@settings(max_examples=300, deadline=None)
@given(soup=st.lists(FRAMES, max_size=30), seed=st.integers(0, 1000))
def test_random_frames_are_events_or_an_error(role: Role, soup: list[bytes], seed: int) -> None:
    connection = ready(role, SMALL)
    if role is Role.SERVER:
        serve(connection)
    else:
        dial(connection)
    drive(connection, b"".join(soup), random.Random(seed))


@settings(max_examples=200, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
def test_honest_traffic_with_flipped_bytes_is_events_or_an_error(
    flips: list[tuple[int, int]], seed: int
) -> None:
    raw = bytearray(
        b"".join(request(n) + data(n, bytes(300)) + data(n, b"", frames.END_STREAM) for n in range(1, 20, 2))
    )
    for at, value in flips:
        raw[at % len(raw)] = value
    drive(ready(Role.SERVER, SMALL), bytes(raw), random.Random(seed))
