"""What a peer's bytes meant: the events of an HboneConnection, in the order in which they happened."""

from typing import NamedTuple

from zproxy.wire.headers import ConnectRequest, Headers, Refusal
from zproxy.wire.stream import Stream


class StreamRequested(NamedTuple):
    """Server: a peer opened a stream. A Refusal stands for a malformed request: answer its status."""

    stream: Stream
    request: ConnectRequest | Refusal


class StreamRefused(NamedTuple):
    """Server: a peer opened a stream more than it may; it was refused, and the peer may try elsewhere."""

    stream_id: int


class StreamAnswered(NamedTuple):
    """Client: the final answer to a CONNECT; only a 2xx status makes the stream a tunnel."""

    stream: Stream
    status: int
    headers: Headers


class DataReceived(NamedTuple):
    """All bytes that one `receive` brought for a stream: slices of its buffer, valid until that is reused."""

    stream: Stream
    chunks: list[memoryview]


class StreamEnded(NamedTuple):
    """The peer sends nothing more on this stream; our direction is as open as before."""

    stream: Stream


class StreamReset(NamedTuple):
    """The stream is closed both ways: by the peer, for a fault of the peer, or because a GOAWAY disowned it.

    REFUSED_STREAM means that the peer did nothing with it: the same request may be sent on another tunnel.
    """

    stream: Stream
    code: int


class WindowOpened(NamedTuple):
    """A window that was shut is open again; None: the connection's, or many at once. Ask `budget` again."""

    stream: Stream | None


class PeerReady(NamedTuple):
    """The peer's first SETTINGS are here; they bind us from now on."""


class PeerAgreed(NamedTuple):
    """The peer acknowledged our SETTINGS; they bind it from now on."""


class PeerDraining(NamedTuple):
    """GOAWAY: no new streams; those up to `last_stream_id` go on."""

    last_stream_id: int
    code: int


class PingAnswered(NamedTuple):
    """The peer's answer to one of our PINGs."""

    opaque: bytes


Event = (
    StreamRequested
    | StreamRefused
    | StreamAnswered
    | DataReceived
    | StreamEnded
    | StreamReset
    | WindowOpened
    | PeerReady
    | PeerAgreed
    | PeerDraining
    | PingAnswered
)
