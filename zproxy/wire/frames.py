"""HTTP/2 frames as bytes (RFC 9113 section 4 and 6): heads packed in place, small frames made whole."""

import struct
from typing import Final

from zproxy.wire.errors import ErrorCode, RemoteProtocolError

HEAD: Final = struct.Struct(">IBI")
"""Length and type share the first word: length << 8 | type; then flags, then the stream."""
HEAD_SIZE: Final = 9
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

STREAM_MASK: Final = 0x7FFF_FFFF
"""The top bit of a stream id, of an increment and of a last-stream-id is reserved and ignored."""
SMALLEST_MAX_FRAME: Final = 1 << 14
"""What every peer takes, whatever its SETTINGS say."""

_WITH_WORD = struct.Struct(">IBII")


def head(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Return a frame's 9 bytes."""
    return HEAD.pack(size << 8 | kind, flags, stream_id)


def rst_stream(stream_id: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return _WITH_WORD.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return _WITH_WORD.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def headers(stream_id: int, block: bytes, max_frame: int, *, end_stream: bool) -> bytes:
    """Return HEADERS and as many CONTINUATION frames as the peer's frame size makes necessary."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame:
        return head(len(block), HEADERS, flags | END_HEADERS, stream_id) + block
    pieces = [block[at : at + max_frame] for at in range(0, len(block), max_frame)]
    kinds = [HEADERS] + [CONTINUATION] * (len(pieces) - 1)
    ends = [flags] + [0] * (len(pieces) - 2) + [END_HEADERS]
    return b"".join(
        head(len(piece), kind, end, stream_id) + piece
        for piece, kind, end in zip(pieces, kinds, ends, strict=True)
    )


def header_fragment(flags: int, payload: memoryview) -> memoryview:
    """Return a HEADERS payload without its padding and priority; priority is ignored (RFC 9113 5.3.2)."""
    padding = 0
    if flags & PADDED:
        if not payload:
            raise RemoteProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a padded HEADERS frame has no pad length")
        padding, payload = payload[0], payload[1:]
    if flags & HAS_PRIORITY:
        if len(payload) < 5:
            raise RemoteProtocolError(
                ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame is shorter than its priority"
            )
        payload = payload[5:]
    if padding > len(payload):
        raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, "a HEADERS frame has more padding than payload")
    return payload[: len(payload) - padding]


def word(payload: memoryview) -> int:
    """Return the 32 bits that a RST_STREAM or WINDOW_UPDATE frame carries."""
    if len(payload) != 4:
        raise RemoteProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of 4 bytes has {len(payload)}")
    return int.from_bytes(payload, "big")
