"""HTTP/2 failures: the peer's faults and our own, each with its RFC 9113 section 7 code."""

from enum import IntEnum


class ErrorCode(IntEnum):
    """Codes of RST_STREAM and GOAWAY. A peer may send others; they travel as plain ints."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def code_name(code: int) -> str:
    """Return the code's RFC name, or its number when it has none."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"0x{code:x}"


class ProtocolError(Exception):
    """Base of both. The message is one sentence; drivers add the addresses."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(f"HTTP/2 {code.name}: {text}")
        self.code = code


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol or a limit: the tunnel is dead, and a GOAWAY that says so is queued."""


class LocalProtocolError(ProtocolError):
    """Our driver asked for what the protocol forbids: a bug here, nothing was sent."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.INTERNAL_ERROR, text)
