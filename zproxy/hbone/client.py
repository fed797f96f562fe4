"""The dialling end of a tunnel: from a pod's own address to podIP:15008, to one expected identity."""

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from zproxy.errors import ConnectFailed, ConnectTimedOut, TlsFailed, ZproxyError
from zproxy.hbone.owner import StreamOwner
from zproxy.hbone.tunnel import State, Tunnel
from zproxy.model.addr import Endpoint
from zproxy.model.conn import PoolKey
from zproxy.model.identity import SpiffeId
from zproxy.net.deadline import Deadline
from zproxy.net.poller import READ, WRITE
from zproxy.net.sockets import peer_of
from zproxy.net.worker import Worker
from zproxy.wire.events import StreamRequested
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.stream import Role, Stream
from zproxy.wire.tls import TlsContext

FIRST_STREAMS: Final = 1
"""Streams before the server's SETTINGS say how many it takes. The first gains a round trip by not waiting; of
a burst the server could refuse all but a few."""


class ClientTunnel(Tunnel):
    """Opens streams, and so sends an app's bytes, NEVER before the peer's identity is proven."""

    role = "client"

    def __init__(
        self,
        worker: Worker,
        sock: socket.socket,
        key: PoolKey,
        context: TlsContext,
        watcher: "TunnelWatcher",
    ) -> None:
        super().__init__(worker, sock, context.session(), HboneConnection(Role.CLIENT, worker.limits))
        self.key = key
        self.remote = key.dst
        self.peer = ""
        """Which of the expected identities it proved, as a URI."""
        self.peer_id: SpiffeId | None = None
        """The same, if it has the shape of a workload's."""
        self.idle_since: float | None = None
        self._watcher = watcher
        worker.connecting.start(self, worker.poller.now)
        worker.poller.add(sock.fileno(), self, WRITE)

    @property
    def identities(self) -> tuple[str, str]:
        """The pod's own, and the one that the peer proved; until then those that it may prove."""
        return str(self.key.src_identity), self.peer or " ".join(self.key.dst_identities)

    @property
    def room(self) -> int:
        """How many more streams may be opened now."""
        if self.state is State.CLOSED or not self.wire.can_open:
            return 0
        limit = self.wire.max_streams if self.wire.is_ready else FIRST_STREAMS
        return limit - self.wire.open_streams

    @property
    def is_opening(self) -> bool:
        """Whether there may be more room soon, without any stream ending."""
        return self.state is not State.CLOSED and not self.wire.is_ready and self.wire.can_open

    def open_stream(self, head: bytes, owner: StreamOwner) -> Stream:
        """Send a CONNECT whose encoded header block is `head`; the answer goes to `owner`."""
        stream = self.wire.open_stream(head)
        stream.owner = owner
        self.streams_total += 1
        self.touch()
        return stream

    def on_event(self, events: int) -> None:
        """Finish the TCP connect first, then serve the tunnel."""
        if self.state is State.CONNECTING:
            self._connected()
        else:
            super().on_event(events)

    def on_deadline(self, deadline: Deadline) -> None:
        """Close: TCP or TLS took too long."""
        if deadline is self.worker.connecting:
            self.fail(connect_failure(self.remote, errno.ETIMEDOUT))
        else:
            super().on_deadline(deadline)

    def on_secured(self) -> None:
        """Check that the certificate carries exactly an identity that the mesh expects there."""
        found = self.tls.peer_uris()
        expected = self.key.dst_identities
        self.peer = next((uri for uri in found if uri in expected), "")
        if not self.peer:
            names = ", ".join(found) or "no SPIFFE identity"
            raise TlsFailed(f"{self.remote} presented {names}; expected {' or '.join(expected)}")
        with contextlib.suppress(ValueError):
            self.peer_id = SpiffeId.parse(self.peer)

    def on_open(self) -> None:
        """Tell the pool."""
        self.idle_since = self.worker.poller.now
        self._watcher.on_open(self)

    def on_ready(self) -> None:
        """Tell the pool: from now on the server's own limit counts."""
        self._watcher.on_ready(self)

    def on_request(self, event: StreamRequested) -> None:
        """Servers open no streams (RFC 9113 8.4 push is refused by the wire machine)."""
        raise AssertionError("the wire machine lets no server open a stream")

    def on_draining(self) -> None:
        """The peer sent GOAWAY: streams live on, new ones go elsewhere."""
        if not self.wire.open_streams:
            self.leave()

    def on_idle(self) -> None:
        """The last stream ended: keep the tunnel for a while."""
        self.idle_since = self.worker.poller.now

    def on_tick(self, now: float) -> None:
        """Close after pool_idle_s without streams."""
        super().on_tick(now)
        if self.wire.open_streams:
            self.idle_since = None
        elif self.idle_since is not None and now - self.idle_since > self.worker.pool_idle_s:
            self.close()

    def on_closed(self, error: ZproxyError | None) -> None:
        """Tell the pool."""
        self._watcher.on_closed(self, error)

    def _connected(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail(connect_failure(self.remote, code))
            return
        self.local = peer_of(self.sock.getsockname())
        self.shake_hands()

    def shake_hands(self) -> None:
        """Begin TLS: the way to the peer is open."""
        self.worker.connecting.done(self)
        self.worker.handshaking.start(self, self.worker.poller.now)
        self.state = State.HANDSHAKING
        self.worker.poller.modify(self.sock.fileno(), READ)
        try:
            self.tls.handshake()
        except TlsFailed as error:
            self.fail(error)
        else:
            self.touch()


class TunnelWatcher:
    """Who wants to know what becomes of a client tunnel."""

    __slots__ = ("on_closed", "on_open", "on_ready")

    def __init__(
        self,
        on_open: Callable[[ClientTunnel], None],
        on_ready: Callable[[ClientTunnel], None],
        on_closed: Callable[[ClientTunnel, ZproxyError | None], None],
    ) -> None:
        self.on_open = on_open
        self.on_ready = on_ready
        self.on_closed = on_closed


_CAUSES = {
    errno.ECONNREFUSED: "nothing listens there, or zproxy is not running on that pod's node",
    errno.ETIMEDOUT: "no answer; maybe a NetworkPolicy or firewall drops it",
    errno.EHOSTUNREACH: "the pod is gone or its node is unreachable",
    errno.ENETUNREACH: "the pod has no route to that address",
    errno.EADDRNOTAVAIL: "the pod ran out of source ports towards that address",
}


def connect_failure(to: Endpoint, code: int) -> ConnectFailed:
    """Return the error of a failed connect to a pod's 15008; silence there has a usual cause."""
    if code == errno.ETIMEDOUT:
        return ConnectTimedOut(
            f"connection timed out, maybe a NetworkPolicy is blocking HBONE port {to.port}: "
            f"{to.ip} did not answer"
        )
    return ConnectFailed(connect_error(str(to), code))


def connect_error(to: str, code: int) -> str:
    """Return a sentence for a failed connect to `to` with errno `code`, with its likely cause."""
    cause = _CAUSES.get(code)
    return f"connect to {to} failed: {os.strerror(code)}" + (f" ({cause})" if cause else "")
