"""Fuzz target: zproxy.wire.HboneConnection in either role, driven by a hostile peer and by its own driver.

A case is steps that refer to nothing but numbers, so that any subset of them is a case, too: what fails can
be made smaller. What a case may do is raise RemoteProtocolError; what must hold after every step is in
`Driver._check`.
"""

from collections.abc import Iterator
from random import Random
from typing import Final, NamedTuple

from hpack import Decoder

from tests.support.fuzz_frames import AUTHORITY, Soup, cuts, halves, joined, mutate, pieces
from zproxy.config import Limits
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.events import (
    DataReceived,
    Event,
    PeerAgreed,
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
from zproxy.wire.headers import connect_block
from zproxy.wire.stream import REMEMBERED_RESETS, Role, Stream
from zproxy.wire.window import INITIAL, LARGEST

LIMITS: Final = Limits(
    stream_window=1000, connection_window=70_000, max_frame=20_000, max_streams_server=4,
    max_streams_client=4, header_list=3000,
)  # fmt: skip
"""Windows, streams and lists that a case can exhaust."""
GREETING: Final = joined([(frames.SETTINGS, 0, 0, b""), (frames.SETTINGS, frames.ACK, 0, b"")])
LONG: Final = 0.0002
"""Share of cases that are a long life of one connection, for what grows slowly."""
_HEAD: Final = connect_block(AUTHORITY)
_CALLS: Final = ("open", "respond", "credit", "reset", "end", "put", "refuse", "ping", "goaway")


class Feed(NamedTuple):
    """Bytes of the peer, cut in pieces."""

    raw: bytes
    cuts: tuple[int, ...]


class Call(NamedTuple):
    """A call of the driver, for the stream that is number `stream` (modulo) of those it knows."""

    name: str
    stream: int
    value: int


class Case(NamedTuple):
    """One life of a connection."""

    role: Role
    steps: tuple[Feed | Call, ...]
    is_whole: bool = False
    """Its frames may break every rule but the framing: each is as long as it says."""

    def __str__(self) -> str:
        lines = [
            f"feed {step.raw.hex()} cut at {step.cuts}" if isinstance(step, Feed)
            else f"call {step.name} stream {step.stream} value {step.value}"
            for step in self.steps
        ]  # fmt: skip
        return "\n".join([f"role {self.role.value}", *lines])


def make(rng: Random) -> Case:
    """Return a case: half honest frames, mutated ones, and noise."""
    role = Role.SERVER if rng.random() < 0.5 else Role.CLIENT
    soup = Soup(rng, to_server=role is Role.SERVER)
    steps: list[Feed | Call] = []
    greeting = (frames.PREFACE if role is Role.SERVER else b"") + GREETING
    is_spoiled = rng.random() < 0.05
    if is_spoiled:
        greeting = _spoiled(soup, rng, greeting)
    if rng.random() < LONG:
        return Case(role, (Feed(greeting, ()), *_long_life(soup, role)), is_whole=not is_spoiled)
    kind = rng.random()
    wildness = 0.0 if kind < 0.4 else 0.4
    if kind > 0.95:
        noise = greeting + rng.randbytes(soup.below(200))
        return Case(role, (Feed(noise, cuts(soup, noise)),))
    steps += [Feed(greeting, cuts(soup, greeting) if kind < 0.1 else ()), *_opened(soup, role)]
    for _ in range(1 + soup.below(4)):
        steps += _turn(soup, rng, wildness)
    return Case(role, tuple(steps), is_whole=not (wildness or is_spoiled))


def _long_life(soup: Soup, role: Role) -> Iterator[Feed | Call]:
    """Open a stream each turn and break it some time later: more of them than are remembered."""
    soup.is_polite = True
    for _ in range(3 * REMEMBERED_RESETS):
        if role is Role.CLIENT:
            soup.opened()
            yield Call("open", 0, 0)
        yield Feed(joined(soup.frames(1 + soup.below(4))), ())
        yield from (Call("credit", number, LIMITS.stream_window) for number in range(4))
        yield Call("respond", soup.below(8), 0)
        yield from [Call("reset", number, 8) for number in range(9)]


def _opened(soup: Soup, role: Role) -> list[Feed | Call]:
    """Give a client a few streams, and its peer the knowledge of them."""
    if role is Role.SERVER:
        return []
    count = 1 + soup.below(3)
    for _ in range(count):
        soup.opened()
    return [Call("open", 0, 0)] * count


def _spoiled(soup: Soup, rng: Random, raw: bytes) -> bytes:
    at = soup.below(len(raw))
    return raw[:at] + rng.randbytes(soup.below(3)) + raw[at + soup.below(3) :]


def _turn(soup: Soup, rng: Random, wildness: float) -> list[Feed | Call]:
    made = soup.frames(1 + soup.below(5))
    raw = mutate(soup, rng, made) if rng.random() < wildness else joined(made)
    steps: list[Feed | Call] = []
    for part in halves(soup, raw):
        steps += [
            Call(_CALLS[int(rng.random() ** 1.5 * len(_CALLS))], soup.below(8), soup.below(1200))
            for _ in range(soup.below(5))
        ]
        steps.append(Feed(part, cuts(soup, part)))
    return steps


def run(case: Case) -> None:
    """Run a case; what it finds is an exception. Some are run again in one piece, to the same end."""
    driver = Driver(case.role, is_whole=case.is_whole)
    driver.run(case.steps)
    if len(case.steps) < 8 and all(isinstance(step, Feed) and len(step.raw) < 2000 for step in case.steps):
        raw = b"".join(step.raw for step in case.steps if isinstance(step, Feed))
        whole, single = Driver(case.role), Driver(case.role)
        whole.run((Feed(raw, ()),))
        single.run((Feed(raw, tuple(range(1, len(raw)))),))
        assert whole.sent == single.sent, "the answer depends on how the peer's bytes were cut"
        assert whole.is_dead == single.is_dead
        assert whole.is_dead or whole.heard == single.heard, "events depend on how the bytes were cut"


class Driver:
    """The driver of one connection, its memory of what happened, and its doubts."""

    def __init__(self, role: Role, *, is_whole: bool = False) -> None:
        self.connection = HboneConnection(role, LIMITS)
        self.connection.start()
        self.is_dead = False
        self.heard: dict[int, list[object]] = {}
        """Per stream (0: the connection), what was reported; data in one piece."""
        self.sent = bytearray()
        self._is_server = role is Role.SERVER
        self._is_whole = is_whole
        self._streams: list[Stream] = []
        self._unread: dict[Stream, int] = {}
        self._fed = self._calls = 0
        self._walker = Walker(is_server=self._is_server)

    def run(self, steps: tuple[Feed | Call, ...]) -> None:
        for step in steps:
            if isinstance(step, Feed):
                for piece in pieces(step.raw, step.cuts):
                    self._feed(bytearray(piece))
            else:
                self._calls += 1
                self._call(step)
            self._check()
        self._check_tables()

    def _feed(self, piece: bytearray) -> None:
        self._fed += len(piece)
        events: list[Event] = []
        code = -1
        try:
            events = self.connection.receive(memoryview(piece))
        except RemoteProtocolError as error:
            code = error.code
        for event in events:
            self._hear(event)
        piece[:] = bytes(len(piece))  # chunks are not valid any more: nobody may hold one
        self._take()
        if code >= 0:
            assert self._walker.goaway_code == code
            assert not (self._is_whole and code == ErrorCode.FRAME_SIZE_ERROR), "whole frames are misread"
        assert not (self.is_dead and (events or code >= 0)), "a dead connection speaks"
        self.is_dead = self.is_dead or code >= 0

    def _hear(self, event: Event) -> None:
        if isinstance(event, PeerReady | PeerAgreed | PeerDraining | PingAnswered | StreamRefused):
            self.heard.setdefault(0, []).append(event)
            return
        stream = event.stream
        if stream is None or isinstance(event, WindowOpened):
            return
        past = self.heard.setdefault(stream.id, [])
        assert not (past and past[-1] == "reset"), "an event after the stream's reset"
        if isinstance(event, StreamRequested):
            assert self._is_server
            assert not past
            self._know(stream)
            past.append("requested")
        elif isinstance(event, StreamAnswered):
            assert not self._is_server
            assert not past
            past.append("answered")
        elif isinstance(event, DataReceived):
            self._data(past, event)
        elif isinstance(event, StreamEnded):
            assert past
            assert "ended" not in past
            past.append("ended")
        elif isinstance(event, StreamReset):
            assert stream.is_closed
            past.append("reset")

    def _data(self, past: list[object], event: DataReceived) -> None:
        assert past
        assert past[-1] != "ended"
        size = sum(map(len, event.chunks))
        assert size > 0
        self._unread[event.stream] += size
        if self._is_whole:
            own = event.stream.id & 0xFF
            assert all(bytes(chunk).count(own) == len(chunk) for chunk in event.chunks), (
                "bytes of another frame"
            )
        if isinstance(past[-1], int):
            past[-1] += size
        else:
            past.append(size)

    def _know(self, stream: Stream) -> None:
        self._streams.append(stream)
        self._unread[stream] = 0

    def _call(self, call: Call) -> None:
        connection = self.connection
        if call.name == "open":
            if not self._is_server and connection.is_ready and connection.can_open:
                self._know(connection.open_stream(_HEAD))
        elif call.name == "ping":
            connection.ping(bytes(8))
        elif call.name == "goaway":
            if call.value < 60:
                connection.goaway()
        elif self._streams:
            self._stream_call(call, self._streams[call.stream % len(self._streams)])
        self._take()

    def _stream_call(self, call: Call, stream: Stream) -> None:
        connection, was_open = self.connection, not stream.is_closed
        if call.name in {"respond", "refuse"}:
            refuses = call.name == "refuse"
            if self._is_server and not stream.is_answered:
                connection.respond(stream, 503 if refuses else 200, end=refuses)
                if refuses and was_open:
                    self._forget(stream)
        elif call.name == "credit":
            size = min(call.value, self._unread[stream])
            self._unread[stream] -= size
            connection.credit(stream, size)
        elif call.name == "reset":
            connection.reset(stream, call.value % 14)
            if was_open:
                self._forget(stream)
            self._unread[stream] = 0
        elif stream.is_answered or not self._is_server:
            self._send(call, stream)

    def _send(self, call: Call, stream: Stream) -> None:
        size = min(call.value, self.connection.budget(stream))
        if call.name == "end":
            self.connection.end(stream)
        elif size > 0 and stream.is_answered:
            self._take()
            buffer = bytearray(frames.HEAD_SIZE + size)
            self.connection.put_data_header(buffer, 0, stream, size, end=call.value % 5 == 0)
            self._walker.walk(bytes(buffer))

    def _forget(self, stream: Stream) -> None:
        """We broke it: nothing may be heard of it again."""
        self._unread[stream] = 0
        self.heard.setdefault(stream.id, []).append("reset")

    def _take(self) -> None:
        out = self.connection.out
        if out:
            taken = bytes(out)
            out.clear()
            self.sent += taken
            self._walker.walk(taken)

    def _check(self) -> None:
        """Every received byte is unread, owed, or open again to the peer; and nothing exceeds its limit."""
        assert len(self.sent) <= 400 + 5 * self._fed + 600 * self._calls, "the answer outgrows the question"
        if self.is_dead:
            return  # streams of its last batch were never reported; the driver drops everything now
        link, inbound = self.connection._link, self.connection._inbound
        if len(self._streams) > 8:
            self._streams = [stream for stream in self._streams if stream.unread or not stream.is_closed]
        unread = sum(stream.unread for stream in self._streams)
        assert link.window.available + link.window.owed + unread == LIMITS.connection_window
        assert link.window.available >= 0
        assert 0 <= link.send_window <= LARGEST
        limit = LIMITS.max_streams_unaware if self._is_server else LIMITS.max_streams_client
        assert len(link.streams) <= limit
        for stream in link.streams.values():
            own = stream.window
            assert not stream.is_closed
            assert own.available >= min(0, LIMITS.stream_window - INITIAL), "more was taken than was open"
            assert stream.send_window <= LARGEST
            under_way = inbound._remaining if inbound._flow is stream else 0
            assert stream.unread == self._unread[stream] + under_way, "padding or an end is not accounted for"
            if not stream.is_remote_ended:
                assert own.available + own.owed + stream.unread == link.initial_window

    def _check_tables(self) -> None:
        connection = self.connection
        inbound, h2 = connection._inbound, connection._control._h2
        assert len(inbound._partial) <= LIMITS.max_frame + frames.HEAD_SIZE
        assert sum(map(len, inbound._fragments)) <= 2 * LIMITS.header_list + 261
        assert len(connection._link.resets) <= REMEMBERED_RESETS
        assert not inbound._batches
        assert not inbound._events
        assert not h2.streams
        assert not h2.data_to_send()
        assert len(h2.remote_settings) <= 10
        assert all(len(values) <= 2 for values in h2.remote_settings._settings.values())


class Walker:
    """Reads what we send as a strict peer does."""

    def __init__(self, *, is_server: bool) -> None:
        self.goaway_code = -1
        self._preface = b"" if is_server else frames.PREFACE
        self._hpack = Decoder()
        self._is_server = is_server
        self._ended: set[int] = set()
        self._reset: set[int] = set()
        self._has_settings = False

    def walk(self, raw: bytes) -> None:
        if self._preface:
            assert raw.startswith(self._preface)
            raw, self._preface = raw[len(self._preface) :], b""
        at = 0
        while at < len(raw):
            assert len(raw) - at >= frames.HEAD_SIZE, "a frame is cut off"
            word, flags, stream = frames.HEAD.unpack_from(raw, at)
            at += frames.HEAD_SIZE
            payload = raw[at : at + (word >> 8)]
            at += len(payload)
            assert len(payload) == word >> 8, "a frame is cut off"
            self._frame(word & 0xFF, flags, stream, payload)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload)
        if kind == frames.SETTINGS:
            assert (stream, bool(flags & frames.ACK)) == (0, self._has_settings)
            assert not (flags & frames.ACK and size)
            self._has_settings = True
            return
        assert self._has_settings, "the first frame is not SETTINGS"
        if kind == frames.PING:
            assert (stream, size) == (0, 8)
        elif kind == frames.GOAWAY:
            assert stream == 0
            self.goaway_code = int.from_bytes(payload[4:8], "big")
        elif kind == frames.WINDOW_UPDATE:
            assert size == 4
            assert 0 < int.from_bytes(payload, "big") <= LARGEST
            assert stream not in self._reset
        else:
            self._stream_frame(kind, flags, stream, payload)

    def _stream_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert stream & 1, "a frame on a stream that no client opens"
        assert stream not in self._reset, "a frame after RST_STREAM"
        if kind == frames.RST_STREAM:
            assert len(payload) == 4
            self._reset.add(stream)
            return
        assert kind in {frames.DATA, frames.HEADERS}
        assert stream not in self._ended, "a frame after END_STREAM"
        if flags & frames.END_STREAM:
            self._ended.add(stream)
        if kind == frames.HEADERS:
            assert flags & frames.END_HEADERS
            assert self._hpack.decode(payload)
        else:
            assert len(payload) <= LARGEST
