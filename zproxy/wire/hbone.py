"""HBONE's HTTP/2 connection, both roles: CONNECT streams in one tunnel (RFC 9113), without socket or clock.

h2 owns stream 0; the streams are ours, because h2 costs half the connection rate on them and five sixths of
the throughput on DATA. The driver moves the bytes: it hands decrypted batches to `receive`, builds DATA
frames in its own buffer with `put_data_header`, and sends `out` in between, in order.
"""

from collections.abc import Callable, Sequence
from typing import Final

from zproxy.config import Limits
from zproxy.wire import frames
from zproxy.wire.control import Control
from zproxy.wire.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from zproxy.wire.events import Event
from zproxy.wire.headers import answer_block
from zproxy.wire.hpack_blocks import NO_TABLE
from zproxy.wire.inbound import Inbound
from zproxy.wire.stream import Link, Role, Stream
from zproxy.wire.window import INITIAL

NO_ROOM: Final = -2
"""`fill` asked for nothing because a window is shut."""

_pack = frames.HEAD.pack_into


class HboneConnection:
    """One tunnel's HTTP/2 state.

    `out` ALWAYS holds control frames in the order in which they must be sent: a driver appends and clears
    it before it builds a DATA frame, and when it flushes. Calls on a closed stream do nothing, since the
    peer may close one at any moment; only DATA for it is refused. A driver that gives a stream up ALWAYS
    calls `reset`, also when the stream is closed: that returns what nobody will read to the connection's
    window.
    """

    __slots__ = ("_control", "_inbound", "_is_dead", "_link", "_next_id", "_preamble", "credit", "out")

    def __init__(self, role: Role, limits: Limits) -> None:
        self._link = Link(role, limits)
        self._control = Control(is_server=self._link.is_server, limits=limits)
        self._inbound = Inbound(self._link, self._control)
        self._is_dead = False
        self._next_id = 1
        self._preamble = NO_TABLE
        """What the next header block must begin with; nothing after the first."""
        self.out = self._link.out
        self.credit = self._link.credit
        """Note that the far socket took bytes of a stream; the peer is told a quarter window at a time."""

    @property
    def is_ready(self) -> bool:
        """The peer's SETTINGS are here."""
        return self._link.is_ready

    @property
    def is_draining(self) -> bool:
        """A GOAWAY was sent or received: no new streams."""
        return self._link.is_draining

    @property
    def open_streams(self) -> int:
        """Streams that are not closed."""
        return len(self._link.streams)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that are not closed, and after a RemoteProtocolError those whose end it swallowed."""
        return (*self._link.streams.values(), *self._inbound.untold)

    @property
    def streams_opened(self) -> int:
        """Streams so far, closed ones included."""
        return self._link.opened

    @property
    def max_streams(self) -> int:
        """How many streams a client may have open at a time: the peer's limit and ours."""
        return min(self._link.peer_max_streams, self._link.limits.max_streams_client)

    @property
    def can_open(self) -> bool:
        """Whether a client may open another stream now."""
        link = self._link
        return (
            not link.is_draining
            and len(link.streams) < self.max_streams
            and self._next_id <= frames.STREAM_MASK
        )

    @property
    def unfinished(self) -> int:
        """0 between frames and header blocks, else a number that stays while one is incomplete."""
        return self._inbound.unfinished

    def tick(self) -> None:
        """Note that a second passed: it allows the peer a few more wasted streams."""
        self._link.guard.tick()

    def start(self) -> None:
        """Queue preface and SETTINGS, and raise the connection's window."""
        self.out += self._control.start()
        raised = self._link.window.available - INITIAL
        if raised:
            self.out += frames.window_update(0, raised)

    def receive(self, data: memoryview) -> list[Event]:
        """Take decrypted bytes; DATA chunks in the events are slices of `data`.

        RemoteProtocolError means that the tunnel is dead: its GOAWAY is in `out`, and further bytes are
        ignored.
        """
        if self._is_dead:
            return []
        try:
            return self._inbound.read(data)
        except RemoteProtocolError as error:
            self._is_dead = self._link.is_draining = True
            self.out += self._control.goaway(error.code, self._last_peer_stream(), str(error))
            raise

    def open_stream(self, head: bytes) -> Stream:
        """Client: send a CONNECT whose header block is `head`."""
        link = self._link
        if not self.can_open or link.is_server:
            raise LocalProtocolError(f"a stream more than the peer allows ({len(link.streams)} open)")
        stream = link.add(self._next_id)
        self._next_id += 2
        self._send_block(stream, head, end=False)
        return stream

    def respond(
        self, stream: Stream, status: int, headers: Sequence[tuple[str, str]] = (), *, end: bool = False
    ) -> None:
        """Server: send the final answer to a request; `end` refuses it and closes the stream both ways."""
        if stream.is_closed:
            return
        if stream.is_answered:
            raise LocalProtocolError(f"a second answer on stream {stream.id}")
        stream.is_answered = True
        self._send_block(stream, answer_block(status, headers), end=end)
        if end:
            # The answer is complete; whatever still comes of the request is not wanted (RFC 9113 8.1).
            self._link.reset(stream, ErrorCode.NO_ERROR)

    @property
    def max_frame(self) -> int:
        """The largest DATA frame that the peer takes, in bytes of payload."""
        return self._link.peer_max_frame

    def window(self, stream: Stream) -> int:
        """Return how many bytes both windows allow, in as many frames as that takes; maybe less than 0."""
        return min(stream.send_window, self._link.send_window)

    def budget(self, stream: Stream) -> int:
        """Return how many bytes the stream's next DATA frame may carry; 0 until a WindowOpened."""
        link = self._link
        allowed = stream.send_window
        if allowed > link.send_window:  # noqa: PLR1730  # min() costs twice as much, on every frame
            allowed = link.send_window
        if allowed > link.peer_max_frame:  # noqa: PLR1730  # likewise
            allowed = link.peer_max_frame
        return allowed if allowed > 0 and not stream.is_local_ended else 0

    def put_data_header(
        self, buffer: bytearray | memoryview, at: int, stream: Stream, size: int, *, end: bool = False
    ) -> None:
        """Write a DATA frame's 9 bytes; its `size` bytes, within `budget`, ALWAYS follow on the wire."""
        link = self._link
        if size and (size > stream.send_window or size > link.send_window or size > link.peer_max_frame):
            raise LocalProtocolError(f"{size} bytes of DATA on stream {stream.id}, beyond its budget")
        if stream.is_local_ended:
            raise LocalProtocolError(f"DATA on stream {stream.id} after its end")
        stream.send_window -= size
        link.send_window -= size
        _pack(buffer, at, size << 8, frames.END_STREAM if end else 0, stream.id)
        if end:
            link.end_local(stream)

    def fill(self, buffer: memoryview, at: int, stream: Stream, receive: Callable[[memoryview], int]) -> int:
        """Let `receive` write the payload of one DATA frame that begins at `at`, as far as windows allow.

        Return how many bytes it gave, and then all of the frame is there; 0 when it gave none, NO_ROOM when
        it was not asked because a window is shut. This is `budget` and `put_data_header` in one, for every
        message of every app passes here.
        """
        link = self._link
        size = stream.send_window
        if size > link.send_window:  # noqa: PLR1730  # as in budget
            size = link.send_window
        if size > link.peer_max_frame:  # noqa: PLR1730  # likewise
            size = link.peer_max_frame
        if size <= 0 or stream.is_local_ended:
            return NO_ROOM
        payload = at + frames.HEAD_SIZE
        moved = receive(buffer[payload : payload + size])
        if moved:
            stream.send_window -= moved
            link.send_window -= moved
            _pack(buffer, at, moved << 8, 0, stream.id)
        return moved

    def end(self, stream: Stream) -> None:
        """Send END_STREAM: nothing more from our side."""
        if not stream.is_local_ended:
            self.out += frames.head(0, frames.DATA, frames.END_STREAM, stream.id)
            self._link.end_local(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """Close the stream both ways at once."""
        self._link.reset(stream, code)

    def ping(self, opaque: bytes) -> None:
        """Ask the peer for a sign of life: 8 bytes, which PingAnswered brings back."""
        self.out += self._control.ping(opaque)

    def goaway(self, code: int = 0, text: str = "") -> None:
        """Say that no new stream will be served; open ones go on, and later ones are refused, not lost."""
        self._link.is_draining = self._link.is_leaving = True
        self.out += self._control.goaway(code, self._last_peer_stream(), text)

    def _last_peer_stream(self) -> int:
        return self._link.last_id if self._link.is_server else 0

    def _send_block(self, stream: Stream, block: bytes, *, end: bool) -> None:
        link = self._link
        if self._preamble:
            block, self._preamble = self._preamble + block, b""
        self.out += frames.headers(stream.id, block, link.peer_max_frame, end_stream=end)
        if end:
            link.end_local(stream)
