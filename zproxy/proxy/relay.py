"""One app socket and one CONNECT stream, and the bytes between them.

Half-close travels both ways (FIN and END_STREAM), so do breaks (RST and RST_STREAM). The relay owns no
buffer but what its app has not taken yet, and that is bounded by the stream's window: credit is given
only for bytes that the app's socket took.
"""

import os
import socket
from typing import Final

from zproxy.errors import ZproxyError
from zproxy.hbone.owner import NOBODY
from zproxy.hbone.tunnel import BLOCKED, Tunnel
from zproxy.net.deadline import Deadline
from zproxy.net.poller import READ, WRITE
from zproxy.net.sockets import close_with_reset
from zproxy.observe.connections import Connection
from zproxy.proxy.context import PodContext
from zproxy.wire.errors import ErrorCode, code_name
from zproxy.wire.hbone import NO_ROOM
from zproxy.wire.headers import Headers
from zproxy.wire.stream import Stream

TURN: Final = 256 << 10
"""Bytes one socket may bring in a turn; then others get theirs."""
SMALL: Final = 16 << 10
"""A read shorter than this emptied the socket: no need to ask again."""
IOV_MAX: Final = 1024


class StreamRelay:
    """What outbound and inbound share; each adds how its stream comes to be."""

    __slots__ = (
        "_idle_moved",
        "_is_app_ended",
        "_is_peer_ended",
        "_mask",
        "_moved",
        "_pending",
        "connection",
        "is_done",
        "is_open",
        "pod",
        "sock",
        "stream",
        "tunnel",
    )

    def __init__(self, pod: PodContext, sock: socket.socket, connection: Connection, mask: int) -> None:
        self.pod = pod
        self.sock = sock
        self.connection = connection
        self.tunnel: Tunnel | None = None
        self.stream: Stream | None = None
        self.is_open = False
        """Whether bytes may flow; before that the app is not read."""
        self.is_done = False
        self._pending: bytearray | None = None
        self._is_app_ended = False
        self._is_peer_ended = False
        self._moved = self._idle_moved = 0
        """How much had been moved when the wait for the other direction, or for any byte, began."""
        self._mask = mask
        pod.relays.add(self)
        pod.worker.poller.add(sock.fileno(), self, mask)

    def start(self) -> None:
        """Let bytes flow."""
        self.is_open = True
        self._watch_idle()
        self._watch(READ | (WRITE if self._pending else 0))

    def _watch_idle(self) -> None:
        self._idle_moved = self.connection.bytes_moved
        self.pod.worker.watch_idle(self)

    def on_event(self, events: int) -> None:
        """Serve readiness of the app's socket."""
        if events == READ and self._mask & READ:
            self._pull()
            return
        if events & WRITE and self._pending:
            self._send_pending()
        if self.is_done:
            return
        if self._mask & READ:
            if events & ~WRITE:
                self._pull()
        elif events & ~(READ | WRITE):
            self._hung_up()

    def on_deadline(self, deadline: Deadline) -> None:
        """End: something took too long. Half of a connection lives for as long as it moves bytes."""
        worker = self.pod.worker
        if deadline is worker.idle and self.connection.bytes_moved != self._idle_moved:
            self._watch_idle()
        elif deadline is worker.half_closed and self.connection.bytes_moved != self._moved:
            self._half_closed()
        else:
            self.give_up(str(deadline), "TIMEOUT")

    def on_answer(self, status: int, headers: Headers) -> None:
        """Only the outbound side asks."""
        raise AssertionError("a stream that was opened towards us is not answered by its opener")

    def on_data(self, chunks: list[memoryview]) -> None:
        """Pass bytes to the app; keep what it does not take now."""
        if self._pending is not None or not self.is_open:
            self._keep(b"".join(chunks))
            return
        size = len(chunks[0])
        try:
            if len(chunks) == 1:
                sent = self.sock.send(chunks[0])
            elif len(chunks) <= IOV_MAX:
                size = sum(map(len, chunks))
                sent = self.sock.sendmsg(chunks)
            else:
                size = sum(map(len, chunks))
                sent = self.sock.send(b"".join(chunks))
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._app_broke(error.errno)
            return
        if sent:
            self.connection.bytes_recv += sent
            tunnel, stream = self.tunnel, self.stream
            if tunnel is not None and stream is not None:
                tunnel.credit(stream, sent)
        if sent < size:
            self._keep(b"".join(chunks)[sent:])

    def on_end(self) -> None:
        """The peer's app will send no more."""
        self._is_peer_ended = True
        if self._pending is None and self.is_open and not self.is_done:
            self._shut_app()

    def on_reset(self, code: int) -> None:
        """The peer broke the stream: break the app's connection too."""
        self.give_up(f"the peer reset the stream: {code_name(code)}", "RESET")

    def on_room(self) -> None:
        """Read the app again."""
        if self.is_open and not self._is_app_ended and not self.is_done:
            self._watch(self._mask | READ)
            self._pull()

    def on_lost(self, error: ZproxyError) -> None:
        """The tunnel is gone."""
        self.stream = None  # and with it the window that unread bytes would be owed to
        self._finish(str(error), error.reason, is_broken=True)

    def abort(self, error: str) -> None:
        """End because of a fault of our own."""
        self.give_up(f"internal error: {error}", "INTERNAL")

    def give_up(self, error: str, reason: str) -> None:
        """End both sides abnormally."""
        self._drop_stream()
        self._finish(error, reason, is_broken=True)

    def _hung_up(self) -> None:
        """A hang-up without an error is the end of both directions: what the app sent waits to be read."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._app_broke(code)

    def _pull(self) -> None:
        if not self.is_open:
            self._watch(self._mask & ~READ)
            return
        tunnel, stream = self.tunnel, self.stream
        if tunnel is None or stream is None:
            return
        turn = 0
        while turn < TURN:
            try:
                moved = tunnel.pull(self.sock, stream)
            except OSError as error:
                self._app_broke(error.errno)
                return
            if moved == BLOCKED:
                return
            if moved == NO_ROOM:
                self._watch(self._mask & ~READ)
                return
            if moved == 0:
                self._app_ended()
                return
            self.connection.bytes_sent += moved
            if moved < SMALL:
                return
            turn += moved

    def _app_ended(self) -> None:
        self._is_app_ended = True
        if not self._is_over():
            self._watch(self._mask & ~READ)
        if self.tunnel is not None and self.stream is not None:
            self.tunnel.end(self.stream)
        self._half_closed()

    def _shut_app(self) -> None:
        if not self._is_over():  # else closing the socket says the same
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._app_broke(error.errno)
                return
        self._half_closed()

    def _is_over(self) -> bool:
        return self._is_app_ended and self._is_peer_ended and self._pending is None

    def _half_closed(self) -> None:
        worker = self.pod.worker
        if self._is_over():
            self._finish("", "")
        else:
            self._moved = self.connection.bytes_moved
            worker.half_closed.start(self, worker.poller.now)

    def _keep(self, data: bytes) -> None:
        if self._pending is None:
            self._pending = bytearray()
        self._pending += data
        if self.is_open:
            self._watch(self._mask | WRITE)

    def _send_pending(self) -> None:
        pending = self._pending
        if pending is None:
            return
        try:
            sent = self.sock.send(pending)
        except BlockingIOError:
            return
        except OSError as error:
            self._app_broke(error.errno)
            return
        self.connection.bytes_recv += sent
        if self.tunnel is not None and self.stream is not None:
            self.tunnel.credit(self.stream, sent)
        del pending[:sent]
        if not pending:
            self._pending = None
            self._watch(self._mask & ~WRITE)
            if self._is_peer_ended:
                self._shut_app()

    def _app_broke(self, code: int | None) -> None:
        """The app's socket failed: its peer must see a break, not an end."""
        self._drop_stream()
        self._finish(app_error(code), "CONNECT", is_broken=True)

    def _drop_stream(self) -> None:
        """Break the stream; on one that is closed already this returns what the app did not take."""
        if self.tunnel is not None and self.stream is not None:
            self.tunnel.reset(self.stream, ErrorCode.CANCEL)
            self._let_go()

    def _let_go(self) -> None:
        """Part from the stream: the two hold each other, and only the cycle collector would free them."""
        if self.stream is not None:
            self.stream.owner = NOBODY
            self.stream = None

    def _watch(self, mask: int) -> None:
        if mask != self._mask:
            self._mask = mask
            self.pod.worker.poller.modify(self.sock.fileno(), mask)

    def _finish(self, error: str, reason: str, *, is_broken: bool = False) -> None:
        if self.is_done:
            return
        self.is_done = True
        pod = self.pod
        worker = pod.worker
        for deadline in (worker.connecting, worker.answering, worker.half_closed, worker.idle):
            deadline.done(self)
        worker.poller.forget(self.sock.fileno())
        if is_broken:
            close_with_reset(self.sock)
        else:
            self.sock.close()
        pod.relays.discard(self)
        if self.tunnel is not None:
            self.tunnel.forget(self)
        self._let_go()
        pod.connections.end(self.connection, worker.poller.now, error, reason)
        self._on_finished()

    def _on_finished(self) -> None:
        """Called once, at the very end."""


def app_error(code: int | None) -> str:
    """Return a sentence for an app socket that failed with errno `code`."""
    return f"the app's connection broke: {os.strerror(code or 0)}"
