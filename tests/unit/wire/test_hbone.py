"""Two of our machines joined in memory, and the rules of their drivers."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.wire.peers import (
    AUTHORITY,
    LIMITS,
    SMALL,
    Joined,
    data,
    dial,
    frozen,
    parse,
    put,
    ready,
    request,
    serve,
    take,
)
from zproxy.config import Limits
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode, LocalProtocolError
from zproxy.wire.events import DataReceived, PeerAgreed, PeerReady, StreamAnswered, StreamReset
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.headers import ConnectRequest, connect_block
from zproxy.wire.hpack_blocks import NO_TABLE
from zproxy.wire.stream import Role, Stream


def pump(joined: Joined, here: Stream, there: Stream, payload: bytes, *, from_client: bool) -> None:
    """Send all of `payload` as a driver does: within the budget, credit given as the far socket takes it."""
    connection, peer = (joined.client, joined.server) if from_client else (joined.server, joined.client)
    side = "server" if from_client else "client"
    credited = len(joined.received.get((side, there.id), b""))
    at = 0
    while at < len(payload):
        size = min(connection.budget(here), len(payload) - at, 50_000)
        if size:
            joined.carry(side, peer, put(connection, here, payload[at : at + size]))
            at += size
        got = len(joined.received.get((side, there.id), b""))
        peer.credit(there, got - credited)
        credited = got
        joined.settle()


def test_both_sides_start_with_settings_and_a_wide_connection() -> None:
    joined = Joined()
    assert joined.client.is_ready
    assert joined.server.is_ready
    assert joined.events == {side: [PeerReady(), PeerAgreed()] for side in ("client", "server")}
    assert joined.client.max_streams == 100
    assert joined.client._link.send_window == LIMITS.connection_window


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_dialogue(step: int) -> None:
    joined = Joined(step=step)
    near = joined.client.open_stream(connect_block(AUTHORITY, baggage="b=1"))
    near.owner = "relay"
    joined.settle()
    name, stream_id, asked = frozen(joined.events["server"])[-1]
    assert (name, stream_id) == ("StreamRequested", 1)
    assert isinstance(asked, ConnectRequest)
    assert (asked.authority, asked.baggage) == (AUTHORITY, "b=1")

    far = joined.server.streams[0]
    joined.server.respond(far, 200, [("baggage", "b=2")])
    joined.settle()
    answered = joined.events["client"][-1]
    assert isinstance(answered, StreamAnswered)
    assert (answered.stream, answered.status, answered.headers.get("baggage")) == (near, 200, "b=2")
    assert answered.stream.owner == "relay"

    joined.carry("server", joined.server, put(joined.client, near, b"ping", end=True))
    assert joined.received["server", 1] == b"ping"
    assert frozen(joined.events["server"])[-1] == ("StreamEnded", 1)
    assert (near.is_local_ended, near.is_closed) == (True, False), "half-closed: the answer may still come"

    joined.carry("client", joined.client, put(joined.server, far, b"pong"))
    joined.server.end(far)
    joined.settle()
    assert joined.received["client", 1] == b"pong"
    assert frozen(joined.events["client"])[-1] == ("StreamEnded", 1)
    assert near.is_closed
    assert far.is_closed
    assert joined.client.open_streams == joined.server.open_streams == 0
    assert joined.client.streams_opened == joined.server.streams_opened == 1


@pytest.mark.parametrize("from_client", [True, False])
def test_ten_megabytes_arrive_through_windows_that_fill(from_client: bool) -> None:
    joined = Joined(step=60_000)
    near, far = joined.open()
    payload = random.Random(3).randbytes(10 << 20)
    here, there = (near, far) if from_client else (far, near)
    pump(joined, here, there, payload, from_client=from_client)
    assert joined.received["server" if from_client else "client", near.id] == payload


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 40),
    turns=st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(1, 2500)), max_size=25),
)
def test_any_exchange_arrives_whatever_the_splits(steps: int, turns: list[tuple[bool, int, int]]) -> None:
    joined = Joined(client=SMALL, server=SMALL, step=steps)
    streams = [joined.open() for _ in range(3)]
    sent = {(side, near.id): b"" for side in ("client", "server") for near, _ in streams}
    for number, (from_client, index, size) in enumerate(turns):
        near, far = streams[index]
        here, there = (near, far) if from_client else (far, near)
        payload = bytes((number + 1,)) * size
        pump(joined, here, there, payload, from_client=from_client)
        sent["server" if from_client else "client", near.id] += payload
    assert {key: bytes(joined.received.get(key, b"")) for key in sent} == sent


def test_a_stalled_stream_stops_itself_and_no_other() -> None:
    joined = Joined(server=Limits(stream_window=1000, connection_window=100_000))
    slow, quick = joined.open(), joined.open()
    joined.carry("server", joined.server, put(joined.client, slow[0], bytes(1000)))
    assert joined.client.budget(slow[0]) == 0
    pump(joined, *quick, bytes(200_000), from_client=True)
    assert len(joined.received["server", 3]) == 200_000
    joined.server.credit(slow[1], 1000)
    joined.settle()
    assert frozen(joined.events["client"])[-1] == ("WindowOpened", 1)
    assert joined.client.budget(slow[0]) == 1000


def test_streams_abandoned_with_unread_data_cost_the_tunnel_nothing() -> None:
    limits = Limits(stream_window=1000, connection_window=70_000)
    joined = Joined(client=limits, server=limits)
    for number in range(300):
        near, far = joined.open()
        joined.carry("server", joined.server, put(joined.client, near, bytes(1000), end=number % 3 == 0))
        joined.carry("client", joined.client, put(joined.server, far, bytes(900)))
        (joined.server if number % 2 else joined.client).reset(far if number % 2 else near, ErrorCode.CANCEL)
        joined.settle()
    for connection in (joined.client, joined.server):
        window = connection._link.window
        assert window.available + window.owed == 70_000


def test_a_reset_is_told_with_its_code_and_once() -> None:
    joined = Joined()
    near, far = joined.open()
    joined.client.reset(near, ErrorCode.CANCEL)
    joined.client.reset(near, ErrorCode.CANCEL)
    joined.settle()
    assert joined.events["server"][-1] == StreamReset(far, ErrorCode.CANCEL)
    assert [event for event in joined.events["server"] if isinstance(event, StreamReset)] == [
        StreamReset(far, ErrorCode.CANCEL)
    ]


def test_calls_on_a_closed_stream_do_nothing_but_data_is_refused() -> None:
    connection = ready(Role.SERVER)
    stream = serve(connection, answer=False)
    connection.receive(memoryview(frames.rst_stream(1, 8)))
    connection.respond(stream, 200)
    connection.end(stream)
    connection.reset(stream, ErrorCode.CANCEL)
    connection.credit(stream, 100)
    assert take(connection) == b""
    assert connection.budget(stream) == 0
    with pytest.raises(LocalProtocolError, match="after its end"):
        connection.put_data_header(bytearray(9), 0, stream, 0)


def test_a_refusal_closes_the_stream_both_ways() -> None:
    joined = Joined()
    near = joined.client.open_stream(connect_block(AUTHORITY))
    joined.settle()
    joined.server.respond(joined.server.streams[0], 503, end=True)
    joined.settle()
    assert [event[0] for event in frozen(joined.events["client"])[-3:]] == [
        "StreamAnswered", "StreamEnded", "StreamReset",
    ]  # fmt: skip
    assert frozen(joined.events["client"])[-1] == ("StreamReset", near.id, ErrorCode.NO_ERROR)
    assert joined.client.open_streams == joined.server.open_streams == 0


def test_data_is_put_in_place_and_debited() -> None:
    connection = ready(Role.CLIENT)
    stream = dial(connection)
    buffer = bytearray(b"\xaa" * 30)
    connection.put_data_header(buffer, 5, stream, 16)
    assert buffer == b"\xaa" * 5 + frames.head(16, frames.DATA, 0, 1) + b"\xaa" * 16
    assert stream.send_window == connection._link.send_window == 65_535 - 16


@pytest.mark.parametrize("size", [16_385, 60_000])
def test_data_beyond_the_budget_is_a_bug(size: int) -> None:
    connection = ready(Role.CLIENT)
    stream = dial(connection)
    assert connection.budget(stream) == 16_384
    stream.send_window = 50_000
    with pytest.raises(LocalProtocolError, match="beyond its budget"):
        connection.put_data_header(bytearray(9), 0, stream, size)


def test_an_end_needs_no_window() -> None:
    connection = ready(Role.CLIENT)
    stream = dial(connection)
    stream.send_window = -5
    connection.put_data_header(bytearray(9), 0, stream, 0, end=True)
    assert stream.is_local_ended


def test_only_the_first_block_of_a_connection_renounces_the_table() -> None:
    connection = ready(Role.CLIENT)
    block = connect_block(AUTHORITY)
    connection.open_stream(block)
    connection.open_stream(block)
    assert [payload for *_, payload in parse(take(connection))] == [NO_TABLE + block, block]


def test_a_client_stays_within_the_peers_streams() -> None:
    joined = Joined(server=SMALL)
    opened = [joined.open() for _ in range(3)]
    assert not joined.client.can_open
    with pytest.raises(LocalProtocolError, match="3 open"):
        joined.client.open_stream(connect_block(AUTHORITY))
    joined.client.reset(opened[0][0], ErrorCode.CANCEL)
    assert joined.client.can_open


def test_a_client_out_of_stream_ids_opens_no_more() -> None:
    connection = ready(Role.CLIENT)
    connection._next_id = frames.STREAM_MASK
    assert connection.open_stream(connect_block(AUTHORITY)).id == frames.STREAM_MASK
    assert not connection.can_open


def test_a_server_opens_no_streams() -> None:
    with pytest.raises(LocalProtocolError):
        ready(Role.SERVER).open_stream(connect_block(AUTHORITY))


def test_a_second_answer_is_a_bug() -> None:
    connection = ready(Role.SERVER)
    stream = serve(connection)
    with pytest.raises(LocalProtocolError, match="second answer"):
        connection.respond(stream, 200)


def test_goaway_lets_streams_end_and_refuses_new_ones_without_losing_them() -> None:
    joined = Joined()
    near, far = joined.open()
    joined.server.goaway()
    racing = joined.client.open_stream(connect_block(AUTHORITY))
    joined.settle()
    assert joined.client.is_draining
    assert not joined.client.can_open
    assert StreamReset(racing, ErrorCode.REFUSED_STREAM) in joined.events["client"]
    pump(joined, near, far, b"still here", from_client=True)
    pump(joined, far, near, b"me too", from_client=False)
    joined.client.ping(b"12345678")
    joined.settle()
    assert frozen(joined.events["client"])[-1] == ("PingAnswered", b"12345678")
    joined.client.end(near)
    joined.server.end(far)
    joined.settle()
    assert joined.client.open_streams == joined.server.open_streams == 0


def test_events_of_one_batch_keep_the_order_of_each_stream() -> None:
    connection = ready(Role.SERVER)
    raw = request(1) + data(1, b"a") + request(3) + data(1, b"b", frames.END_STREAM) + frames.rst_stream(3, 8)
    assert [event[:2] for event in frozen(connection.receive(memoryview(raw)))] == [
        ("StreamRequested", 1), ("DataReceived", 1), ("StreamRequested", 3), ("StreamEnded", 1),
        ("StreamReset", 3),
    ]  # fmt: skip


def test_our_own_start_is_legal_for_a_peer_that_reads_slowly() -> None:
    client, server = HboneConnection(Role.CLIENT, LIMITS), HboneConnection(Role.SERVER, LIMITS)
    client.start()
    server.start()
    stream = client.open_stream(
        connect_block(AUTHORITY)
    )  # before the server's SETTINGS: RFC 9113 3.4 allows it
    for byte in take(client):
        server.receive(memoryview(bytes((byte,))))
    assert server.streams[0].id == stream.id


def test_data_events_hold_no_copy() -> None:
    connection = ready(Role.SERVER)
    serve(connection)
    buffer = bytearray(data(1, bytes(1000)))
    (event,) = connection.receive(memoryview(buffer))
    assert isinstance(event, DataReceived)
    assert event.chunks[0].obj is buffer
