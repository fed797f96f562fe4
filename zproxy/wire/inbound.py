"""What frames mean (RFC 9113 section 5 and 6): the peer's half of every stream, and its word on stream 0.

A fault of the connection raises RemoteProtocolError; a fault of one stream resets that stream. CONNECT
streams carry HEADERS once each way, then DATA; trailers that end a stream are taken as its end.
"""

from typing import Final

from h2.events import ConnectionTerminated, PingAckReceived, RemoteSettingsChanged, SettingsAcknowledged
from h2.settings import SettingCodes

from zproxy.wire import frames
from zproxy.wire.control import Control
from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.events import (
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
from zproxy.wire.flood import CHATTER
from zproxy.wire.headers import parse_answer, parse_request
from zproxy.wire.hpack_blocks import BlockReader, Field
from zproxy.wire.reader import FrameReader
from zproxy.wire.stream import Link, Stream
from zproxy.wire.window import LARGEST


class Inbound(FrameReader):
    """Turns the peer's frames into events, and answers those that want no decision of the driver."""

    __slots__ = ("_blocks", "_control", "_fragments", "_request_flags", "_stream_limit")

    def __init__(self, link: Link, control: Control) -> None:
        super().__init__(link)
        self._control = control
        self._blocks = BlockReader(link.limits.header_list)
        self._fragments: list[bytes] = []
        self._request_flags = 0
        self._stream_limit = max(link.limits.max_streams_unaware, link.limits.max_streams_server)

    def on_preface(self, data: bytes) -> None:
        """See FrameReader."""
        self._control.receive(data)

    def accept_data(self, stream_id: int, length: int) -> Stream | None:
        """See FrameReader."""
        link = self._link
        if length > link.window.available:
            raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the connection's window")
        stream = link.streams.get(stream_id)
        if stream is not None and stream.is_receiving:
            own = stream.window
            if length > own.available:
                raise RemoteProtocolError(
                    ErrorCode.FLOW_CONTROL_ERROR, f"DATA beyond stream {stream_id}'s window"
                )
            link.window.available -= length
            own.available -= length
            stream.unread += length
            return stream
        link.window.available -= length
        link.give(length)
        if stream is None:
            self._stray_data(stream_id, length)
        else:
            code = ErrorCode.STREAM_CLOSED if stream.is_remote_ended else ErrorCode.PROTOCOL_ERROR
            self._stream_error(stream, code)
            link.remember_reset(stream_id, link.resets[stream_id] - length)
        return None

    def on_remote_end(self, stream: Stream) -> None:
        """See FrameReader."""
        stream.is_remote_ended = True
        stream.is_receiving = False
        self._events.append(StreamEnded(stream))
        if stream.is_local_ended:
            self._link.close(stream)

    def on_frame(self, kind: int, flags: int, stream_id: int, payload: memoryview) -> None:
        """See FrameReader."""
        _HANDLERS[kind](self, flags, stream_id, payload)

    def _stray_data(self, stream_id: int, length: int) -> None:
        """DATA for no open stream: legal only if it crossed our RST_STREAM and its window had room for it."""
        under_way = self._link.resets.get(stream_id)
        if under_way is None:
            idle = self._link.is_idle(stream_id)
            code = ErrorCode.PROTOCOL_ERROR if idle else ErrorCode.STREAM_CLOSED
            raise RemoteProtocolError(code, f"DATA on {'idle' if idle else 'closed'} stream {stream_id}")
        if length > under_way:
            raise RemoteProtocolError(
                ErrorCode.FLOW_CONTROL_ERROR, f"DATA beyond stream {stream_id}'s window"
            )
        self._link.resets[stream_id] = under_way - length

    def _stream_error(self, stream: Stream, code: ErrorCode) -> None:
        """End one stream for a fault of the peer."""
        self._link.reset(stream, code)
        self._events.append(StreamReset(stream, code))
        self._link.guard.waste("stream errors")

    def _on_headers(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if not stream_id & 1:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            payload = frames.header_fragment(flags, payload)
        fragment = bytes(payload)
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, fragment, ends=bool(flags & frames.END_STREAM))
        else:
            self.block_stream = stream_id
            self._fragments, self._request_flags = [fragment], flags

    def _on_continuation(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if stream_id != self.block_stream or not stream_id:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._fragments.append(bytes(payload))
        total = sum(map(len, self._fragments))
        if len(self._fragments) > self._link.limits.continuations or total > self._link.limits.header_list:
            raise RemoteProtocolError(
                ErrorCode.ENHANCE_YOUR_CALM, "a header block in too many or large pieces"
            )
        if flags & frames.END_HEADERS:
            block, self._fragments, self.block_stream = b"".join(self._fragments), [], 0
            self._on_block(stream_id, block, ends=bool(self._request_flags & frames.END_STREAM))

    def _on_block(self, stream_id: int, block: bytes, *, ends: bool) -> None:
        fields = self._blocks.read(block)
        stream = self._link.streams.get(stream_id)
        if stream is None:
            self._on_new_block(stream_id, fields, ends=ends)
        elif stream.is_remote_ended:
            self._stream_error(stream, ErrorCode.STREAM_CLOSED)
        elif not stream.is_receiving:
            self._on_answer(stream, fields, ends=ends)
        elif ends:
            self.on_remote_end(stream)
        else:
            self._stream_error(stream, ErrorCode.PROTOCOL_ERROR)

    def _on_new_block(self, stream_id: int, fields: list[Field], *, ends: bool) -> None:
        link = self._link
        if stream_id in link.resets:
            return
        if not link.is_server or stream_id <= link.last_id:
            closed = not link.is_server and not link.is_idle(stream_id)
            code = ErrorCode.STREAM_CLOSED if closed else ErrorCode.PROTOCOL_ERROR
            raise RemoteProtocolError(code, f"HEADERS on stream {stream_id}, which is no new one")
        if link.is_leaving or len(link.streams) >= self._stream_limit:
            link.last_id = stream_id
            link.out += frames.rst_stream(stream_id, ErrorCode.REFUSED_STREAM)
            link.remember_reset(stream_id, link.limits.stream_window)
            if not link.is_leaving:
                self._events.append(StreamRefused(stream_id))
            link.guard.waste("streams beyond the limit")
            return
        stream = link.add(stream_id)
        stream.is_receiving = True
        self._events.append(StreamRequested(stream, parse_request(fields)))
        if ends:
            self.on_remote_end(stream)

    def _on_answer(self, stream: Stream, fields: list[Field], *, ends: bool) -> None:
        answer = parse_answer(fields)
        if answer is None or (answer[0] < 200 and ends):
            self._stream_error(stream, ErrorCode.PROTOCOL_ERROR)
        elif answer[0] < 200:
            self._link.guard.spend(CHATTER, "informational answers")
        else:
            stream.is_receiving = stream.is_answered = True
            self._events.append(StreamAnswered(stream, answer[0], answer[1]))
            if ends:
                self.on_remote_end(stream)

    def _on_rst_stream(self, _flags: int, stream_id: int, payload: memoryview) -> None:
        code = frames.word(payload)
        link = self._link
        stream = link.streams.get(stream_id)
        if stream is None:
            self._reject_idle(stream_id, "RST_STREAM")
            link.guard.spend(CHATTER, "RST_STREAM on closed streams")
            return
        link.close(stream)
        link.forfeit(stream)
        self._events.append(StreamReset(stream, code))
        if link.is_server and not stream.is_answered:
            link.guard.waste("streams reset before their answer")

    def _on_window_update(self, _flags: int, stream_id: int, payload: memoryview) -> None:
        increment = frames.word(payload) & frames.STREAM_MASK
        if not stream_id:
            self._open_connection(increment)
            return
        stream = self._link.streams.get(stream_id)
        if stream is None:
            self._reject_idle(stream_id, "WINDOW_UPDATE")
        elif not increment:
            self._stream_error(stream, ErrorCode.PROTOCOL_ERROR)
        elif stream.send_window + increment > LARGEST:
            self._stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            was_shut = stream.send_window <= 0
            stream.send_window += increment
            if was_shut and stream.send_window > 0:
                self._events.append(WindowOpened(stream))

    def _open_connection(self, increment: int) -> None:
        link = self._link
        if not increment:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        if link.send_window + increment > LARGEST:
            raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")
        if not link.send_window:
            self._events.append(WindowOpened(None))
        link.send_window += increment

    def _on_priority(self, _flags: int, stream_id: int, payload: memoryview) -> None:
        if not stream_id:
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise RemoteProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"PRIORITY with {len(payload)} bytes")
        self._link.guard.spend(CHATTER, "PRIORITY frames")

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: memoryview) -> None:
        raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which we do not allow")

    def _on_settings(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if flags & frames.ACK and payload:
            raise RemoteProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS ACK with a payload")
        self._link.guard.spend(CHATTER + len(payload) // 60, "SETTINGS")
        self._control_frame(frames.SETTINGS, flags, stream_id, payload)

    def _on_ping(self, flags: int, stream_id: int, payload: memoryview) -> None:
        self._link.guard.spend(CHATTER, "PING frames")
        self._control_frame(frames.PING, flags, stream_id, payload)

    def _on_goaway(self, flags: int, stream_id: int, payload: memoryview) -> None:
        self._link.guard.spend(CHATTER, "GOAWAY frames")
        self._control_frame(frames.GOAWAY, flags, stream_id, payload)

    def _control_frame(self, kind: int, flags: int, stream_id: int, payload: memoryview) -> None:
        """Let h2 judge and answer a frame, and follow what it found."""
        frame = frames.head(len(payload), kind, flags, stream_id) + payload
        for event in self._control.receive(frame):
            match event:
                case RemoteSettingsChanged():
                    self._apply({code: change.new_value for code, change in event.changed_settings.items()})
                case SettingsAcknowledged():
                    self._blocks.settings_acknowledged()
                    self._link.settings_acknowledged()
                    self._events.append(PeerAgreed())
                    self._stream_limit = self._link.limits.max_streams_server
                case PingAckReceived():
                    self._events.append(PingAnswered(event.ping_data))
                case ConnectionTerminated():
                    self._drain(event.last_stream_id or 0, int(event.error_code or 0))
        self._link.out += self._control.output()

    def _apply(self, settings: dict[SettingCodes | int, int]) -> None:
        link = self._link
        link.peer_max_frame = settings.get(SettingCodes.MAX_FRAME_SIZE, link.peer_max_frame)
        link.peer_max_streams = settings.get(SettingCodes.MAX_CONCURRENT_STREAMS, link.peer_max_streams)
        window = settings.get(SettingCodes.INITIAL_WINDOW_SIZE, link.peer_initial_window)
        delta, link.peer_initial_window = window - link.peer_initial_window, window
        for stream in link.streams.values():
            stream.send_window += delta
            if stream.send_window > LARGEST:
                text = f"INITIAL_WINDOW_SIZE makes stream {stream.id}'s window overflow"
                raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, text)
        if not link.is_ready:
            link.is_ready = True
            self._events.append(PeerReady())
        elif delta > 0:
            self._events.append(WindowOpened(None))

    def _drain(self, last_stream_id: int, code: int) -> None:
        """Let go on what the peer will serve; the rest it never touched."""
        link = self._link
        link.is_draining = True
        disowned = [
            stream for stream in link.streams.values() if not link.is_server and stream.id > last_stream_id
        ]
        for stream in disowned:
            link.close(stream)
            link.forfeit(stream)
            self._events.append(StreamReset(stream, ErrorCode.REFUSED_STREAM))
        self._events.append(PeerDraining(last_stream_id, code))

    def _reject_idle(self, stream_id: int, what: str) -> None:
        if self._link.is_idle(stream_id):
            raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, f"{what} on idle stream {stream_id}")


_HANDLERS: Final = {
    frames.HEADERS: Inbound._on_headers,
    frames.PRIORITY: Inbound._on_priority,
    frames.RST_STREAM: Inbound._on_rst_stream,
    frames.SETTINGS: Inbound._on_settings,
    frames.PUSH_PROMISE: Inbound._on_push_promise,
    frames.PING: Inbound._on_ping,
    frames.GOAWAY: Inbound._on_goaway,
    frames.WINDOW_UPDATE: Inbound._on_window_update,
    frames.CONTINUATION: Inbound._on_continuation,
}
