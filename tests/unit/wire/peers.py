"""HTTP/2 peers in memory: two of our machines, or one against raw frames, and events to compare."""

from collections.abc import Callable, Iterator
from typing import Any

from zproxy.config import Limits
from zproxy.wire import frames
from zproxy.wire.events import DataReceived, Event, StreamRequested
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.headers import connect_block
from zproxy.wire.stream import Role, Stream

AUTHORITY = "10.244.2.5:8080"
LIMITS = Limits()
SMALL = Limits(stream_window=1000, connection_window=70_000, max_frame=20_000, max_streams_server=3)
"""Windows that a test can exhaust, a frame that does not fit one window."""


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return frames.head(len(payload), kind, flags, stream_id) + payload


def settings(**values: int) -> bytes:
    """Build a SETTINGS frame from `s3=100` pairs: the setting's number and its value."""
    pairs = ((int(name[1:]), value) for name, value in values.items())
    payload = b"".join(code.to_bytes(2, "big") + value.to_bytes(4, "big") for code, value in pairs)
    return frame(frames.SETTINGS, 0, 0, payload)


def request(stream_id: int = 1, *, ends: bool = False, block: bytes | None = None) -> bytes:
    flags = frames.END_HEADERS | (frames.END_STREAM if ends else 0)
    return frame(frames.HEADERS, flags, stream_id, connect_block(AUTHORITY) if block is None else block)


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(frames.DATA, flags, stream_id, payload)


def take(connection: HboneConnection) -> bytes:
    taken = bytes(connection.out)
    connection.out.clear()
    return taken


def parse(raw: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return the frames as kind, flags, stream, payload."""
    found, at = [], 0
    while at < len(raw):
        word, flags, stream_id = frames.HEAD.unpack_from(raw, at)
        end = at + frames.HEAD_SIZE + (word >> 8)
        found.append((word & 0xFF, flags, stream_id, raw[at + frames.HEAD_SIZE : end]))
        at = end
    return found


def frozen(events: list[Event]) -> list[tuple[Any, ...]]:
    """Return events that outlive the buffer: type, stream id, and the rest as values."""
    return list(map(_frozen, events))


def _frozen(event: Event) -> tuple[Any, ...]:
    def value(part: Any) -> Any:
        if isinstance(part, Stream):
            return part.id
        return b"".join(part) if isinstance(part, list) else part

    return (type(event).__name__, *map(value, event))


def ready(role: Role, limits: Limits = LIMITS) -> HboneConnection:
    """Return a machine whose peer has sent preface and SETTINGS and acknowledged ours; nothing in `out`."""
    connection = HboneConnection(role, limits)
    connection.start()
    preface = frames.PREFACE if role is Role.SERVER else b""
    connection.receive(memoryview(preface + settings() + frame(frames.SETTINGS, frames.ACK)))
    connection.out.clear()
    return connection


def serve(connection: HboneConnection, stream_id: int = 1, *, answer: bool = True) -> Stream:
    """Open a stream from the raw peer, and answer it."""
    (event,) = connection.receive(memoryview(request(stream_id)))
    assert isinstance(event, StreamRequested)
    if answer:
        connection.respond(event.stream, 200)
        connection.out.clear()
    return event.stream


def dial(connection: HboneConnection) -> Stream:
    """Open a stream to the raw peer, which answers 200."""
    stream = connection.open_stream(connect_block(AUTHORITY))
    connection.out.clear()
    connection.receive(memoryview(frame(frames.HEADERS, frames.END_HEADERS, stream.id, b"\x88")))
    return stream


def put(connection: HboneConnection, stream: Stream, payload: bytes, *, end: bool = False) -> bytes:
    """Return what a driver would send for `payload`, control frames first; it must fit the budget."""
    before = take(connection)
    buffer = bytearray(frames.HEAD_SIZE) + payload
    connection.put_data_header(buffer, 0, stream, len(payload), end=end)
    return before + bytes(buffer)


def pieces(raw: bytes, sizes: Callable[[], int]) -> Iterator[memoryview]:
    """Cut `raw` into pieces of the sizes that `sizes` returns."""
    at = 0
    while at < len(raw):
        size = sizes()
        yield memoryview(raw)[at : at + size]
        at += size


class Joined:
    """A client and a server of ours. `settle` moves bytes until both are silent; `events` are per side."""

    def __init__(self, client: Limits = LIMITS, server: Limits = LIMITS, step: int = 1 << 20) -> None:
        self.client = HboneConnection(Role.CLIENT, client)
        self.server = HboneConnection(Role.SERVER, server)
        self.step = step
        self.events: dict[str, list[Event]] = {"client": [], "server": []}
        self.received: dict[tuple[str, int], bytearray] = {}
        self.client.start()
        self.server.start()
        self.settle()

    def settle(self) -> None:
        while self.client.out or self.server.out:
            self.carry("server", self.server, take(self.client))
            self.carry("client", self.client, take(self.server))

    def carry(self, side: str, to: HboneConnection, raw: bytes) -> None:
        """Deliver bytes in steps, each in a buffer that is wiped afterwards."""
        for piece in pieces(raw, lambda: self.step):
            buffer = bytearray(piece)
            for event in to.receive(memoryview(buffer)):
                self.events[side].append(event)
                if isinstance(event, DataReceived):
                    got = self.received.setdefault((side, event.stream.id), bytearray())
                    got += b"".join(event.chunks)
                    event.chunks.clear()
            buffer[:] = bytes(len(buffer))

    def open(self) -> tuple[Stream, Stream]:
        """Open a stream; return it as the client and as the server see it."""
        near = self.client.open_stream(connect_block(AUTHORITY))
        self.settle()
        requested = self.events["server"][-1]
        assert isinstance(requested, StreamRequested)
        self.server.respond(requested.stream, 200)
        self.settle()
        return near, requested.stream
