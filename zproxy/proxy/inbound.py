"""15008: HBONE from peers. Terminate the tunnel, check each CONNECT, reach the app as its true client."""

import errno
import socket
from collections import Counter
from typing import Final

from zproxy.errors import IdentityError, PeerBrokeProtocol, TlsFailed, ZproxyError
from zproxy.hbone.client import connect_error
from zproxy.hbone.owner import NOBODY
from zproxy.hbone.server import ServerTunnel, TunnelOwner
from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.net.deadline import Deadline
from zproxy.net.poller import READ, WRITE
from zproxy.net.sockets import connect_progress, peer_of
from zproxy.observe.connections import Connection
from zproxy.proxy.authorize import REJECTED
from zproxy.proxy.context import PodContext
from zproxy.proxy.labels import service_of, source_of
from zproxy.proxy.relay import StreamRelay
from zproxy.state.inbound import Admit, Reject, admit
from zproxy.wire.events import StreamRequested
from zproxy.wire.headers import ConnectRequest
from zproxy.wire.proxy_protocol import header as proxy_header
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
        self._begun: Counter[str] = Counter()
        """Tunnels by source address; one that has none is not in it."""
        self._pending: Counter[str] = Counter()
        """Likewise, of those that are handshaking."""
        self._counts = pod.connections.totals.tunnels["server"]
        self._owner = TunnelOwner(pod.identity, self._opened, self._requested, self._refused, self._closed)

    def on_accept(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Begin a TLS handshake, unless too many are under way already."""
        pod = self._pod
        remote = peer_of(address)
        excess = self._excess(remote.ip)
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
        self._begun[remote.ip] += 1
        self._pending[remote.ip] += 1

    def _excess(self, ip: str) -> str:
        """Return what this pod, or the peer at `ip`, has too much of to begin another tunnel, if anything."""
        pod = self._pod
        limits = pod.worker.limits
        begun, pending = self._begun.get(ip, 0), self._pending.get(ip, 0)
        if pending >= limits.pending_handshakes_per_peer:
            return f"{pending} handshakes with {ip} are pending on this pod"
        if begun >= limits.tunnels_per_peer:
            return f"{begun} tunnels from {ip} lead to this pod already"
        if len(self._handshaking) >= limits.pending_handshakes:
            return f"{len(self._handshaking)} handshakes are pending on this pod"
        if len(pod.tunnels) >= limits.tunnels_per_pod:
            return f"{len(pod.tunnels)} tunnels lead to this pod already"
        return ""

    def _opened(self, tunnel: ServerTunnel) -> None:
        self._counts.opened += 1
        self._settle(tunnel)

    def _closed(self, tunnel: ServerTunnel, error: ZproxyError | None) -> None:
        was_pending = tunnel in self._handshaking
        self._settle(tunnel)
        if tunnel in self._pod.tunnels:
            self._pod.tunnels.discard(tunnel)
            _count_down(self._begun, tunnel.remote.ip)
        self._counts.end(error.reason if error is not None else "", was_open=not was_pending)
        if error is not None and (was_pending or isinstance(error, TlsFailed | PeerBrokeProtocol)):
            self._deny(tunnel.remote, str(error), error.reason)

    def _settle(self, tunnel: ServerTunnel) -> None:
        """The handshake is over, in whatever way."""
        if tunnel in self._handshaking:
            self._handshaking.discard(tunnel)
            _count_down(self._pending, tunnel.remote.ip)

    def _refused(self, tunnel: ServerTunnel) -> None:
        count = tunnel.wire.open_streams
        self._deny(tunnel.remote, f"{count} streams are open on this tunnel already", "LIMIT")

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
        mesh, local = pod.mesh(), pod.workload
        admitted = admit(mesh, local, tunnel.local, request.authority, pod.settings)
        if isinstance(admitted, Reject):
            self._refuse(tunnel, event.stream, connection, admitted)
            return
        connection.wanted = target = admitted.target
        source = source_of(mesh, local, tunnel.remote.ip, tunnel.peer, request, pod.settings)
        service = service_of(mesh, local, admitted.service, request)
        connection.peers = pod.peers(
            Direction.INBOUND, source, local, target.port, tunnel.peer, pod.identity, service
        )
        verdict = pod.authorize(connection.peers, tunnel.remote.ip, target)
        if verdict.is_allowed:
            self._connect(tunnel, event.stream, connection, admitted)
        else:
            self._refuse(tunnel, event.stream, connection, Reject(UNAUTHORIZED, REJECTED + verdict.reason))

    def _connect(self, tunnel: ServerTunnel, stream: Stream, connection: Connection, admitted: Admit) -> None:
        target, preface, source_ip = admitted.dial, b"", tunnel.remote.ip
        if admitted.proxied is not None:
            preface = proxy_header(tunnel.remote, admitted.proxied, tunnel.peer)
            source_ip = target.ip  # over the loopback; the header says who the client is
        try:
            sock = self._pod.sockets.dial_app(target, source_ip)
        except OSError as error:
            text = f"connection failed: {connect_error(str(target), error.errno or 0)}"
            self._refuse(tunnel, stream, connection, Reject(UNAVAILABLE, text))
            return
        code = connect_progress(sock, target)
        stream.owner = relay = InboundStream(self._pod, sock, connection, tunnel, stream, code, preface)
        if code != errno.EINPROGRESS:
            relay.connected(code)

    def _refuse(self, tunnel: ServerTunnel, stream: Stream, connection: Connection, reject: Reject) -> None:
        stream.owner = NOBODY
        tunnel.answer(stream, reject.status, end=True)
        reason = "DENY" if reject.status in {400, 401} else "CONNECT"
        self._pod.connections.end(connection, self._pod.worker.poller.now, reject.reason, reason)

    def _deny(self, remote: Endpoint, error: str, reason: str) -> None:
        """Leave a line of a tunnel that never came to be, or was abused: its streams, if any, do not tell."""
        pod = self._pod
        now = pod.worker.poller.now
        at = Endpoint(pod.workload.workload_ips[0], ports.INBOUND_HBONE)
        pod.connections.end(
            pod.connections.open(pod.name, Direction.INBOUND, remote, at, now), now, error, reason
        )


def _count_down(counter: Counter[str], ip: str) -> None:
    counter[ip] -= 1
    if not counter[ip]:
        del counter[ip]


class InboundStream(StreamRelay):
    """A peer's stream on its way to our app: connect, answer 200, relay."""

    __slots__ = ("_is_connecting", "_preface")

    def __init__(  # noqa: PLR0913, PLR0917 - what makes a stream, and once per stream
        self,
        pod: PodContext,
        sock: socket.socket,
        connection: Connection,
        tunnel: ServerTunnel,
        stream: Stream,
        code: int,
        preface: bytes = b"",
    ) -> None:
        """Connect to the app by `sock`; `preface` is what it hears before anything of the peer."""
        super().__init__(pod, sock, connection, mask=READ if code == 0 else WRITE)
        self._preface = preface
        self.tunnel = tunnel
        self.stream = stream
        self._is_connecting = True
        if code == errno.EINPROGRESS:
            pod.worker.connecting.start(self, pod.worker.poller.now)

    def on_event(self, events: int) -> None:
        """Finish the connect to the app first."""
        if self._is_connecting:
            self.connected(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        else:
            super().on_event(events)

    def on_deadline(self, deadline: Deadline) -> None:
        """The app did not answer in time."""
        if self._is_connecting:
            self._unreachable(str(deadline))
        else:
            super().on_deadline(deadline)

    def connected(self, code: int) -> None:
        """Answer the peer: the connect to the app ended with `code`, an errno, or 0."""
        if code:
            self._unreachable(f"connection failed: {connect_error(str(self.connection.wanted), code)}")
            return
        if self._preface and not self._introduce():
            return
        self._is_connecting = False
        self.pod.worker.connecting.done(self)
        tunnel, stream = self.tunnel, self.stream
        if isinstance(tunnel, ServerTunnel) and stream is not None:
            tunnel.answer(stream, OK, (("baggage", self.pod.baggage),))
        self.start()
        if self._is_peer_ended and self._pending is None:
            self._shut_app()

    def _introduce(self) -> bool:
        """Send the app what it is to hear first; the buffer of a new socket holds far more."""
        try:
            is_sent = self.sock.send(self._preface) == len(self._preface)
        except OSError as error:
            text = connect_error(str(self.connection.wanted), error.errno or 0)
            self._unreachable(f"connection failed: {text}")
            return False
        if not is_sent:
            self._unreachable("connection failed: the app's socket did not take the PROXY header")
        return is_sent

    def _unreachable(self, error: str) -> None:
        tunnel, stream = self.tunnel, self.stream
        if isinstance(tunnel, ServerTunnel) and stream is not None:
            tunnel.answer(stream, UNAVAILABLE, end=True)
            self._let_go()
        self._finish(error, "CONNECT", is_broken=True)
