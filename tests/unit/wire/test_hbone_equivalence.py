"""Our machine and a full h2 connection read the same bytes, cut anywhere: the same events, in the same order.

Histories have faults in them. Where the two differ on purpose, CLASSES says how and why.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from h2 import events as h2_events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.wire.peers import AUTHORITY, data, frame, pieces, request, take
from tests.unit.wire.peers import settings as settings_frame
from zproxy.config import Limits
from zproxy.wire import events, frames
from zproxy.wire.errors import RemoteProtocolError
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.headers import connect_block
from zproxy.wire.hpack_blocks import literal
from zproxy.wire.stream import Role

LIMITS: Final = Limits(
    stream_window=70_000, connection_window=150_000, max_frame=20_000, max_streams_server=4
)
END, WHOLE, PADDED, PRIORITY = frames.END_STREAM, frames.END_HEADERS, frames.PADDED, frames.HAS_PRIORITY
TRAILERS: Final = literal("x-last", "1")

Seen = list[tuple[Any, ...]]
CONNECTION = "connection error"


def ours(role: Role, raw: bytes, sizes: Callable[[], int], streams: int) -> tuple[Seen, Any]:
    """Return what our machine makes of `raw`, and the state it ends in."""
    connection = HboneConnection(role, LIMITS)
    connection.start()
    seen: Seen = []
    for piece in pieces(opening(role), sizes):
        connection.receive(piece)
    if role is Role.CLIENT:
        for _ in range(streams):
            connection.open_stream(connect_block(AUTHORITY))
    take(connection)
    try:
        for piece in pieces(raw, sizes):
            for event in connection.receive(piece):
                if isinstance(event, events.StreamRequested):
                    connection.respond(event.stream, 200)
                seen += _ours(event)
    except RemoteProtocolError:
        return [*seen, (CONNECTION,)], None
    link = connection._link
    return seen, (
        link.send_window,
        {
            stream.id: (stream.send_window, stream.window.available, stream.is_remote_ended)
            for stream in connection.streams
        },
    )


def _ours(event: events.Event) -> Iterator[tuple[Any, ...]]:
    match event:
        case events.StreamRequested(stream):
            yield "request", stream.id
        case events.StreamAnswered(stream, status):
            yield "answer", stream.id, status
        case events.DataReceived(stream, chunks):
            yield "data", stream.id, b"".join(chunks)
        case events.StreamEnded(stream):
            yield "end", stream.id
        case events.StreamReset(stream, code):
            yield "reset", stream.id, int(code)
        case events.PingAnswered(opaque):
            yield "pong", opaque
        case events.PeerDraining(last, code):
            yield "goaway", last, code


def theirs(role: Role, raw: bytes, streams: int) -> tuple[Seen, Any]:
    """Return the same of h2; it is given whole frames, so that it says of each frame what came of it."""
    h2 = H2Connection(H2Configuration(client_side=role is Role.CLIENT, header_encoding=None))
    h2.local_settings = Settings(
        client=role is Role.CLIENT,
        initial_values={
            SettingCodes.HEADER_TABLE_SIZE: 0,
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: LIMITS.stream_window,
            SettingCodes.MAX_FRAME_SIZE: LIMITS.max_frame,
            SettingCodes.MAX_HEADER_LIST_SIZE: LIMITS.header_list,
        },
    )
    h2.initiate_connection()
    h2.increment_flow_control_window(LIMITS.connection_window - 65_535)
    h2.receive_data(opening(role))
    if role is Role.CLIENT:
        for stream_id in range(1, 2 * streams, 2):
            h2.send_headers(stream_id, [(":method", "CONNECT"), (":authority", AUTHORITY)])
    h2.clear_outbound_data_buffer()
    seen: Seen = []
    for one in whole_frames(raw):
        try:
            for event in h2.receive_data(one):
                seen += _theirs(h2, event)
        except ProtocolError:
            return [*seen, (CONNECTION,)], None
    return seen, (
        h2.outbound_flow_control_window,
        {
            stream_id: (
                stream.outbound_flow_control_window,
                stream.inbound_flow_control_window,
                stream.state_machine.state.name == "HALF_CLOSED_REMOTE",
            )
            for stream_id, stream in h2.streams.items()
            if not stream.closed
        },
    )


def _theirs(h2: H2Connection, event: h2_events.Event) -> Iterator[tuple[Any, ...]]:
    match event:
        case h2_events.RequestReceived():
            h2.send_headers(event.stream_id or 0, [(":status", "200")])
            yield "request", event.stream_id
        case h2_events.ResponseReceived():
            yield "answer", event.stream_id, next(int(value) for _, value in event.headers or ())
        case h2_events.DataReceived():
            if event.data:
                yield "data", event.stream_id, event.data
            padding = (event.flow_controlled_length or 0) - len(event.data or b"")
            if padding and event.stream_ended is None:  # ours credits padding by itself
                h2.acknowledge_received_data(padding, event.stream_id or 0)
        case h2_events.StreamEnded():
            yield "end", event.stream_id
        case h2_events.StreamReset():
            yield "reset", event.stream_id, int(event.error_code or 0)
        case h2_events.PingAckReceived():
            yield "pong", event.ping_data
        case h2_events.ConnectionTerminated():
            yield "goaway", event.last_stream_id, int(event.error_code or 0)


def opening(role: Role) -> bytes:
    preface = frames.PREFACE if role is Role.SERVER else b""
    return preface + frame(frames.SETTINGS) + frame(frames.SETTINGS, frames.ACK)


def whole_frames(raw: bytes, role: Role = Role.CLIENT) -> Iterator[bytes]:
    """Cut at the frames; a server is sent the preface before the first one."""
    at = 0
    if role is Role.SERVER:
        at = len(frames.PREFACE)
        yield frames.PREFACE
    while at < len(raw):
        size = frames.HEAD_SIZE + int.from_bytes(raw[at : at + 3], "big")
        yield raw[at : at + size]
        at += size


def joined(seen: Seen) -> Seen:
    """Join neighbouring data of a stream: ours comes once per batch, h2's once per frame."""
    whole: Seen = []
    for event in seen:
        if event[0] == "data" and whole and whole[-1][:2] == event[:2]:
            whole[-1] = (*event[:2], whole[-1][2] + event[2])
        else:
            whole.append(event)
    return whole


def per_stream(seen: Seen) -> dict[Any, Seen]:
    """Order is a promise of each stream: ours gives a batch's data at its first byte."""
    found: dict[Any, Seen] = {}
    for event in seen:
        is_stream = event[0] in {"request", "answer", "data", "end", "reset"}
        found.setdefault(event[1] if is_stream else 0, []).append(event)
    return {key: joined(value) for key, value in found.items()}


def blocks(stream_id: int, number: int, block: bytes, *, ends: bool) -> bytes:
    """Return HEADERS in one of the shapes that are legal: whole, padded, with priority, in pieces."""
    flags = END if ends else 0
    match number % 5:
        case 0:
            return frame(frames.HEADERS, flags | WHOLE | PADDED, stream_id, b"\x03" + block + bytes(3))
        case 1:
            return frame(frames.HEADERS, flags | WHOLE | PRIORITY, stream_id, b"\0\0\0\0\x10" + block)
        case 2:
            cut = number % len(block)
            return frame(frames.HEADERS, flags, stream_id, block[:cut]) + frame(
                frames.CONTINUATION, WHOLE, stream_id, block[cut:]
            )
        case 3:
            third = len(block) // 3
            return (
                frame(frames.HEADERS, flags, stream_id, block[:third])
                + frame(frames.CONTINUATION, 0, stream_id, block[third : 2 * third])
                + frame(frames.CONTINUATION, WHOLE, stream_id, block[2 * third :])
            )
    return frame(frames.HEADERS, flags | WHOLE, stream_id, block)


class History:
    """Writes what a peer could say next; keeps only what it needs in order to be legal most of the time."""

    def __init__(self, role: Role) -> None:
        self.is_server = role is Role.SERVER
        self.raw = bytearray()
        self.next_id = 1
        self.open: list[int] = []
        self.alive = 0
        """Streams that count: those which the peer ended are still open from our side."""
        self.fresh: list[int] = [] if self.is_server else [1, 3, 5]
        """Asked for by the client, not answered."""

    def pick(self, number: int) -> int:
        return self.open[number % len(self.open)] if self.open else 0

    def begin(self, number: int) -> None:
        """Open a stream, or answer one."""
        if self.is_server and self.alive < LIMITS.max_streams_server:
            stream_id, self.next_id = self.next_id, self.next_id + 2
            self.raw += blocks(stream_id, number, connect_block(AUTHORITY), ends=False)
        elif not self.is_server and self.fresh:
            stream_id = self.fresh.pop(0)
            self.raw += blocks(stream_id, number, b"\x88" + TRAILERS, ends=False)
        else:
            return
        self.open.append(stream_id)
        self.alive += 1

    def write(self, number: int) -> None:
        stream_id = self.pick(number)
        if stream_id:
            payload = bytes((number & 0xFF,)) * (1 + number % 3000)
            padding = number % 4
            if padding:
                payload = bytes((padding,)) + payload + bytes(padding)
            self.raw += data(stream_id, payload, PADDED if padding else 0)

    def end(self, number: int) -> None:
        stream_id = self.pick(number)
        if stream_id:
            self.open.remove(stream_id)
            if number % 2:
                self.raw += blocks(stream_id, number // 2, TRAILERS, ends=True)
            else:
                self.raw += data(stream_id, b"last"[: number % 5], END)

    def reset(self, number: int) -> None:
        stream_id = self.pick(number)
        if stream_id:
            self.open.remove(stream_id)
            self.alive -= 1
            self.raw += frames.rst_stream(stream_id, 8)

    def window(self, number: int) -> None:
        self.raw += frames.window_update(self.pick(number) if number % 2 else 0, 1 + number % 1000)

    def change(self, number: int) -> None:
        self.raw += settings_frame(s4=(0, 1, 1000, 65_535, 100_000)[number % 5])

    def odd(self, number: int) -> None:
        """Something that changes nothing."""
        self.raw += (
            frame(0x42, number & 0xFF, number % 9, bytes(number % 50)),
            frame(frames.PING, 0, 0, bytes(8)),
            frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\x10"),
            data(self.pick(number), b"") if self.open else b"",
        )[number % 4]

    def leave(self) -> None:
        """Say GOAWAY, for all that was opened; h2 takes no frame after it, ours does (RFC 9113 6.8)."""
        self.raw += frame(frames.GOAWAY, 0, 0, (99).to_bytes(4, "big") + bytes(4))

    def fault(self, number: int) -> None:
        """Break a rule whose breach ends the connection for both."""
        if number % 4 == 0:
            self.raw += FAULTS[number // 4 % len(FAULTS)]


FAULTS: Final = (
    data(0, b"x"),
    data(99, b"x"),
    frames.rst_stream(0, 8),
    frames.window_update(0, 0),
    frames.window_update(0, (1 << 31) - 1),
    frames.window_update(99, 1),
    request(0),
    frame(frames.PUSH_PROMISE, WHOLE, 1, (2).to_bytes(4, "big") + b"\x82"),
    frame(frames.CONTINUATION, WHOLE, 99, b"\x82"),
    frame(frames.HEADERS, 0, 1, b"\x82") + frame(frames.PING, 0, 0, bytes(8)),
    frame(frames.PING, 0, 0, bytes(7)),
    frame(frames.PING, 0, 1, bytes(8)),
    frame(frames.SETTINGS, 0, 0, bytes(5)),
    frame(frames.SETTINGS, 0, 1, b""),
    frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
    settings_frame(s4=1 << 31),
    settings_frame(s5=100),
    frame(frames.GOAWAY, 0, 1, bytes(8)),
    frame(frames.PRIORITY, 0, 1, bytes(4)),
    frame(frames.PRIORITY, 0, 0, bytes(5)),
    frame(frames.RST_STREAM, 0, 1, bytes(3)),
    frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)),
    frame(frames.HEADERS, PADDED | WHOLE, 1, b"\x09abc"),
    frame(frames.DATA, PADDED, 1, b"\x09abc"),
    frame(frames.HEADERS, WHOLE, 1, b"\xff\x20"),
    frame(frames.HEADERS, WHOLE, 1, b"\x00\x05ab"),
    frames.head(LIMITS.max_frame + 1, frames.DATA, 0, 1) + bytes(LIMITS.max_frame + 1),
)

ACTIONS: Final = (
    History.begin, History.begin, History.write, History.write, History.write, History.end, History.reset,
    History.window, History.change, History.odd, History.fault,
)  # fmt: skip


def compare(role: Role, raw: bytes, sizes: Callable[[], int], streams: int) -> None:
    expected, their_state = theirs(role, raw, streams)
    got, our_state = ours(role, raw, sizes, streams)
    if their_state is None:
        # What a batch brought before its fault dies with the tunnel; frame by frame, all must be the same.
        assert (got[-1], our_state) == ((CONNECTION,), None)
        assert is_beginning(per_stream(got[:-1]), per_stream(expected[:-1]))
        lengths = iter([len(one) for one in (*whole_frames(opening(role), role), *whole_frames(raw))])
        got, _ = ours(role, raw, lambda: next(lengths), streams)
    assert per_stream(got) == per_stream(expected)
    if their_state is None:
        return
    assert our_state == their_state


def is_beginning(part: dict[Any, Seen], whole: dict[Any, Seen]) -> bool:
    """Tell whether each stream saw a part of what it sees in `whole`, from the start on."""

    def flat(seen: Seen) -> list[Any]:
        return [
            item
            for event in seen
            for item in ([("data", byte) for byte in event[2]] if event[0] == "data" else [event])
        ]

    return all(flat(seen) == flat(whole.get(key, []))[: len(flat(seen))] for key, seen in part.items())


@pytest.mark.parametrize("role", Role)
@settings(max_examples=600, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, len(ACTIONS) - 1), st.integers(0, 4000)), max_size=40),
    seed=st.integers(0, 1 << 16),
)
def test_the_same_bytes_mean_the_same_to_h2(role: Role, steps: list[tuple[int, int]], seed: int) -> None:
    history = History(role)
    for action, number in steps:
        ACTIONS[action](history, number)
    if seed % 3 == 0:
        history.leave()
    rng = random.Random(seed)
    sizes = rng.choice((lambda: 1, lambda: 9, lambda: rng.choice((1, 8, 9, 10, 500)), lambda: 1 << 20))
    compare(role, bytes(history.raw), sizes, 3)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("size", [1, 8, 9, 10, 1 << 20])
@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_fault_is_one_to_both_wherever_it_is_cut(role: Role, number: int, size: int) -> None:
    history = History(role)
    history.begin(4)
    history.write(1000)
    history.fault(4 * number)
    compare(role, bytes(history.raw), lambda: size, 3)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("seed", range(60))
def test_a_long_history_means_the_same_to_h2(role: Role, seed: int) -> None:
    rng = random.Random(seed)
    history = History(role)
    for _ in range(150):
        action = rng.choice(ACTIONS)
        if action is not History.fault or rng.random() < 0.05:
            action(history, rng.randrange(4000))
    sizes = rng.choice((lambda: 1, lambda: rng.choice((1, 8, 9, 10, 500)), lambda: 1 << 20))
    compare(role, bytes(history.raw), sizes, 3)


def verdict(seen: Seen) -> str:
    """Say what a fault came to: `nothing` when the stream and the connection go on."""
    last = seen[-1]
    return {CONNECTION: CONNECTION, "reset": "stream"}.get(last[0], "nothing")


CLASSES: Final = {
    "a stream's window that overflows": (frames.window_update(1, (1 << 31) - 1), "stream", "stream"),
    "DATA after the end": (data(1, b"", END) + data(1, b"y"), "stream", "stream"),
    "HEADERS after the end": (data(1, b"", END) + request(1), "stream", "stream"),
    "a stream below the last": (request(5) + request(3), CONNECTION, CONNECTION),
    "an even stream": (request(2), CONNECTION, CONNECTION),
    "a frame larger than announced": (
        frames.head(20_001, 0x42, 0, 0) + bytes(20_001),
        CONNECTION,
        CONNECTION,
    ),
    "SETTINGS that make a window overflow": (
        frames.window_update(1, (1 << 31) - 1 - 65_535) + settings_frame(s4=65_536),
        CONNECTION,
        CONNECTION,
    ),
    "DATA beyond the stream's window": (data(1, bytes(20_000)) * 4, CONNECTION, CONNECTION),
    "RST_STREAM of 3 bytes on a closed stream": (
        frames.rst_stream(1, 8) + frame(frames.RST_STREAM, 0, 1, bytes(3)),
        CONNECTION,
        CONNECTION,
    ),
    # From here on they differ. RFC 9113 6.4: a connection error.
    "RST_STREAM on an idle stream": (frames.rst_stream(99, 8), CONNECTION, "nothing"),
    # 5.1, closed: whoever sent RST_STREAM may send nothing more.
    "DATA on a stream that the peer reset": (frames.rst_stream(1, 8) + data(1, b"y"), CONNECTION, "stream"),
    # 6.10: a connection error, whatever its stream was; h2 takes no offence once it forgot that stream.
    "CONTINUATION on a stream that is long closed": (
        frames.rst_stream(1, 8) + request(3) + frame(frames.CONTINUATION, WHOLE, 1, b"\x82"),
        CONNECTION,
        "nothing",
    ),
    # 6.9 and 8.1.1 call these stream errors; others share the tunnel.
    "a stream's WINDOW_UPDATE by 0": (frames.window_update(1, 0), "stream", CONNECTION),
    "HEADERS in the middle": (request(1), "stream", CONNECTION),
    "trailers that end nothing": (frame(frames.HEADERS, WHOLE, 1, TRAILERS), "stream", CONNECTION),
    # Answered by status 400, as ztunnel does.
    "a request without authority": (
        frame(frames.HEADERS, WHOLE, 3, literal(":method", "CONNECT")),
        "nothing",
        CONNECTION,
    ),
    "a request with an upper-case field": (
        frame(frames.HEADERS, WHOLE, 3, connect_block(AUTHORITY) + literal("X-Y", "z")),
        "nothing",
        CONNECTION,
    ),
    # 5.3.2: priority means nothing any more.
    "a stream that depends on itself": (
        frame(frames.PRIORITY, 0, 1, b"\0\0\0\1\x10"),
        "nothing",
        CONNECTION,
    ),
}
"""Faults of one stream, and what each machine makes of them: ours, then h2."""


@pytest.mark.parametrize("case", CLASSES)
def test_a_fault_has_its_class_and_where_h2_differs_is_known(case: str) -> None:
    raw, ours_is, theirs_is = CLASSES[case]
    whole = request(1) + data(1, b"x") + raw
    got = (
        verdict(ours(Role.SERVER, whole, lambda: 1, 0)[0]),
        verdict(theirs(Role.SERVER, whole, 0)[0]),
    )
    assert got == (ours_is, theirs_is)
