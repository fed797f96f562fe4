"""Two sockets and the bytes between them: what stays outside the mesh, or arrives from outside it.

The first bytes of a direction are copied, which suits short connections; one that turns out to be long is
spliced, and then no byte of it passes through user space.
"""

import socket
from typing import Final, Protocol

from zproxy.hbone.client import connect_error
from zproxy.model.route import Route
from zproxy.net.deadline import Deadline
from zproxy.net.pipes import Pipe
from zproxy.net.poller import READ, WRITE
from zproxy.net.sockets import close_with_reset
from zproxy.observe.connections import Connection
from zproxy.proxy.context import PodContext
from zproxy.proxy.relay import app_error

SPLICE_AFTER: Final = 64 << 10
"""Bytes copied in a direction before it is spliced."""


class Way(Protocol):
    """Whoever wants to know whether `far` could be reached, and knows where else to go."""

    def reached(self) -> bytes:
        """`far` is up; return what was read from `near` before, and is still to be sent."""

    def ended(self) -> None:
        """The relay is over."""

    def elsewhere(self, connection: Connection, error: str) -> Route | None:
        """Return where to go instead of `far`, which could not be reached; None is nowhere."""

    def follow(self, sock: socket.socket, connection: Connection, route: Route) -> None:
        """Go there with `near`; the relay has parted from it."""


class PlainRelay:
    """`near` was accepted, `far` is being connected. Half-close and breaks travel both ways.

    `is_far_app` tells which side is the pod's app, for the byte counts.
    """

    __slots__ = ("_far", "_idle_moved", "_moved", "_near", "_way", "connection", "is_done", "pod")

    def __init__(
        self,
        pod: PodContext,
        *,
        near: socket.socket,
        far: socket.socket,
        connection: Connection,
        is_far_app: bool,
        way: Way | None = None,
    ) -> None:
        self.pod = pod
        self.connection = connection
        self.is_done = False
        self._way = way
        self._moved = self._idle_moved = 0
        """How much had been moved when the wait for the other direction, or for any byte, began."""
        self._near = _End(self, near, is_app=not is_far_app, is_connecting=False)
        self._far = _End(self, far, is_app=is_far_app, is_connecting=True)
        pod.relays.add(self)
        pod.worker.connecting.start(self, pod.worker.poller.now)

    def connected(self) -> None:
        """`far` is up: let bytes flow."""
        self.pod.worker.connecting.done(self)
        said = self._way.reached() if self._way is not None else b""
        self._far.watch(READ)
        if not said or self._far.take(memoryview(said)):
            self._near.watch(READ)
        if not self.is_done:
            self._watch_idle()

    def unreachable(self, error: str) -> None:
        """`far` could not be connected: end, unless there is somewhere else to go."""
        way = self._way
        found = way.elsewhere(self.connection, error) if way is not None else None
        if way is None or found is None:
            self.finish(error, "CONNECT")
            return
        self.is_done = True
        worker = self.pod.worker
        worker.connecting.done(self)
        for end in (self._near, self._far):
            worker.poller.remove(end.sock.fileno())
        self._far.sock.close()
        self.pod.relays.discard(self)
        way.follow(self._near.sock, self.connection, found)

    def _watch_idle(self) -> None:
        self._idle_moved = self.connection.bytes_moved
        self.pod.worker.watch_idle(self)

    def other(self, end: "_End") -> "_End":
        """Return the opposite side of `end`."""
        return self._far if end is self._near else self._near

    def half_closed(self) -> None:
        """One direction is over; so is the relay when both are."""
        worker = self.pod.worker
        if self._near.is_over and self._far.is_over:
            self.finish("", "")
        else:
            self._moved = self.connection.bytes_moved
            worker.half_closed.start(self, worker.poller.now)

    def on_deadline(self, deadline: Deadline) -> None:
        """End: something took too long. Half of a connection lives for as long as it moves bytes."""
        if deadline is self.pod.worker.connecting:
            self.unreachable(f"connect to {self.connection.dst} timed out")
        elif deadline is self.pod.worker.idle and self.connection.bytes_moved != self._idle_moved:
            self._watch_idle()
        elif deadline is self.pod.worker.half_closed and self.connection.bytes_moved != self._moved:
            self.half_closed()
        else:
            self.finish(str(deadline), "TIMEOUT")

    def abort(self, error: str) -> None:
        """End because of a fault of our own."""
        self.finish(f"internal error: {error}", "INTERNAL")

    def give_up(self, error: str, reason: str) -> None:
        """End both sides abnormally."""
        self.finish(error, reason)

    def finish(self, error: str, reason: str) -> None:
        """Close both sides: in order when `error` is empty, by reset otherwise."""
        if self.is_done:
            return
        self.is_done = True
        worker = self.pod.worker
        worker.connecting.done(self)
        worker.half_closed.done(self)
        worker.idle.done(self)
        for end in (self._near, self._far):
            worker.poller.forget(end.sock.fileno())
            end.close(is_broken=bool(error))
        self.pod.relays.discard(self)
        if self._way is not None:
            self._way.ended()
        self.pod.connections.end(self.connection, worker.poller.now, error, reason)


class _End:
    """One side. Reads only when the other side has taken everything; so at most one read is ever held."""

    __slots__ = (
        "_copied", "_mask", "_pending", "_pipe", "is_app", "is_connecting", "is_ended", "is_over", "relay",
        "sock",
    )  # fmt: skip

    def __init__(self, relay: PlainRelay, sock: socket.socket, *, is_app: bool, is_connecting: bool) -> None:
        self.relay = relay
        self.sock = sock
        self.is_app = is_app
        self.is_connecting = is_connecting
        self.is_ended = False
        """It will send no more."""
        self.is_over = False
        """It was told that the other side will send no more."""
        self._copied = 0
        """Bytes received from it by copying, at most about SPLICE_AFTER."""
        self._pending: bytes | memoryview = b""
        self._pipe: Pipe | None = None
        """Spliced bytes that this side has not taken yet."""
        self._mask = WRITE if is_connecting else 0
        relay.pod.worker.poller.add(sock.fileno(), self, self._mask)

    def on_event(self, events: int) -> None:
        """Serve readiness."""
        if self.is_connecting:
            self._connected()
            return
        if events & WRITE and self.has_pending:
            self._send_pending()
        if self.relay.is_done:
            return
        if self._mask & READ:
            if events & ~WRITE:
                self._receive()
        elif events & ~(READ | WRITE):
            self._hung_up()

    def abort(self, error: str) -> None:
        """End because of a fault of our own."""
        self.relay.abort(error)

    def watch(self, mask: int) -> None:
        """Change what the socket is watched for."""
        if mask != self._mask:
            self._mask = mask
            self.relay.pod.worker.poller.modify(self.sock.fileno(), mask)

    def take(self, data: memoryview) -> bool:
        """Send `data`; return whether the socket took all of it. The rest is kept."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.relay.finish(app_error(error.errno), "CONNECT")
            return False
        if sent == len(data):
            return True
        self._pending = bytes(data[sent:])
        self.watch(self._mask | WRITE)
        return False

    def take_pipe(self, pipe: Pipe) -> bool:
        """Send what `pipe` holds; return whether the socket took all of it. The pipe is this side's now."""
        self._pipe = pipe
        try:
            pipe.drain(self.sock.fileno())
        except BlockingIOError:
            pass
        except OSError as error:
            self.relay.finish(app_error(error.errno), "CONNECT")
            return False
        if pipe.held:
            self.watch(self._mask | WRITE)
            return False
        self._return_pipe()
        return True

    @property
    def has_pending(self) -> bool:
        """Whether bytes wait for this side's socket."""
        return bool(self._pending) or self._pipe is not None

    def close(self, *, is_broken: bool) -> None:
        """Close the socket, by reset when `is_broken`."""
        self._return_pipe()
        close_with_reset(self.sock) if is_broken else self.sock.close()

    def shut(self) -> None:
        """Pass on the other side's end."""
        if self.has_pending:
            return  # _send_pending does it
        self.is_over = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.relay.finish(app_error(error.errno), "CONNECT")
            return
        self.relay.half_closed()

    def _hung_up(self) -> None:
        """A hang-up without an error is the end of both directions: what it sent waits to be read."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.relay.finish(app_error(code), "CONNECT")

    def _connected(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.relay.unreachable(connect_error(str(self.relay.connection.dst), code))
            return
        self.is_connecting = False
        self.relay.connected()

    def _receive(self) -> None:
        if self._copied >= SPLICE_AFTER:
            self._splice()
        else:
            self._copy()

    def _copy(self) -> None:
        relay = self.relay
        buffer = relay.pod.worker.buffers.plain
        try:
            size = self.sock.recv_into(buffer)
        except BlockingIOError:
            return
        except OSError as error:
            relay.finish(app_error(error.errno), "CONNECT")
            return
        if not size:
            self._end()
            return
        self._copied += size
        self._count(size)
        if not relay.other(self).take(buffer[:size]) and not relay.is_done:
            self.watch(self._mask & ~READ)

    def _splice(self) -> None:
        relay = self.relay
        pipes = relay.pod.worker.pipes
        try:
            pipe = pipes.borrow()
        except OSError:  # no descriptor is free: go on copying
            self._copy()
            return
        try:
            size = pipe.fill(self.sock.fileno())
        except BlockingIOError:
            pipes.give_back(pipe)
            return
        except OSError as error:
            pipes.give_back(pipe)
            relay.finish(app_error(error.errno), "CONNECT")
            return
        if not size:
            pipes.give_back(pipe)
            self._end()
            return
        self._count(size)
        if not relay.other(self).take_pipe(pipe) and not relay.is_done:
            self.watch(self._mask & ~READ)

    def _count(self, size: int) -> None:
        connection = self.relay.connection
        if self.is_app:
            connection.bytes_sent += size
        else:
            connection.bytes_recv += size

    def _end(self) -> None:
        self.is_ended = True
        self.watch(self._mask & ~READ)
        self.relay.other(self).shut()

    def _send_pending(self) -> None:
        try:
            if self._pipe is not None:
                self._pipe.drain(self.sock.fileno())
            else:
                self._pending = memoryview(self._pending)[self.sock.send(self._pending) :]
        except BlockingIOError:
            return
        except OSError as error:
            self.relay.finish(app_error(error.errno), "CONNECT")
            return
        if self._pending or (self._pipe is not None and self._pipe.held):
            return
        self._pending = b""
        self._return_pipe()
        self.watch(self._mask & ~WRITE)
        other = self.relay.other(self)
        if other.is_ended:
            self.shut()
        else:
            other.watch(other._mask | READ)

    def _return_pipe(self) -> None:
        if self._pipe is not None:
            self.relay.pod.worker.pipes.give_back(self._pipe)
            self._pipe = None
