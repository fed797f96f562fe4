"""15008: HBONE from peers. Terminate the tunnel, check each CONNECT, reach the app as its true client."""

import socket
from typing import Final

from zproxy.errors import H2Failed, IdentityError, TlsFailed, ZproxyError
from zproxy.hbone.client import connect_error
from zproxy.hbone.server import ServerTunnel, TunnelOwner
from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.net.deadline import Deadline
from zproxy.net.poller import WRITE
from zproxy.net.sockets import peer_of, tune
from zproxy.observe.connections import Connection
from zproxy.proxy.authorize import REJECTED
from zproxy.proxy.context import PodContext
from zproxy.proxy.relay import StreamRelay
from zproxy.state.inbound import Reject, admit
from zproxy.wire.events import StreamRequested
from zproxy.wire.headers import ConnectRequest
from zproxy.wire.stream import Stream

OK: Final = 200
UNAUTHORIZED: Final = 401
UNAVAILABLE: Final = 503


class Inbound:
    """Accepts tunnels and turns their streams into relays."""

    def __init__(self, pod: PodContext) -> None:
        self._pod = pod
        self._handshaking: set[ServerTunnel] = set()
        """Accepted, and not known to be acceptable yet."""
        self._counts = pod.connections.totals.tunnels["server"]
        self._owner = TunnelOwner(pod.identity, self._opened, self._requested, self._closed)

    def on_accept(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Begin a TLS handshake, unless too many are under way already."""
        pod = self._pod
        remote = peer_of(address)
        excess = self._excess()
        if excess:
            sock.close()
            self._deny(remote, excess, "LIMIT")
            return
        try:
            context = pod.tls.server()
        except IdentityError as error:
            sock.close()
            self._deny(remote, str(error), error.reason)
            return
        tunnel = ServerTunnel(pod.worker, sock, remote, context, self._owner)
        pod.tunnels.add(tunnel)
        self._handshaking.add(tunnel)

    def _excess(self) -> str:
        """Return what this pod has too much of to accept another tunnel; empty when nothing."""
        pod = self._pod
        limits = pod.worker.limits
        if len(self._handshaking) >= limits.pending_handshakes:
            return f"{len(self._handshaking)} handshakes are pending on this pod"
        if len(pod.tunnels) >= limits.tunnels_per_pod:
            return f"{len(pod.tunnels)} tunnels lead to this pod already"
        return ""

    def _opened(self, tunnel: ServerTunnel) -> None:
        self._handshaking.discard(tunnel)
        self._counts.opened += 1

    def _closed(self, tunnel: ServerTunnel, error: ZproxyError | None) -> None:
        self._pod.tunnels.discard(tunnel)
        was_pending = tunnel in self._handshaking
        self._handshaking.discard(tunnel)
        self._counts.end(error.reason if error is not None else "", was_open=not was_pending)
        if error is not None and (was_pending or isinstance(error, TlsFailed | H2Failed)):
            self._deny(tunnel.remote, str(error), error.reason)

    def _requested(self, tunnel: ServerTunnel, event: StreamRequested) -> None:
        pod = self._pod
        request = event.request
        connection = pod.connections.open(
            pod.name, Direction.INBOUND, tunnel.remote, tunnel.local, pod.worker.poller.now
        )
        connection.tunnel = tunnel.id
        if not isinstance(request, ConnectRequest):
            self._refuse(tunnel, event.stream, connection, Reject(request.status, request.reason))
            return
        connection.hbone_addr = request.authority
        admitted = admit(tunnel.local, request.authority)
        if isinstance(admitted, Reject):
            self._refuse(tunnel, event.stream, connection, admitted)
            return
        target = admitted.target
        source = pod.mesh().by_ip(tunnel.remote.ip, pod.workload.network)
        connection.peers = pod.peers(
            Direction.INBOUND, source, pod.workload, target.port, tunnel.peer, pod.identity
        )
        verdict = pod.authorize(connection.peers, tunnel.remote.ip, target)
        if verdict.is_allowed:
            self._connect(tunnel, event.stream, connection, target)
        else:
            self._refuse(tunnel, event.stream, connection, Reject(UNAUTHORIZED, REJECTED + verdict.reason))

    def _connect(
        self, tunnel: ServerTunnel, stream: Stream, connection: Connection, target: Endpoint
    ) -> None:
        try:
            sock = self._pod.sockets.dial_app(target, tunnel.remote.ip)
        except OSError as error:
            text = f"connection failed: {connect_error(str(target), error.errno or 0)}"
            self._refuse(tunnel, stream, connection, Reject(UNAVAILABLE, text))
            return
        stream.owner = InboundStream(self._pod, sock, connection, tunnel, stream)

    def _refuse(self, tunnel: ServerTunnel, stream: Stream, connection: Connection, reject: Reject) -> None:
        stream.owner = _Refused()
        tunnel.answer(stream, reject.status, end=True)
        reason = "DENY" if reject.status in {400, 401} else "CONNECT"
        self._pod.connections.end(connection, self._pod.worker.poller.now, reject.reason, reason)

    def _deny(self, remote: Endpoint, error: str, reason: str) -> None:
        """A tunnel that never came to be has no streams; it still leaves a line."""
        pod = self._pod
        now = pod.worker.poller.now
        at = Endpoint(pod.workload.workload_ips[0], ports.INBOUND_HBONE)
        pod.connections.end(
            pod.connections.open(pod.name, Direction.INBOUND, remote, at, now), now, error, reason
        )


class InboundStream(StreamRelay):
    """A peer's stream on its way to our app: connect, answer 200, relay."""

    __slots__ = ("_is_connecting",)

    def __init__(
        self,
        pod: PodContext,
        sock: socket.socket,
        connection: Connection,
        tunnel: ServerTunnel,
        stream: Stream,
    ) -> None:
        super().__init__(pod, sock, connection, mask=WRITE)
        self.tunnel = tunnel
        self.stream = stream
        self._is_connecting = True
        pod.worker.connecting.start(self, pod.worker.poller.now)

    def on_event(self, events: int) -> None:
        """Finish the connect to the app first."""
        if self._is_connecting:
            self._connected()
        else:
            super().on_event(events)

    def on_deadline(self, deadline: Deadline) -> None:
        """The app did not answer in time."""
        if self._is_connecting:
            self._unreachable(str(deadline))
        else:
            super().on_deadline(deadline)

    def _connected(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._unreachable(f"connection failed: {connect_error(self.connection.hbone_addr, code)}")
            return
        self._is_connecting = False
        self.pod.worker.connecting.done(self)
        tune(self.sock)
        tunnel, stream = self.tunnel, self.stream
        if isinstance(tunnel, ServerTunnel) and stream is not None:
            tunnel.answer(stream, OK, (("baggage", self.pod.baggage),))
        self.start()
        if self._is_peer_ended and self._pending is None:
            self._shut_app()

    def _unreachable(self, error: str) -> None:
        tunnel, stream = self.tunnel, self.stream
        if isinstance(tunnel, ServerTunnel) and stream is not None:
            tunnel.answer(stream, UNAVAILABLE, end=True)
            self.stream = None
        self._finish(error, "CONNECT", is_broken=True)


class _Refused:
    """Owner of a stream that was answered with a refusal: whatever still comes is nobody's."""

    def on_answer(self, status: int) -> None:
        """Never asked."""

    def on_data(self, chunks: list[memoryview]) -> None:
        """Dropped; no credit is given."""

    def on_end(self) -> None:
        """Expected."""

    def on_reset(self, code: int) -> None:
        """Expected."""

    def on_room(self) -> None:
        """Never asked."""

    def on_lost(self, error: ZproxyError) -> None:
        """Expected."""
