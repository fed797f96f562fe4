"""Double HBONE: a tunnel to a gateway, and in a stream of it a second one, to who serves behind the gateway.

The outer tunnel is pooled like any other. The inner one carries one connection and is never shared; it speaks
over one end of a socket pair, and the other end is relayed through the outer tunnel like an app's socket. So
flow control, half-close and deadlines of either are those of every tunnel.
"""

import socket
from typing import TYPE_CHECKING

from zproxy.errors import IdentityError, PeerRefused, TooMany, TunnelClosed, ZproxyError
from zproxy.hbone.client import ClientTunnel, TunnelWatcher
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction, PoolKey
from zproxy.model.route import Upstream
from zproxy.observe.connections import Connection, Peers
from zproxy.proxy.outbound_stream import OK, OutboundStream
from zproxy.proxy.tries import FIRST, Tries
from zproxy.wire.baggage import workload_of
from zproxy.wire.headers import Headers
from zproxy.wire.tls import TlsContext

if TYPE_CHECKING:
    from zproxy.proxy.outbound import Outbound


class DoubleStream(OutboundStream):
    """An app's connection to a service on another network."""

    __slots__ = ("_leg",)

    def __init__(
        self,
        outbound: "Outbound",
        sock: socket.socket,
        connection: Connection,
        route: Upstream,
        tries: Tries,
    ) -> None:
        super().__init__(outbound, sock, connection, route, tries)
        self._leg: Leg | None = None

    def _want(self) -> None:
        self._leave()
        try:
            leg = self._leg = Leg(self, self._outbound, self._route, self._key)
        except OSError as error:
            self.on_no_tunnel(TooMany(f"no socket pair for a tunnel inside a tunnel: {error.strerror}"))
        else:
            leg.begin()

    def _peers(self, tunnel: ClientTunnel | None) -> Peers:
        """Who serves is not known before it answers."""
        return self._peers_told(tunnel, None)

    def _peers_told(self, tunnel: ClientTunnel | None, baggage: str | None) -> Peers:
        pod, route = self.pod, self._route
        identity = None if tunnel is None else tunnel.peer_id
        return pod.peers(
            Direction.OUTBOUND,
            pod.workload,
            workload_of(baggage, identity) if baggage and identity is not None else None,
            route.port,
            pod.identity,
            identity,
            route.service,
        )

    @property
    def network(self) -> str:  # type: ignore[override] # read-only here, and never written there
        """The pod's own, which is not that of who serves."""
        return self.pod.workload.network

    def on_tunnel(self, tunnel: ClientTunnel) -> None:
        """The inner tunnel is up; records name the outer one, which others share and lists show."""
        outer = self.connection.tunnel
        super().on_tunnel(tunnel)
        self.connection.tunnel = outer

    def on_answer(self, status: int, headers: Headers) -> None:
        """Take the labels of who serves from its answer."""
        tunnel = self.tunnel
        if status == OK and isinstance(tunnel, ClientTunnel):
            self.connection.peers = self._peers_told(tunnel, headers.get("baggage"))
        super().on_answer(status, headers)

    def _on_finished(self) -> None:
        self.pod.balancer.released(self._route.chosen)
        self._leave()

    def _leave(self) -> None:
        leg, self._leg = self._leg, None
        if leg is not None:
            leg.leave()


class Leg(OutboundStream):
    """The inner tunnel's bytes on their way through the outer one."""

    __slots__ = ("_far", "_inner", "_stream")

    def __init__(self, stream: DoubleStream, outbound: "Outbound", route: Upstream, key: PoolKey) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        of = stream.connection
        apart = Connection(0, of.pod, of.direction, of.src, key.dst)  # a record that nobody shows
        apart.hbone_addr = of.hbone_addr
        super().__init__(outbound, near, apart, route, FIRST)
        self._stream: DoubleStream | None = stream
        """Who hears, once, what becomes of this."""
        self._far: socket.socket | None = far
        """The inner tunnel's end, until there is one."""
        self._inner: InnerTunnel | None = None

    def on_tunnel(self, tunnel: ClientTunnel) -> None:
        """Ask the gateway for the way on."""
        if self._stream is not None:
            self._stream.connection.tunnel = tunnel.id
        super().on_tunnel(tunnel)

    def on_no_tunnel(self, error: ZproxyError) -> None:
        """The gateway cannot be reached, or is not who it should be."""
        if not isinstance(error, IdentityError | TooMany):
            self.pod.balancer.failed(self._key.dst_uid, self.pod.worker.poller.now)
        self._refused(error)

    def on_answer(self, status: int, headers: Headers) -> None:
        """Begin the inner tunnel on 200."""
        pod, far = self.pod, self._far
        pod.worker.answering.done(self)
        if status != OK or far is None:
            self._refused(PeerRefused(status))
            return
        try:
            context = pod.tls.client()
        except ZproxyError as error:
            self._refused(error)
            return
        self._far = None
        pod.balancer.succeeded(self._key.dst_uid, self._key.dst.port)
        self.start()
        key = self._key._replace(dst_identities=self._route.inner, dst_uid="")
        self._inner = InnerTunnel(self, far, key, context)
        self._inner.begin(self.connection.hbone_addr)

    def leave(self) -> None:
        """The app's connection is over: end the inner tunnel in order, and this with it."""
        self._stream = None
        if self._inner is not None:
            self._inner.leave()
        elif self._far is not None:
            self.give_up("the app's connection is over", "CONNECT")

    def opened(self, tunnel: "InnerTunnel") -> None:
        """The inner tunnel is up."""
        self.pod.connections.totals.tunnels["client"].opened += 1
        if self._stream is not None:
            self._stream.on_tunnel(tunnel)

    def closed(self, tunnel: "InnerTunnel", error: ZproxyError | None) -> None:
        """The inner tunnel is gone; a connection that it carried has heard that already."""
        counts = self.pod.connections.totals.tunnels["client"]
        counts.end(error.reason if error is not None else "", was_open=bool(tunnel.peer))
        self._inner = None
        stream, self._stream = self._stream, None
        if stream is not None and stream.tunnel is None:
            stream.on_no_tunnel(error or TunnelClosed(f"{tunnel.remote}: the tunnel was closed"))

    def _refused(self, error: ZproxyError) -> None:
        """The gateway does not lead on; another one may."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.on_no_tunnel(error)
        self.give_up(str(error), error.reason)

    def _finish(self, error: str, reason: str, *, is_broken: bool = False) -> None:
        if self.is_done:
            return
        super()._finish(error, reason, is_broken=is_broken)
        stream, self._stream = self._stream, None
        inner, self._inner = self._inner, None
        if error and inner is not None:
            inner.fail(LegLost(error, reason))
        if stream is not None and stream.tunnel is None:
            stream.give_up(error or "the gateway closed the stream", reason or "TUNNEL_CLOSED")

    def _on_finished(self) -> None:
        if self._far is not None:
            self._far.close()
            self._far = None
        if self.tunnel is None:
            self.pod.pool.give_up(self._key, self)
        else:
            self.pod.pool.has_room(self._key)


class InnerTunnel(ClientTunnel):
    """A tunnel inside a stream, for one connection."""

    def __init__(self, leg: Leg, sock: socket.socket, key: PoolKey, context: TlsContext) -> None:
        watcher = TunnelWatcher(_nothing, _nothing, _nothing)
        super().__init__(leg.pod.worker, sock, key, context, watcher)
        self._leg: Leg | None = leg

    def tune(self, sock: socket.socket) -> None:
        """It is no TCP."""

    def begin(self, authority: str) -> None:
        """Shake hands with who serves `authority`."""
        host, _, port = authority.rpartition(":")
        self.remote = Endpoint(host, int(port))
        self.shake_hands()

    def on_open(self) -> None:
        """Tell the leg."""
        if self._leg is not None:
            self._leg.opened(self)

    def on_ready(self) -> None:
        """The one connection has its stream already."""

    def on_closed(self, error: ZproxyError | None) -> None:
        """Tell the leg, and part from it."""
        leg, self._leg = self._leg, None
        if leg is not None:
            leg.closed(self, error)

    def on_draining(self) -> None:
        """The peer wants no more streams, and gets none."""


class LegLost(TunnelClosed):
    """The way to the gateway broke under an inner tunnel; `reason` is that of the break."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


def _nothing(*_: object) -> None:
    """An inner tunnel tells its leg itself."""
