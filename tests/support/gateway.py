"""A gateway of another network: takes CONNECT streams for host names and passes their bytes on as they are.

What goes through it is TLS between others, of which it knows nothing. It is played, so a bench can move it;
`running` moves it in a thread of its own.
"""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping

from tests.support.raw import RawPeer
from zproxy.config import Limits
from zproxy.model.credentials import Credentials
from zproxy.net.sockets import close_with_reset
from zproxy.wire.errors import ErrorCode
from zproxy.wire.headers import ConnectRequest
from zproxy.wire.stream import Role, Stream
from zproxy.wire.tls_stdlib import StdlibEngine

Dial = Callable[[], socket.socket]


class Gateway:
    """`forwards` says how to reach what an authority means; what is not in it is answered with 404."""

    def __init__(
        self, listener: socket.socket, credentials: Credentials, forwards: Mapping[str, Dial]
    ) -> None:
        self._context = StdlibEngine().server(credentials)
        self._listener = listener
        self._listener.setblocking(False)
        self._forwards = forwards
        self.requests: list[ConnectRequest] = []
        self.status = 200
        """What a known authority is answered with."""
        self.headers: tuple[tuple[str, str], ...] = ()
        """Of the answer."""
        self._tunnels: list[_Tunnel] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def tunnels(self) -> list[RawPeer]:
        return [tunnel.peer for tunnel in self._tunnels]

    def cut(self) -> None:
        """Reset every stream."""
        for tunnel in self._tunnels:
            for forward in tunnel.forwards:
                tunnel.peer.wire.reset(forward.stream, ErrorCode.INTERNAL_ERROR)

    def step(self) -> None:
        """See Played."""
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = self._listener.accept()
                self._tunnels.append(
                    _Tunnel(self, RawPeer(accepted, self._context, Role.SERVER, Limits(max_frame=1 << 16)))
                )
        for tunnel in self._tunnels:
            tunnel.step()

    def dial(self, request: ConnectRequest) -> socket.socket | int:
        """Return a connection to what was asked for, or the status of a refusal."""
        self.requests.append(request)
        forward = self._forwards.get(request.authority)
        if forward is None or self.status != 200:
            return 404 if forward is None else self.status
        try:
            sock = forward()
        except OSError:
            return 503
        sock.setblocking(False)
        return sock

    def sockets(self) -> list[socket.socket]:
        """Return what the gateway waits for."""
        found = [self._listener]
        for tunnel in self._tunnels:
            found += [tunnel.peer.sock] if not tunnel.peer.is_cut else []
            found += [each.sock for each in tunnel.forwards if not each.is_done]
        return found

    def close(self) -> None:
        """See Played."""
        self._listener.close()
        for tunnel in self._tunnels:
            tunnel.close()


class _Tunnel:
    def __init__(self, gateway: Gateway, peer: RawPeer) -> None:
        self.peer = peer
        self.forwards: list[_Forward] = []
        self._gateway = gateway
        self._seen = 0

    def step(self) -> None:
        self.peer.step()
        while self._seen < len(self.peer.streams):
            stream, request = self.peer.streams[self._seen], self.peer.requests[self._seen]
            self._seen += 1
            found = self._gateway.dial(request)
            if isinstance(found, int):
                self.peer.wire.respond(stream, found, end=True)
            else:
                self.peer.wire.respond(stream, 200, self._gateway.headers)
                self.forwards.append(_Forward(self.peer, stream, found))
        for forward in self.forwards:
            forward.step()
        self.peer.step()

    def close(self) -> None:
        for forward in self.forwards:
            forward.sock.close()
        self.peer.close()


class _Forward:
    """One stream and the connection that it became."""

    def __init__(self, peer: RawPeer, stream: Stream, sock: socket.socket) -> None:
        self.peer = peer
        self.stream = stream
        self.sock = sock
        self.is_done = False
        self._is_shut = self._is_ended = False

    def step(self) -> None:
        if self.is_done:
            return
        try:
            self._down()
            self._up()
        except BlockingIOError:
            pass
        except OSError:
            self.peer.wire.reset(self.stream, ErrorCode.CONNECT_ERROR)
            self._finish()
            return
        if self.stream.id in self.peer.resets or self.peer.is_cut:
            close_with_reset(self.sock)
            self.is_done = True
        elif self._is_shut and self._is_ended:
            self._finish()

    def _down(self) -> None:
        """Stream to connection."""
        waiting = self.peer.data.get(self.stream.id)
        if waiting:
            with contextlib.suppress(BlockingIOError):
                sent = self.sock.send(waiting)
                del waiting[:sent]
                self.peer.wire.credit(self.stream, sent)
        if not waiting and self.stream.id in self.peer.ended and not self._is_shut:
            self._is_shut = True
            self.sock.shutdown(socket.SHUT_WR)

    def _up(self) -> None:
        """Connection to stream."""
        while not self._is_ended and (room := min(self.peer.wire.budget(self.stream), 1 << 16)):
            data = self.sock.recv(room)
            if not data:
                self._is_ended = True
                self.peer.wire.end(self.stream)
            else:
                self.peer.send(self.stream, data)

    def _finish(self) -> None:
        self.is_done = True
        self.sock.close()


@contextlib.contextmanager
def running(gateway: Gateway) -> Iterator[Gateway]:
    """Move `gateway` in a thread for the length of the block, then close it."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            select.select(gateway.sockets(), [], [], 0.005)
            gateway.step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        stop.set()
        thread.join(10)
        gateway.close()
