"""15001: what the pod's own app dials. Resolve, then HBONE to the peer or plain TCP to the rest."""

import socket
from typing import Final

from zproxy.errors import ConnectFailed, IdentityError, PeerRefused, TooMany, ZproxyError
from zproxy.hbone.client import ClientTunnel, TunnelWatcher, connect_error, connect_failure
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction, PoolKey
from zproxy.model.route import Passthrough, Refuse, Role, Route, Upstream
from zproxy.net.sockets import close_with_reset, peer_of, tune
from zproxy.observe.connections import Connection
from zproxy.proxy.context import PodContext
from zproxy.proxy.double import DoubleStream
from zproxy.proxy.naming import Naming
from zproxy.proxy.outbound_stream import OutboundStream
from zproxy.proxy.plain import PlainRelay
from zproxy.state.resolve import resolve

UNAVAILABLE: Final = 503
UNHEARD: Final = b""
"""What an app has said so far, when nothing of it was read."""


class Outbound:
    """Turns each accepted connection into a relay, or refuses it; nothing in between.

    A relay whose endpoint cannot be reached asks here for another one (`another`) and hands the app's socket
    over to the relay that goes there (`follow`).
    """

    def __init__(self, pod: PodContext) -> None:
        self.pod = pod

    def on_accept(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Decide where a connection of the app goes."""
        pod = self.pod
        src = peer_of(address)
        to = pod.sockets.original_destination(sock)
        if to is None:
            self._refuse_direct(sock, src)
            return
        now = pod.worker.poller.now
        connection = pod.connections.open(pod.name, Direction.OUTBOUND, src, to, now)
        choice = pod.balancer.choice(src.ip, now)
        self.follow(
            sock, connection, resolve(pod.mesh(), pod.workload, to, pod.settings, choice), UNHEARD, ()
        )

    def follow(
        self, sock: socket.socket, connection: Connection, route: Route, said: bytes, failed: tuple[str, ...]
    ) -> None:
        """Take a connection where `route` says.

        `said` was read from the app and reached nobody; the workloads of the uids in `failed` were tried.
        """
        pod = self.pod
        connection.route = route
        if isinstance(route, Refuse):
            close_with_reset(sock)
            pod.connections.end(connection, pod.worker.poller.now, route.reason, "DENY")
            return
        if isinstance(route, Upstream):
            if route.hostname and not route.address.ip:
                Naming(self, sock, connection, route, said, failed).begin()
                return
            connection.dst = route.address
            connection.hbone_addr = route.authority
            pod.balancer.took(route.workload.uid)
            if route.role is Role.GATEWAY:
                DoubleStream(self, sock, connection, route, said, failed).begin()
                return
            if route.identities:
                OutboundStream(self, sock, connection, route, said, failed).begin()
                return
        self._pass_through(sock, connection, route, said, failed)

    def another(self, connection: Connection, route: Upstream, failed: tuple[str, ...]) -> Upstream | None:
        """Return another way for a connection whose way by `route` has failed, if one may be tried.

        There is one only where several workloads are equally right: endpoints of a service, or waypoints.
        """
        pod = self.pod
        if len(failed) >= pod.settings.connect_retries:
            return None
        if route.service is None and route.role is Role.DESTINATION:
            return None
        tried = (*failed, route.workload.uid)
        choice = pod.balancer.choice(connection.src.ip, pod.worker.poller.now, tried)
        found = resolve(pod.mesh(), pod.workload, connection.wanted, pod.settings, choice)
        if not isinstance(found, Upstream) or found.workload.uid in tried:
            return None
        pod.connections.totals.balancing.retries += 1
        return found

    def unreachable(self, route: Upstream, error: ZproxyError) -> bool:
        """Note that nobody could be reached by `route`; return whether that was the far side's doing."""
        if isinstance(error, IdentityError | TooMany):
            return False
        if isinstance(error, PeerRefused):
            if error.status != UNAVAILABLE:
                return False
            if route.role is not Role.DESTINATION:
                return True  # it serves, but somebody behind it does not
        self.pod.balancer.failed(route.workload.uid, self.pod.worker.poller.now)
        return True

    def _pass_through(
        self,
        sock: socket.socket,
        connection: Connection,
        route: Upstream | Passthrough,
        said: bytes,
        failed: tuple[str, ...],
    ) -> None:
        pod = self.pod
        destination = route.workload if isinstance(route, Upstream) else None
        if isinstance(route, Passthrough):
            connection.dst = route.to
        connection.peers = pod.peers(
            Direction.OUTBOUND, pod.workload, destination, connection.dst.port, addressed=route.service
        )
        way = PlainWay(self, route, said, failed) if isinstance(route, Upstream) else None
        try:
            far = pod.sockets.dial(connection.dst)
        except OSError as error:
            text = connect_error(str(connection.dst), error.errno or 0)
            found = way.elsewhere(connection, text) if way is not None else None
            if way is not None and found is not None:
                way.follow(sock, connection, found)
                return
            if way is not None:
                way.ended()
            close_with_reset(sock)
            pod.connections.end(connection, pod.worker.poller.now, text, "CONNECT")
            return
        tune(far)
        PlainRelay(pod, near=sock, far=far, connection=connection, is_far_app=False, way=way)

    def _refuse_direct(self, sock: socket.socket, src: Endpoint) -> None:
        """Something dialled 15001 itself: there is nowhere it could go on to."""
        pod = self.pod
        at = peer_of(sock.getsockname())
        close_with_reset(sock)
        connection = pod.connections.open(pod.name, Direction.OUTBOUND, src, at, pod.worker.poller.now)
        text = "no original destination: the port of the mesh proxy was dialled directly"
        pod.connections.end(connection, pod.worker.poller.now, text, "DENY")


class PlainWay:
    """What a relay to a workload without HBONE asks: whether there is another one."""

    __slots__ = ("_failed", "_outbound", "_route", "_said")

    def __init__(self, outbound: Outbound, route: Upstream, said: bytes, failed: tuple[str, ...]) -> None:
        self._outbound = outbound
        self._route = route
        self._said = said
        self._failed = failed

    def reached(self) -> bytes:
        """See Way."""
        self._outbound.pod.balancer.succeeded(self._route.workload.uid)
        said, self._said = self._said, b""
        return said

    def ended(self) -> None:
        """See Way."""
        self._outbound.pod.balancer.released(self._route.workload.uid)

    def elsewhere(self, connection: Connection, error: str) -> Route | None:
        """See Way."""
        self._outbound.unreachable(self._route, ConnectFailed(error))
        return self._outbound.another(connection, self._route, self._failed)

    def follow(self, sock: socket.socket, connection: Connection, route: Route) -> None:
        """See Way."""
        self.ended()
        failed = (*self._failed, self._route.workload.uid)
        self._outbound.follow(sock, connection, route, self._said, failed)


def dial_tunnel(pod: PodContext, key: PoolKey, watcher: TunnelWatcher) -> ClientTunnel:
    """Begin a tunnel; raise IdentityError without a certificate, ConnectFailed when refused at once."""
    context = pod.tls.client()
    try:
        sock = pod.sockets.dial(key.dst)
    except OSError as error:
        raise connect_failure(key.dst, error.errno or 0) from error
    return ClientTunnel(pod.worker, sock, key, context, watcher)
