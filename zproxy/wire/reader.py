"""The receiving hot loop: a batch of decrypted bytes is walked frame by frame, in place.

DATA flows through: a frame need not be whole, its bytes go on as slices of the buffer as they come. Every
other frame is small, is kept until it is whole, and goes to `on_frame`. Unknown frames are skipped without
being kept.
"""

from typing import Final

from zproxy.config import Limits
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.events import DataReceived, Event, StreamEnded, StreamReset
from zproxy.wire.flood import CHATTER
from zproxy.wire.stream import Link, Stream

_PADDING: Final = 256 + 5
"""The most that padding and priority add to a HEADERS payload."""
_H2_LIMIT: Final = frames.SMALLEST_MAX_FRAME
"""Of SETTINGS and GOAWAY; either is kept until it is whole."""

_unpack = frames.HEAD.unpack_from


class FrameReader:
    """Finds the frames; a subclass knows what they mean.

    Between two calls it holds at most the head of one frame, or one incomplete frame that is not DATA.
    """

    __slots__ = (
        "_batches", "_completed", "_ends", "_events", "_flow", "_largest", "_link", "_partial", "_preface",
        "_remaining", "_skip", "block_stream", "untold",
    )  # fmt: skip

    def __init__(self, link: Link) -> None:
        self._link = link
        self._partial = bytearray()
        """Beginning of a frame whose rest is still under way."""
        self._completed = 0
        """Frames that came in pieces so far."""
        self._flow: Stream | None = None
        self._remaining = 0
        """DATA bytes still to come for `_flow`."""
        self._ends = False
        """The DATA frame under way ends the stream."""
        self._skip = 0
        """Bytes to be dropped: padding, DATA of streams that are gone, unknown frames."""
        self._batches: dict[int, list[memoryview]] = {}
        self._events: list[Event] = []
        self._preface = len(frames.PREFACE) if link.is_server else 0
        """Bytes of the client's preface that are still to come."""
        self._largest = _largest(link.limits)
        self.untold: tuple[Stream, ...] = ()
        """Streams that ended in the batch which a fault of the peer cut off: nobody has heard of it."""
        self.block_stream = 0
        """Stream of a header block that is incomplete: nothing but its CONTINUATION may follow."""

    @property
    def unfinished(self) -> int:
        """0 between frames and blocks, else a number that stays the same while one is incomplete."""
        return self._completed + 1 if self._partial or self.block_stream else 0

    def read(self, data: memoryview) -> list[Event]:
        """Return the events of a batch; chunks are slices of `data`."""
        events: list[Event] = []
        self._events = events
        batches = self._batches
        try:
            at = 0
            if self._partial or self._skip or self._preface or self._flow is not None:
                at = self._resume(data)
            at = self._walk(data, at)
            if at < len(data):
                self._partial += data[at:]
            self._link.guard.earn(1 + len(batches))
        except RemoteProtocolError:
            closed = (event.stream for event in events if isinstance(event, StreamEnded | StreamReset))
            self.untold = tuple(dict.fromkeys(stream for stream in closed if stream.is_closed))
            raise
        finally:
            batches.clear()
            self._events = []
        return events

    def on_preface(self, data: bytes) -> None:
        """Judge a piece of the client's preface."""
        raise NotImplementedError

    def accept_data(self, stream_id: int, length: int) -> Stream | None:
        """Charge a DATA frame to the windows; None when its bytes are to be dropped."""
        raise NotImplementedError

    def on_remote_end(self, stream: Stream) -> None:
        """The peer's END_STREAM is complete."""
        raise NotImplementedError

    def on_frame(self, kind: int, flags: int, stream_id: int, payload: memoryview) -> None:
        """Take a whole frame that is not DATA; `payload` is valid during the call."""
        raise NotImplementedError

    def _walk(self, data: memoryview, at: int) -> int:
        """Read all frames from `at` on; return where an incomplete one begins, or the end."""
        link, batches = self._link, self._batches
        streams, window, max_frame = link.streams, link.window, link.limits.max_frame
        size = len(data)
        while size - at >= frames.HEAD_SIZE:
            word, flags, stream_id = _unpack(data, at)
            length = word >> 8
            end = at + frames.HEAD_SIZE + length
            if not (word & 0xFF or flags or end > size or length > max_frame or self.block_stream):
                # A plain DATA frame, all of it here: the case that counts.
                stream = streams.get(stream_id)
                if stream is not None and stream.is_receiving and 0 < length <= window.available:
                    own = stream.window
                    if length <= own.available:
                        window.available -= length
                        own.available -= length
                        stream.unread += length
                        chunks = batches.get(stream_id)
                        if chunks is None:
                            chunks = self._batch(stream)
                        chunks.append(data[at + frames.HEAD_SIZE : end])
                        at = end
                        continue
            if at + self._needed(word, flags) > size:
                return at
            at = self._begin(data, at)
            if self._skip or self._flow is not None:
                at = self._flow_on(data, at)
        return at

    def _resume(self, data: memoryview) -> int:
        """Finish what the last batch left incomplete; return where fresh frames begin."""
        at = min(self._preface, len(data))
        if at:
            self._preface -= at
            self.on_preface(bytes(data[:at]))
        at = self._flow_on(data, at)
        partial = self._partial
        while partial:
            whole = frames.HEAD_SIZE
            if len(partial) >= whole:
                word, flags, _ = _unpack(partial)
                whole = self._needed(word, flags)
            missing = whole - len(partial)
            if missing > 0:
                piece = data[at : at + missing]
                partial += piece
                at += len(piece)
                if len(piece) < missing:
                    return at
                continue
            frame = memoryview(bytes(partial))
            partial.clear()
            self._completed += 1
            self._begin(frame, 0)
            at = self._flow_on(data, at)
        return at

    def _needed(self, word: int, flags: int) -> int:
        """Return how much of a frame must be here before it can be begun; judge its size by its head."""
        kind, length = word & 0xFF, word >> 8
        if not self._link.is_ready and (kind != frames.SETTINGS or flags & frames.ACK):
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self.block_stream and kind != frames.CONTINUATION:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "a frame in the middle of a header block")
        if length > (self._largest[kind] if kind < len(self._largest) else self._largest[frames.DATA]):
            is_block = kind in {frames.HEADERS, frames.CONTINUATION}
            code = ErrorCode.ENHANCE_YOUR_CALM if is_block else ErrorCode.FRAME_SIZE_ERROR
            raise RemoteProtocolError(code, f"a frame of type {kind} with {length} bytes")
        if kind == frames.DATA:
            return frames.HEAD_SIZE + (1 if flags & frames.PADDED and length else 0)
        return frames.HEAD_SIZE + (length if kind <= frames.CONTINUATION else 0)

    def _begin(self, data: memoryview, at: int) -> int:
        """Begin the frame at `at`, of which `_needed` bytes are here; return where its rest would begin."""
        word, flags, stream_id = _unpack(data, at)
        kind: int = word & 0xFF
        length: int = word >> 8
        stream_id &= frames.STREAM_MASK
        at += frames.HEAD_SIZE
        if kind == frames.DATA:
            return self._begin_data(data, at, flags, stream_id, length)
        if kind > frames.CONTINUATION:
            self._link.guard.spend(CHATTER, "unknown frames")
            self._skip = length
            return at
        self.on_frame(kind, flags, stream_id, data[at : at + length])
        return at + length

    def _begin_data(self, data: memoryview, at: int, flags: int, stream_id: int, length: int) -> int:
        padding = 0
        if flags & frames.PADDED:
            if not length:
                raise RemoteProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a padded DATA frame has no pad length")
            padding = data[at] + 1
            at += 1
            if padding > length:
                raise RemoteProtocolError(
                    ErrorCode.PROTOCOL_ERROR, "a DATA frame has more padding than payload"
                )
        stream = self.accept_data(stream_id, length)
        if stream is None:
            self._skip = length - min(padding, 1)
            return at
        if padding:
            self._link.credit(stream, padding)
            self._skip = padding - 1
        self._flow, self._remaining = stream, length - padding
        self._ends = bool(flags & frames.END_STREAM)
        if not self._remaining:
            self._finish_data(stream)
        return at

    def _flow_on(self, data: memoryview, at: int) -> int:
        """Hand on DATA bytes of the frame under way and drop what is to be dropped; return what follows."""
        stream = self._flow
        if stream is not None:
            chunk = data[at : at + self._remaining]
            if chunk:
                at += len(chunk)
                self._remaining -= len(chunk)
                if not stream.is_closed:
                    (self._batches.get(stream.id) or self._batch(stream)).append(chunk)
            if not self._remaining:
                self._flow = None
                if self._ends and not stream.is_closed:
                    self.on_remote_end(stream)
        if self._skip and not self._remaining:
            dropped = min(self._skip, len(data) - at)
            self._skip -= dropped
            at += dropped
        return at

    def _finish_data(self, stream: Stream) -> None:
        """End a DATA frame without a single byte."""
        self._flow = None
        if self._ends:
            self.on_remote_end(stream)
        else:
            self._link.guard.spend(CHATTER, "DATA frames without a byte")

    def _batch(self, stream: Stream) -> list[memoryview]:
        """Open the stream's one DataReceived of this batch."""
        chunks: list[memoryview] = []
        self._batches[stream.id] = chunks
        self._events.append(DataReceived(stream, chunks))
        return chunks


def _largest(limits: Limits) -> tuple[int, ...]:
    """Return the largest payload by frame type, DATA to CONTINUATION."""
    block = min(limits.header_list + _PADDING, limits.max_frame)
    return (limits.max_frame, block, 5, 4, _H2_LIMIT, _H2_LIMIT, 8, _H2_LIMIT, 4, block)
