"""One CONNECT stream, and what all streams of a tunnel share."""

from enum import Enum
from typing import Any, Final

from zproxy.config import Limits
from zproxy.wire import frames
from zproxy.wire.errors import LocalProtocolError
from zproxy.wire.flood import FloodGuard
from zproxy.wire.window import INITIAL, LARGEST, ReceiveWindow

REMEMBERED_RESETS: Final = 1024
"""Streams that we reset and for which frames may still be under way; far more than a round trip holds."""


class Role(Enum):
    """Who opens streams."""

    CLIENT = "client"
    SERVER = "server"


class Stream:
    """State of one stream; drivers read it, and own nothing but `owner`.

    `is_closed` ALWAYS implies both ends ended. `unread` NEVER counts bytes that the peer was given credit
    for.
    """

    __slots__ = (
        "id", "is_answered", "is_closed", "is_local_ended", "is_receiving", "is_remote_ended", "owner",
        "send_window", "unread", "window",
    )  # fmt: skip

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.owner: Any = None
        """The driver's own object for this stream."""
        self.send_window = send_window
        """May be negative after the peer shrank its INITIAL_WINDOW_SIZE."""
        self.window = ReceiveWindow(receive_window)
        self.unread = 0
        """Bytes received and not credited: still with the driver, or on their way to it."""
        self.is_receiving = False
        """DATA is legal now: a server's from the request on, a client's from the answer on."""
        self.is_answered = False
        self.is_local_ended = False
        self.is_remote_ended = False
        self.is_closed = False


class Link:
    """What both directions of one HTTP/2 connection share: windows, the peer's settings, the open streams."""

    __slots__ = (
        "guard", "initial_window", "is_draining", "is_leaving", "is_ready", "is_server", "last_id", "limits",
        "opened", "out", "peer_initial_window", "peer_max_frame", "peer_max_streams", "resets",
        "send_window", "streams", "window",
    )  # fmt: skip

    def __init__(self, role: Role, limits: Limits) -> None:
        self.is_server = role is Role.SERVER
        self.limits = limits
        self.out = bytearray()
        self.streams: dict[int, Stream] = {}
        self.opened = 0
        """Streams so far, closed ones included."""
        self.resets: dict[int, int] = {}
        """Streams that we reset lately, and how many bytes the peer may have had under way for each."""
        self.last_id = 0
        """Highest stream id that the client, be it the peer or we, has used."""
        self.window = ReceiveWindow(max(limits.connection_window, INITIAL))
        self.initial_window = max(limits.stream_window, INITIAL)
        """Receive window of a new stream: before its ACK the peer may not know of a smaller one."""
        self.send_window = INITIAL
        self.peer_initial_window = INITIAL
        self.peer_max_frame = frames.SMALLEST_MAX_FRAME
        self.peer_max_streams = LARGEST
        self.is_ready = False
        self.is_draining = False
        """GOAWAY was received or sent: we open no streams."""
        self.is_leaving = False
        """GOAWAY was sent: the peer may open none."""
        self.guard = FloodGuard(limits)

    def add(self, stream_id: int) -> Stream:
        """Open a stream."""
        stream = Stream(stream_id, self.peer_initial_window, self.initial_window)
        self.streams[stream_id] = stream
        self.last_id = stream_id
        self.opened += 1
        return stream

    def settings_acknowledged(self) -> None:
        """Hold the peer to our stream window, which it knows from now on (RFC 9113 6.9.2)."""
        delta = self.limits.stream_window - self.initial_window
        if delta:
            self.initial_window += delta
            for stream in self.streams.values():
                stream.window.resize(delta, self.initial_window)

    def is_idle(self, stream_id: int) -> bool:
        """Whether nobody has used this stream yet; even ones, which a server would push, never are."""
        return stream_id > self.last_id or not stream_id & 1

    def end_local(self, stream: Stream) -> None:
        """Note that our END_STREAM is queued or about to be sent."""
        stream.is_local_ended = True
        if stream.is_remote_ended:
            self.close(stream)

    def close(self, stream: Stream) -> None:
        """Forget the stream. What is unread stays owed: the driver may still have it."""
        self.streams.pop(stream.id, None)
        stream.is_closed = stream.is_local_ended = stream.is_remote_ended = True
        stream.is_receiving = False

    def reset(self, stream: Stream, code: int) -> None:
        """Send RST_STREAM unless the stream is closed, and return its unread bytes to the connection."""
        if not stream.is_closed:
            self.out += frames.rst_stream(stream.id, code)
            self.remember_reset(stream.id, max(stream.window.available, 0))
            self.close(stream)
        self.forfeit(stream)

    def remember_reset(self, stream_id: int, under_way: int) -> None:
        """Let frames that crossed our RST_STREAM pass unpunished."""
        self.resets[stream_id] = under_way
        if len(self.resets) > REMEMBERED_RESETS:
            del self.resets[next(iter(self.resets))]

    def forfeit(self, stream: Stream) -> None:
        """Give up the stream's unread bytes, which else were lost to the connection's window for ever."""
        unread, stream.unread = stream.unread, 0
        self.give(unread)

    def credit(self, stream: Stream, size: int) -> None:
        """Return `size` bytes that the far socket took."""
        if size > stream.unread:
            if not stream.is_closed:
                raise LocalProtocolError(
                    f"credit for {size} bytes of stream {stream.id}, {stream.unread} unread"
                )
            size = stream.unread
        stream.unread -= size
        # What `give` does, spelled out for both windows: this runs for each piece that an app takes.
        window = self.window
        window.owed += size
        if window.owed >= window.quarter:
            self.give(0)
        if not stream.is_remote_ended:
            window = stream.window
            window.owed += size
            if window.owed >= window.quarter and (increment := window.give(0)):
                self.out += frames.window_update(stream.id, increment)

    def give(self, size: int) -> None:
        """Return `size` bytes to the connection's window."""
        increment = self.window.give(size)
        if increment:
            self.out += frames.window_update(0, increment)
