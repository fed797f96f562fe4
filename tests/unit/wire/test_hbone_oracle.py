"""Our machine against a full h2 connection, in both roles: any legal history, any interleaving on the wire.

h2 is the oracle: it must never complain, every byte must arrive, and at rest both must agree on every window.
"""

import random
from collections.abc import Callable
from typing import Final

import pytest
from h2 import events as h2_events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.wire.peers import AUTHORITY, put, take
from zproxy.config import Limits
from zproxy.wire.errors import ErrorCode
from zproxy.wire.events import (
    DataReceived,
    Event,
    PeerDraining,
    PingAnswered,
    StreamAnswered,
    StreamEnded,
    StreamRequested,
    StreamReset,
)
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.headers import Refusal, connect_block
from zproxy.wire.stream import Role, Stream

LIMITS: Final = Limits(
    stream_window=70_000, connection_window=150_000, max_frame=20_000, max_streams_server=5
)
CONNECT: Final = ((":method", "CONNECT"), (":authority", AUTHORITY))
WINDOWS: Final = (0, 1, 100, 65_535, 200_000)
FRAMES: Final = (16_384, 17_000, 100_000)


class Pipe:
    """A stream as both ends and the model see it."""

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.ours: Stream | None = None
        self.is_answered = False
        self.is_reset = False
        self.h2_ended = False
        self.our_end_is_sent = False
        self.sent = {"us": bytearray(), "h2": bytearray()}
        self.got = {"us": bytearray(), "h2": bytearray()}
        self.unread = {"us": 0, "h2": 0}
        self.seen_end = {"us": False, "h2": False}


class World:
    """One of ours, one h2, and the bytes between them."""

    def __init__(self, role: Role) -> None:
        self.is_client = role is Role.CLIENT
        self.us = HboneConnection(role, LIMITS)
        self.h2 = H2Connection(H2Configuration(client_side=not self.is_client, header_encoding=None))
        self.wire = {"us": bytearray(), "h2": bytearray()}
        self.pipes: dict[int, Pipe] = {}
        self.pongs = {"us": 0, "h2": 0}
        self.drained: PeerDraining | None = None
        self.us.start()
        self.h2.initiate_connection()
        self.settle()

    def collect(self) -> None:
        self.wire["h2"] += take(self.us)
        self.wire["us"] += self.h2.data_to_send()

    def carry(self, to: str, size: int) -> None:
        self.collect()
        piece = bytes(self.wire[to][:size])
        del self.wire[to][:size]
        if to == "h2":
            for event in self.h2.receive_data(piece):
                self.on_h2_event(event)
        else:
            for ours in self.us.receive(memoryview(piece)):
                self.on_our_event(ours)

    def settle(self) -> None:
        self.collect()
        while self.wire["us"] or self.wire["h2"]:
            self.carry("h2", 1 << 20)
            self.carry("us", 1 << 20)
            self.collect()

    def on_our_event(self, event: Event) -> None:
        match event:
            case StreamRequested(stream, request):
                assert not isinstance(request, Refusal)
                self.pipes[stream.id].ours = stream
            case StreamAnswered(stream, status, _):
                assert status == 200
                self.pipes[stream.id].is_answered = True
            case DataReceived(stream, chunks):
                self.pipes[stream.id].got["us"] += b"".join(chunks)
                self.pipes[stream.id].unread["us"] += sum(map(len, chunks))
            case StreamEnded(stream):
                self.pipes[stream.id].seen_end["us"] = True
            case StreamReset(stream, _):
                self.pipes[stream.id].is_reset = True
            case PingAnswered():
                self.pongs["us"] += 1
            case PeerDraining():
                self.drained = event

    def on_h2_event(self, event: h2_events.Event) -> None:
        match event:
            case h2_events.RequestReceived():
                assert event.stream_id is not None
                assert [tuple(header) for header in event.headers or ()][:2] == [
                    (b":method", b"CONNECT"),
                    (b":authority", AUTHORITY.encode()),
                ]
            case h2_events.ResponseReceived():
                self.pipes[event.stream_id or 0].is_answered = True
            case h2_events.DataReceived():
                pipe = self.pipes[event.stream_id or 0]
                pipe.got["h2"] += event.data or b""
                pipe.unread["h2"] += event.flow_controlled_length or 0
            case h2_events.StreamEnded():
                self.pipes[event.stream_id or 0].seen_end["h2"] = True
            case h2_events.StreamReset():
                self.pipes[event.stream_id or 0].is_reset = True
            case h2_events.PingAckReceived():
                self.pongs["h2"] += 1

    def pick(self, number: int, suits: Callable[[Pipe], bool]) -> Pipe | None:
        fitting = [pipe for pipe in self.pipes.values() if not pipe.is_reset and suits(pipe)]
        return fitting[number % len(fitting)] if fitting else None

    def open(self, number: int) -> None:
        if self.is_client:
            if self.us.can_open and len(self.us.streams) < 5:
                stream = self.us.open_stream(connect_block(AUTHORITY, traceparent=f"00-{number}"))
                self.pipes[stream.id] = pipe = Pipe(stream.id)
                pipe.ours = stream
        elif self.h2.open_outbound_streams < 5:
            stream_id = self.h2.get_next_available_stream_id()
            self.pipes[stream_id] = Pipe(stream_id)
            self.h2.send_headers(stream_id, CONNECT)

    def answer(self, number: int) -> None:
        if self.is_client:
            pipe = self.pick(number, lambda pipe: not pipe.is_answered and pipe.id in self.h2.streams)
            if pipe is not None:
                pipe.is_answered = True
                self.h2.send_headers(
                    pipe.id, [(":status", "200"), ("baggage", "k=v"), ("x-number", str(number))]
                )
        else:
            pipe = self.pick(number, lambda pipe: pipe.ours is not None and not pipe.ours.is_answered)
            if pipe is not None and pipe.ours is not None:
                self.us.respond(pipe.ours, 200, [("baggage", "k=v")])

    def we_send(self, number: int, *, end: bool = False) -> None:
        pipe = self.pick(number, self.we_may_end if end else self.we_may_send)
        if pipe is None or pipe.ours is None:
            return
        size = min(self.us.budget(pipe.ours), number)
        if not size and not end:
            return
        payload = bytes((number & 0xFF,)) * size
        pipe.sent["us"] += payload
        self.collect()
        self.wire["h2"] += put(self.us, pipe.ours, payload, end=end)
        pipe.our_end_is_sent = end

    def we_may_send(self, pipe: Pipe) -> bool:
        stream = pipe.ours
        return stream is not None and stream.is_answered and not stream.is_local_ended

    def we_may_end(self, pipe: Pipe) -> bool:
        # h2 takes even an empty frame for a breach of a window that is negative; RFC 9113 6.9.1 does not.
        return pipe.ours is not None and pipe.ours.send_window >= 0 and self.we_may_send(pipe)

    def h2_may_send(self, pipe: Pipe) -> bool:
        return pipe.is_answered and not pipe.h2_ended and pipe.id in self.h2.streams

    def h2_sends(self, number: int, *, end: bool = False) -> None:
        pipe = self.pick(number, self.h2_may_send)
        if pipe is None:
            return
        room = min(self.h2.local_flow_control_window(pipe.id), self.h2.max_outbound_frame_size)
        size = min(room, number)
        payload = bytes((number & 0xFF,)) * max(size, 0)
        pipe.sent["h2"] += payload
        pipe.h2_ended = end
        if payload or end:
            padding = number % 7 if size + 8 < room else None
            self.h2.send_data(pipe.id, payload, end_stream=end, pad_length=padding)

    def we_end(self, number: int) -> None:
        pipe = self.pick(number, self.we_may_end)
        if pipe is not None and pipe.ours is not None:
            self.us.end(pipe.ours)

    def we_reset(self, number: int) -> None:
        pipe = self.pick(number, lambda pipe: pipe.ours is not None and not pipe.ours.is_closed)
        if number % 3 == 0 and pipe is not None and pipe.ours is not None:
            self.us.reset(pipe.ours, ErrorCode.CANCEL)
            pipe.is_reset = True

    def h2_resets(self, number: int) -> None:
        pipe = self.pick(
            number, lambda pipe: pipe.id in self.h2.streams and not self.h2.streams[pipe.id].closed
        )
        if number % 3 == 0 and pipe is not None:
            self.h2.reset_stream(pipe.id, 8)
            pipe.is_reset = True

    def we_credit(self, number: int) -> None:
        for pipe in self.pipes.values():
            if pipe.ours is not None and pipe.unread["us"]:
                size = min(pipe.unread["us"], number)
                self.us.credit(pipe.ours, size)
                pipe.unread["us"] -= size

    def h2_credits(self, number: int) -> None:
        for pipe in self.pipes.values():
            size = min(pipe.unread["h2"], number)
            if size:
                self.h2.acknowledge_received_data(size, pipe.id)
                pipe.unread["h2"] -= size

    def h2_changes_settings(self, number: int) -> None:
        code, values = (
            (SettingCodes.INITIAL_WINDOW_SIZE, WINDOWS)
            if number % 3
            else (SettingCodes.MAX_FRAME_SIZE, FRAMES)
        )
        # One change under way at a time: h2 applies them one ACK later than it should.
        self.settle()
        self.h2.update_settings({code: values[number % len(values)]})
        self.settle()

    def ping(self, number: int) -> None:
        if number % 2:
            self.us.ping(b"12345678")
        else:
            self.h2.ping(b"12345678")

    def act(self, action: int, number: int) -> None:
        ACTIONS[action](self, number)

    def rest(self) -> None:
        """Deliver and credit everything, until both are silent."""
        for _ in range(3):
            self.settle()
            self.we_credit(1 << 30)
            self.h2_credits(1 << 30)
        self.settle()

    def check(self) -> None:
        for pipe in self.pipes.values():
            for here, there in (("us", "h2"), ("h2", "us")):
                sent, got = bytes(pipe.sent[here]), bytes(pipe.got[there])
                assert sent.startswith(got)
                assert pipe.is_reset or sent == got
            if not pipe.is_reset and pipe.ours is not None:
                assert pipe.seen_end["us"] == pipe.h2_ended
                assert pipe.seen_end["h2"] == pipe.ours.is_local_ended
        self.check_windows()

    def check_windows(self) -> None:
        link = self.us._link
        assert link.send_window == self.h2.inbound_flow_control_window
        assert link.window.available == self.h2.outbound_flow_control_window
        assert link.window.available + link.window.owed == LIMITS.connection_window
        for stream in self.us.streams:
            assert stream.unread == 0
            assert stream.send_window == self.h2.streams[stream.id].inbound_flow_control_window
            if not stream.is_remote_ended:
                assert stream.window.available == self.h2.streams[stream.id].outbound_flow_control_window


ACTIONS: Final[tuple[Callable[[World, int], None], ...]] = (
    *(World.open, World.answer, World.we_send, World.h2_sends) * 2,
    World.we_end,
    lambda world, number: world.we_send(number, end=True),
    lambda world, number: world.h2_sends(number, end=True),
    World.we_reset,
    World.h2_resets,
    World.we_credit,
    World.h2_credits,
    World.h2_changes_settings,
    World.ping,
    lambda world, number: world.carry("us", number),
    lambda world, number: world.carry("h2", number),
    lambda world, number: world.carry("us", 1 << 20),
    lambda world, number: world.carry("h2", 1 << 20),
)
HISTORIES = st.lists(st.tuples(st.integers(0, len(ACTIONS) - 1), st.integers(0, 40_000)), max_size=60)


@pytest.mark.parametrize("role", Role)
@settings(max_examples=250, deadline=None)
@given(actions=HISTORIES)
def test_h2_and_we_agree(role: Role, actions: list[tuple[int, int]]) -> None:
    world = World(role)
    for action, number in actions:
        world.act(action, number)
    world.rest()
    world.check()


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("seed", range(100))
def test_h2_and_we_agree_over_a_long_history(role: Role, seed: int) -> None:
    rng = random.Random(seed)
    world = World(role)
    for _ in range(300):
        world.act(rng.randrange(len(ACTIONS)), rng.choice((rng.randrange(40_000), rng.randrange(100))))
    world.rest()
    world.check()


@pytest.mark.parametrize("role", Role)
@settings(max_examples=30, deadline=None)
@given(actions=HISTORIES)
def test_a_goaway_from_h2_leaves_our_streams_as_they_are(role: Role, actions: list[tuple[int, int]]) -> None:
    world = World(role)
    for action, number in actions:
        world.act(action, number)
    world.rest()
    before = {stream.id for stream in world.us.streams}
    world.h2.close_connection(0, last_stream_id=1)
    world.carry("us", 1 << 20)
    assert world.drained == PeerDraining(1, 0)
    disowned = {stream_id for stream_id in before if world.is_client and stream_id > 1}
    assert {stream.id for stream in world.us.streams} == before - disowned


@pytest.mark.parametrize("role", Role)
def test_our_goaway_tells_h2_the_last_stream_that_we_serve(role: Role) -> None:
    world = World(role)
    for _ in range(3):
        world.open(1)
    world.rest()
    world.us.goaway()
    (event,) = world.h2.receive_data(take(world.us))
    assert isinstance(event, h2_events.ConnectionTerminated)
    assert (event.error_code, event.last_stream_id) == (0, 0 if world.is_client else 5)


@pytest.mark.parametrize("role", Role)
def test_pings_are_answered_both_ways(role: Role) -> None:
    world = World(role)
    world.ping(1)
    world.ping(2)
    world.settle()
    assert world.pongs == {"us": 1, "h2": 1}


def test_a_refusal_is_an_answer_to_h2() -> None:
    world = World(Role.SERVER)
    world.open(1)
    world.settle()
    world.us.respond(world.us.streams[0], 503, end=True)
    kinds = [type(event).__name__ for event in world.h2.receive_data(take(world.us))]
    assert kinds == ["ResponseReceived", "StreamEnded", "StreamReset"]
