"""A client that speaks TLS as it should and HTTP/2 as its test wants: whole frames, or any bytes at all.

It decides nothing and checks nothing, so it can break every rule; what it hears is kept as frames.
"""

import contextlib
import socket

from zproxy.errors import TlsFailed
from zproxy.model.credentials import Credentials
from zproxy.wire import frames
from zproxy.wire.tls_stdlib import StdlibEngine

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream and payload."""


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame, legal or not."""
    return frames.head(len(payload), kind, flags, stream_id) + payload


SETTINGS = frame(frames.SETTINGS)
SETTINGS_ACK = frame(frames.SETTINGS, frames.ACK)
HELLO = frames.PREFACE + SETTINGS + SETTINGS_ACK


class FramePeer:
    """One connection; `is_mute` makes it stop reading and sending."""

    def __init__(self, sock: socket.socket, credentials: Credentials) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.tls = StdlibEngine().client(credentials).session()
        self.is_mute = False
        self.is_secured = False
        self.is_cut = False
        """The connection ended, by FIN or RST."""
        self.failure = ""
        """Why TLS ended."""
        self.received = bytearray()
        self._out = bytearray()
        self._waiting: list[bytes] = []
        """Sent before TLS was up."""
        self.tls.handshake()

    def send(self, raw: bytes) -> None:
        """Send bytes inside TLS, when it is up."""
        if self.is_secured:
            self.tls.write(raw)
        else:
            self._waiting.append(raw)

    @property
    def heard(self) -> list[Frame]:
        """Every whole frame so far."""
        found: list[Frame] = []
        at = 0
        while len(self.received) - at >= frames.HEAD_SIZE:
            word, flags, stream_id = frames.HEAD.unpack_from(self.received, at)
            end = at + frames.HEAD_SIZE + (word >> 8)
            if end > len(self.received):
                break
            found.append((word & 0xFF, flags, stream_id, bytes(self.received[at + frames.HEAD_SIZE : end])))
            at = end
        return found

    @property
    def goaway(self) -> tuple[int, str] | None:
        """Code and text of the last GOAWAY."""
        for kind, _, _, payload in reversed(self.heard):
            if kind == frames.GOAWAY:
                return int.from_bytes(payload[4:8], "big"), payload[8:].decode()
        return None

    def resets(self) -> dict[int, int]:
        """Return the RST_STREAM codes by stream."""
        return {
            stream_id: int.from_bytes(payload, "big")
            for kind, _, stream_id, payload in self.heard
            if kind == frames.RST_STREAM
        }

    def step(self) -> None:
        """Take what has arrived and send what is due."""
        if self.is_mute or self.is_cut:
            return
        with contextlib.suppress(BlockingIOError):
            try:
                while not self.is_cut:
                    self._take(self.sock.recv(1 << 18))
            except ConnectionError:
                self.is_cut = True
        if not self.is_cut:
            self._flush()

    def close(self) -> None:
        """End it."""
        self.is_cut = True
        self.sock.close()

    def _take(self, cipher: bytes) -> None:
        if not cipher:
            self.is_cut = True
            return
        try:
            self.tls.feed(memoryview(cipher))
            if not self.is_secured:
                self.is_secured = self.tls.handshake()
                if not self.is_secured:
                    return
                for raw in self._waiting:
                    self.tls.write(raw)
            plain = memoryview(bytearray(1 << 16))
            while size := self.tls.read_into(plain):
                self.received += plain[:size]
        except TlsFailed as error:
            self.failure = str(error)

    def _flush(self) -> None:
        self._out += self.tls.output()
        try:
            del self._out[: self.sock.send(self._out)]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._flushed_into_nothing()

    def _flushed_into_nothing(self) -> None:
        """The other side has closed; what it said last is read all the same."""
        with contextlib.suppress(OSError):
            while cipher := self.sock.recv(1 << 18):
                self._take(cipher)
        self.is_cut = True
