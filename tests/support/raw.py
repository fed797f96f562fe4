"""The far end of a tunnel, played by the test: real TLS and HTTP/2 frames, and no decision of its own.

It uses the standard library's TLS engine, so that a tunnel of zproxy is met by another implementation.
"""

import contextlib
import socket
from typing import Protocol

from zproxy.config import Limits
from zproxy.errors import TlsFailed
from zproxy.model.addr import Endpoint
from zproxy.model.credentials import Credentials
from zproxy.wire.errors import RemoteProtocolError
from zproxy.wire.events import (
    DataReceived,
    Event,
    PeerDraining,
    StreamAnswered,
    StreamEnded,
    StreamRequested,
    StreamReset,
)
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.headers import ConnectRequest, Headers, connect_block
from zproxy.wire.stream import Role, Stream
from zproxy.wire.tls import TlsContext
from zproxy.wire.tls_stdlib import StdlibEngine


class Played(Protocol):
    """Something that moves when its test waits."""

    def step(self) -> None:
        """Take what has arrived and send what is due."""

    def close(self) -> None:
        """Close every socket of it."""


class RawPeer:
    """One tunnel. Keeps what it heard, stream by stream; `is_mute` makes it hold its tongue and its ears."""

    def __init__(self, sock: socket.socket, context: TlsContext, role: Role, limits: Limits) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.tls = context.session()
        self.wire = HboneConnection(role, limits)
        self.is_mute = False
        self.holds_preface = False
        """TLS is all that it does."""
        self.is_secured = False
        self.is_cut = False
        """The tunnel's socket ended, by FIN or RST."""
        self.failure: Exception | None = None
        self.streams: list[Stream] = []
        """Opened by the peer, in order."""
        self.requests: list[ConnectRequest] = []
        self.answers: dict[int, tuple[int, Headers]] = {}
        self.data: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.draining: PeerDraining | None = None
        self._out = bytearray()

    @classmethod
    def dial(cls, to: Endpoint, credentials: Credentials, source_ip: str, limits: Limits) -> "RawPeer":
        """Connect as a client from `source_ip`."""
        sock = socket.create_connection(to, source_address=(source_ip, 0))
        peer = cls(sock, StdlibEngine().client(credentials), Role.CLIENT, limits)
        peer.tls.handshake()
        return peer

    @property
    def received(self) -> bytes:
        """Every byte of every stream."""
        return b"".join(self.data.values())

    def request(self, authority: str) -> Stream:
        """Open a stream."""
        return self.wire.open_stream(connect_block(authority))

    def send(self, stream: Stream, data: bytes, *, end: bool = False) -> None:
        """Send one DATA frame."""
        frame = bytearray(9) + data
        self.wire.put_data_header(frame, 0, stream, len(data), end=end)
        self.send_raw(frame)

    def send_raw(self, frames: bytes | bytearray) -> None:
        """Send bytes as they are inside TLS, behind the frames that are due."""
        self._seal()
        self.tls.write(bytes(frames))

    def step(self) -> None:
        """See Played."""
        if self.is_mute or self.is_cut:
            return
        with contextlib.suppress(BlockingIOError):
            try:
                while not self.is_cut:
                    self._take(self.sock.recv(1 << 18))
            except ConnectionError:
                self.is_cut = True
        self._flush()

    def close(self) -> None:
        """See Played."""
        self.sock.close()

    def _take(self, cipher: bytes) -> None:
        if not cipher:
            self.is_cut = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
            return
        try:
            self.tls.feed(memoryview(cipher))
            if not self.is_secured:
                self.is_secured = self.tls.handshake()
                if not self.is_secured:
                    return
                if not self.holds_preface:
                    self.wire.start()
            plain = memoryview(bytearray(1 << 16))
            while size := self.tls.read_into(plain):
                for event in self.wire.receive(plain[:size]):
                    self._note(event)
        except (TlsFailed, RemoteProtocolError) as error:
            self.failure = error

    def _note(self, event: Event) -> None:
        match event:
            case StreamRequested(stream, request):
                assert isinstance(request, ConnectRequest)
                self.streams.append(stream)
                self.requests.append(request)
            case StreamAnswered(stream, status, headers):
                self.answers[stream.id] = (status, headers)
            case DataReceived(stream, chunks):
                self.data.setdefault(stream.id, bytearray()).extend(b"".join(chunks))
            case StreamEnded(stream):
                self.ended.add(stream.id)
            case StreamReset(stream, code):
                self.resets[stream.id] = code
            case PeerDraining():
                self.draining = event

    def _seal(self) -> None:
        if self.is_secured and self.wire.out:
            self.tls.write(bytes(self.wire.out))
            self.wire.out.clear()

    def _flush(self) -> None:
        if self.failure is None:
            self._seal()
        self._out += self.tls.output()
        try:
            del self._out[: self.sock.send(self._out)]
        except BlockingIOError:
            pass
        except ConnectionError:
            self.is_cut = True


class RawServer:
    """A listener whose tunnels are RawPeers, in order of arrival; `is_mute` holds all of them up."""

    def __init__(self, credentials: Credentials, limits: Limits, ip: str) -> None:
        self._context = StdlibEngine().server(credentials)
        self._limits = limits
        self._sock = socket.create_server((ip, 0), backlog=512)
        self._sock.setblocking(False)
        self.port: int = self._sock.getsockname()[1]
        self.peers: list[RawPeer] = []
        self.is_mute = False

    def step(self) -> None:
        """See Played."""
        if self.is_mute:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = self._sock.accept()
                self.peers.append(RawPeer(accepted, self._context, Role.SERVER, self._limits))
        for peer in self.peers:
            peer.step()

    def close(self) -> None:
        """See Played."""
        self._sock.close()
        for peer in self.peers:
            peer.close()
