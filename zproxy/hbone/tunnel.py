"""A tunnel: one socket, its TLS session and its HTTP/2 connection, and the bytes between them.

Receiving: one big read, records decrypted back to back into one buffer, frames walked in place, one
delivery per stream; sending is the outbox's. No buffer belongs to a tunnel while it is idle. What client
and server do differently is in zproxy.hbone.client and .server.
"""

import contextlib
import itertools
import socket
from enum import Enum
from typing import Final

from zproxy.errors import PeerBrokeProtocol, TlsFailed, TunnelClosed, ZproxyError
from zproxy.hbone.hooks import TunnelHooks
from zproxy.hbone.outbox import DATA_HEADER, SMALLEST_READ, Outbox
from zproxy.hbone.owner import StreamOwner
from zproxy.hbone.vigil import Finding, Vigil
from zproxy.model.addr import Endpoint
from zproxy.net.deadline import Deadline
from zproxy.net.poller import WRITE
from zproxy.net.sockets import close_with_reset, tune_tunnel
from zproxy.net.worker import Worker
from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.events import (
    DataReceived,
    Event,
    PeerAgreed,
    PeerDraining,
    PeerReady,
    StreamAnswered,
    StreamEnded,
    StreamRefused,
    StreamRequested,
    StreamReset,
    WindowOpened,
)
from zproxy.wire.hbone import NO_ROOM, HboneConnection
from zproxy.wire.stream import Stream
from zproxy.wire.tls import TlsSession

BLOCKED: Final = -1
"""`pull` moved nothing because the socket has nothing now."""
LARGEST_PUSH: Final = SMALLEST_READ - DATA_HEADER
BACKLOGS: Final = 4
"""Times `backlog_bytes` that answers to a peer's frames may add up to; app bytes stop at one."""

_numbers = itertools.count(1)
"""For all workers: `next` on it is one step under the GIL, so no two tunnels of a process share a number."""


class State(Enum):
    """Life of a tunnel, always forward."""

    CONNECTING = "connecting"
    HANDSHAKING = "handshaking"
    OPEN = "open"
    CLOSED = "closed"


class Tunnel(TunnelHooks):
    """What both roles share. Runs on one worker; closes its socket on every path that ends it."""

    def __init__(self, worker: Worker, sock: socket.socket, tls: TlsSession, wire: HboneConnection) -> None:
        self.tune(sock)
        self.id = next(_numbers)
        self.worker = worker
        self.sock = sock
        self.tls = tls
        self.wire = wire
        self.state = State.CONNECTING
        self.opened = worker.poller.now
        """When it began."""
        self.vigil = Vigil(self.opened)
        self.local = self.remote = Endpoint("::", 0)
        self.bytes_recv = 0
        """Ciphertext; the outbox counts what was sent."""
        self.streams_total = 0
        self._outbox = Outbox(worker, sock, tls, wire)
        self._is_dirty = False
        self._leaving_since: float | None = None
        """When it was asked to close as soon as everything is sent, if it was."""
        self._starved: dict[StreamOwner, None] = {}
        """Owners whose pull found no room, longest waiting first."""
        worker.ticking.add(self)

    def tune(self, sock: socket.socket) -> None:
        """Set the options of the tunnel's socket."""
        tune_tunnel(sock)

    def on_event(self, events: int) -> None:
        """Serve readiness of the socket."""
        if events & WRITE and self._outbox.has_backlog:
            self._send_backlog()
        if self.state is not State.CLOSED and events & ~WRITE:
            self._receive()

    def on_deadline(self, deadline: Deadline) -> None:
        """Close: the peer was too slow."""
        if self.state is State.HANDSHAKING:
            self.fail(TlsFailed(f"{self.remote}: {deadline}"))
        else:
            self._stalled(str(deadline))

    def on_tick(self, now: float) -> None:
        """Ping a silent peer that owes us something, and give up on a dead one or one that stalls a frame."""
        self.wire.tick()
        if self._outbox.backlog > BACKLOGS * self.worker.limits.backlog_bytes:
            self.fail(PeerBrokeProtocol(f"{self.remote} makes us answer and does not read the answers"))
            return
        frame_s = self.worker.frame_s
        if self._leaving_since is not None and now - self._leaving_since > frame_s:
            self.fail(PeerBrokeProtocol(f"{self.remote} does not read the end of what it was sent"))
            return
        is_owed = self.state is State.OPEN and self.wire.open_streams > 0
        finding = self.vigil.look(now, unfinished=self.wire.unfinished, frame_s=frame_s, is_owed=is_owed)
        if finding is Finding.PING:
            self.wire.ping(b"zproxy\0\0")
            self.touch()
        elif finding is Finding.STALLED:
            self._stalled(f"a frame took longer than {frame_s:g} s")
        elif finding is Finding.DEAD:
            silent_s = now - self.vigil.heard
            self.fail(TunnelClosed(f"{self.remote} has been silent for {silent_s:.0f} s and answers no ping"))

    def pull(self, source: socket.socket, stream: Stream) -> int:
        """Move what `source` holds into one DATA frame.

        Return the bytes moved, 0 at its end of file, BLOCKED or NO_ROOM. After NO_ROOM the stream's owner
        hears `on_room`. Raises OSError as recv_into does.
        """
        outbox = self._outbox
        if outbox.sealed > self.worker.limits.backlog_bytes:
            self._send()  # many apps at once: what they sent must not pile up until the end of the batch
        if self.state is State.CLOSED:
            return BLOCKED  # by an event of this batch; the stream's own end is among those to come
        if outbox.is_congested:
            self._starved[stream.owner] = None
            return NO_ROOM
        self.touch()
        try:
            moved = outbox.pull(source, stream)
        except BlockingIOError:
            return BLOCKED
        if moved == NO_ROOM:
            self._starved[stream.owner] = None
        return moved

    def room_for(self, stream: Stream) -> int:
        """Return how many bytes `push` may take now; none before the peer, too, has accepted the tunnel."""
        if not self.wire.is_ready or self._outbox.is_congested:
            return 0
        return min(self.wire.budget(stream), LARGEST_PUSH)

    def push(self, stream: Stream, data: bytes) -> None:
        """Send `data`, within `room_for`, as one DATA frame."""
        self._outbox.push(data, stream)
        self.touch()

    def credit(self, stream: Stream, size: int) -> None:
        """Tell the peer, in time, that the app took `size` bytes."""
        self.wire.credit(stream, size)
        if self.wire.out:
            self.touch()

    def end(self, stream: Stream) -> None:
        """Say that the app will send no more."""
        self.wire.end(stream)
        self.touch()

    def reset(self, stream: Stream, code: int) -> None:
        """Break the stream; its owner hears nothing more."""
        self._starved.pop(stream.owner, None)
        self.wire.reset(stream, code)
        self.touch()

    def forget(self, owner: StreamOwner) -> None:
        """The owner's stream is done; ALWAYS called once by an owner whose stream ended both ways."""
        self._starved.pop(owner, None)
        if self.wire.open_streams or self.state is not State.OPEN:
            return
        if self.wire.is_draining:
            self.leave()
        else:
            self.on_idle()

    @property
    def cipher(self) -> str:
        """Version and suite, empty before the handshake is done."""
        return self.tls.cipher() if self.state is State.OPEN else ""

    @property
    def bytes_sent(self) -> int:
        """Ciphertext sent."""
        return self._outbox.bytes_sent

    def touch(self) -> None:
        """Make sure that a flush follows at the end of this batch."""
        if not self._is_dirty:
            self._is_dirty = True
            self.worker.poller.soon(self)

    def flush(self) -> None:
        """Encrypt and send everything collected."""
        self._is_dirty = False
        if self.state is State.CLOSED:
            return
        if self.state is State.OPEN:
            self._outbox.seal()
        self._send()

    def close(self) -> None:
        """Leave in order: GOAWAY, close_notify, FIN. Streams that are still open are lost."""
        if self.state is State.OPEN:
            self.wire.goaway()
            self._outbox.seal()
            self.tls.shutdown()
            self._send()
        self._finish(None)

    def leave(self) -> None:
        """Close in order as soon as everything is sent: what a stream ended with is not lost."""
        self.flush()
        if not self._outbox.has_backlog:
            self.close()
        elif self._leaving_since is None:
            self._leaving_since = self.worker.poller.now

    def drain(self) -> None:
        """Take no more streams and close when the last one ends; one still being opened has waiters."""
        if self.state is not State.OPEN:
            return
        if self.wire.open_streams:
            self.wire.goaway()
            self.touch()
        else:
            self.leave()

    def fail(self, error: ZproxyError) -> None:
        """Close because of `error`; the peer gets what alert or GOAWAY there is, if it still listens."""
        if self.state is State.OPEN:
            self._outbox.seal()
        if self.state is not State.CONNECTING:
            with contextlib.suppress(OSError):
                self._outbox.send()
        self._finish(error)

    def abort(self, error: str) -> None:
        """Close because of a fault of our own."""
        self._finish(TunnelClosed(f"internal error: {error}"))

    def _send(self) -> None:
        try:
            self._outbox.send()
        except OSError as error:
            self._finish(_lost(self.remote, error))

    def _send_backlog(self) -> None:
        try:
            has_room = self._outbox.send_backlog()
        except OSError as error:
            self._finish(_lost(self.remote, error))
            return
        if has_room:
            self._feed_starved()
        if self._leaving_since is not None and not self._outbox.has_backlog:
            self.close()

    def _receive(self) -> None:
        buffers = self.worker.buffers
        try:
            size = self.sock.recv_into(buffers.cipher)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(_lost(self.remote, error))
            return
        if not size:
            self._peer_left()
            return
        self.bytes_recv += size
        self.vigil.heard = self.worker.poller.now
        try:
            self._decrypt(buffers.cipher[:size], buffers.plain)
        except (TlsFailed, RemoteProtocolError) as error:
            self.fail(
                error if isinstance(error, ZproxyError) else PeerBrokeProtocol(f"{self.remote}: {error}")
            )

    def _decrypt(self, cipher: memoryview, plain: memoryview) -> None:
        tls = self.tls
        tls.feed(cipher)
        if self.state is State.HANDSHAKING:
            self.touch()
            if not tls.handshake():
                return
            self.on_secured()
            self.wire.start()
            self.worker.agreeing.start(self, self.worker.poller.now)
            self.state = State.OPEN
            self.on_open()
        while self.state is State.OPEN and (size := tls.read_into(plain)):
            self._dispatch(self.wire.receive(plain[:size]))
        if self.wire.out:
            self.touch()
        if tls.eof and self.state is State.OPEN:
            self._peer_left()

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                event.stream.owner.on_data(event.chunks)
            elif isinstance(event, StreamEnded):
                event.stream.owner.on_end()
            elif isinstance(event, StreamRequested):
                self.streams_total += 1
                self.on_request(event)
            elif isinstance(event, StreamAnswered):
                event.stream.owner.on_answer(event.status, event.headers)
            elif isinstance(event, StreamReset):
                self._starved.pop(event.stream.owner, None)
                event.stream.owner.on_reset(event.code)
            elif isinstance(event, WindowOpened):
                self._feed(event.stream)
            else:
                self._on_control(event)

    def _on_control(self, event: Event) -> None:
        if isinstance(event, PeerReady):
            self.worker.handshaking.done(self)
            self.on_ready()
        elif isinstance(event, PeerAgreed):
            self.worker.agreeing.done(self)
        elif isinstance(event, StreamRefused):
            self.on_refused()
        elif isinstance(event, PeerDraining):
            self.on_draining()

    def _feed(self, stream: Stream | None) -> None:
        """A window opened: the stream's, or with None the connection's."""
        if stream is None:
            self._feed_starved()
        elif stream.owner in self._starved:
            del self._starved[stream.owner]
            stream.owner.on_room()

    def _feed_starved(self) -> None:
        """Let starved owners try again, once each, in the order in which they began to wait."""
        for owner in tuple(self._starved):
            if owner in self._starved:
                del self._starved[owner]
                owner.on_room()

    def _stalled(self, what: str) -> None:
        """Say why, and close: the peer made us wait for a frame that it owes."""
        self.wire.goaway(ErrorCode.SETTINGS_TIMEOUT, what)
        self.fail(PeerBrokeProtocol(f"{self.remote}: {what}"))

    def _peer_left(self) -> None:
        if self.state is State.OPEN and not self.wire.open_streams:
            self._finish(None)
        elif self.state is State.HANDSHAKING:
            self._finish(TlsFailed(f"{self.remote} closed the connection during the TLS handshake"))
        else:
            failure = TunnelClosed if self.wire.is_ready else PeerBrokeProtocol
            self._finish(failure(f"{self.remote} closed the tunnel under open streams"))

    def _finish(self, error: ZproxyError | None) -> None:
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.worker.ticking.discard(self)
        self.worker.connecting.done(self)
        self.worker.handshaking.done(self)
        self.worker.agreeing.done(self)
        self.worker.poller.remove(self.sock.fileno())
        streams = self.wire.streams
        self._outbox.drop()
        self.tls.close()
        self._starved.clear()
        if isinstance(error, TunnelClosed):
            close_with_reset(self.sock)
        else:
            self.sock.close()
        lost = error or TunnelClosed(f"{self.remote}: the tunnel was closed")
        for stream in streams:
            if stream.owner is not None:
                stream.owner.on_lost(lost)
        self.on_closed(error)


def _lost(remote: Endpoint, error: OSError) -> TunnelClosed:
    return TunnelClosed(f"{remote}: the tunnel broke: {error.strerror}")
