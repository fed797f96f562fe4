"""15001: what the pod's own app dials. Resolve, then HBONE to the peer or plain TCP to the rest."""

import socket
from typing import Final

from zproxy.errors import ConnectFailed, IdentityError, NameFailed, PeerRefused, TooMany, ZproxyError
from zproxy.hbone.client import ClientTunnel, TunnelWatcher, connect_error, connect_failure
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction, PoolKey
from zproxy.model.route import Passthrough, Refuse, Role, Route, Upstream
from zproxy.net.sockets import close_with_reset, peer_of, tune
from zproxy.observe.connections import Connection
from zproxy.proxy.balancer import WHOLE
from zproxy.proxy.context import PodContext
from zproxy.proxy.double import DoubleStream
from zproxy.proxy.naming import Naming
from zproxy.proxy.outbound_stream import OutboundStream
from zproxy.proxy.plain import PlainRelay
from zproxy.proxy.tries import FIRST, Tries
from zproxy.state.resolve import resolve

UNAVAILABLE: Final = 503


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
        route = resolve(pod.mesh(), pod.workload, to, pod.settings, choice)
        self.follow(sock, connection, route, FIRST)

    def follow(self, sock: socket.socket, connection: Connection, route: Route, tries: Tries) -> None:
        """Take a connection where `route` says, after `tries`."""
        pod = self.pod
        connection.route = route
        if isinstance(route, Refuse):
            close_with_reset(sock)
            pod.connections.end(connection, pod.worker.poller.now, route.reason, "DENY")
            return
        if isinstance(route, Upstream):
            if route.hostname and not route.address.ip:
                Naming(self, sock, connection, route, tries).begin()
                return
            connection.dst = route.address
            connection.hbone_addr = route.authority
            if route.is_choice:
                pod.balancer.took(route.chosen)
            if route.role is Role.GATEWAY:
                DoubleStream(self, sock, connection, route, tries).begin()
                return
            if route.identities:
                OutboundStream(self, sock, connection, route, tries).begin()
                return
        self._pass_through(sock, connection, route, tries)

    def another(self, connection: Connection, tries: Tries) -> Upstream | None:
        """Return another way for a connection after `tries`, if there is one and it may be tried."""
        pod, last = self.pod, tries.routes[-1]
        if len(tries.routes) > pod.settings.connect_retries:
            return None
        if not last.is_choice:
            return None
        tried = tries.uids
        choice = pod.balancer.choice(connection.src.ip, pod.worker.poller.now, tried)
        found = resolve(pod.mesh(), pod.workload, connection.wanted, pod.settings, choice)
        if not isinstance(found, Upstream) or {found.chosen, found.workload.uid} <= tried:
            return None
        pod.connections.totals.balancing.retries += 1
        return found

    def unreachable(self, route: Upstream, error: ZproxyError) -> bool:
        """Note that nobody could be reached by `route`; return whether that was the far side's doing."""
        if isinstance(error, IdentityError | TooMany):
            return False
        balancer, now = self.pod.balancer, self.pod.worker.poller.now
        if not isinstance(error, PeerRefused):
            is_plain = not route.identities and not isinstance(error, NameFailed)
            balancer.failed(route.chosen, now, route.target_port if is_plain else WHOLE)
        elif error.status != UNAVAILABLE:
            return False
        elif route.role is Role.DESTINATION:
            balancer.failed(route.chosen, now, route.target_port)
        return True  # a waypoint or gateway that says so serves, but somebody behind it does not

    def _pass_through(
        self,
        sock: socket.socket,
        connection: Connection,
        route: Upstream | Passthrough,
        tries: Tries,
    ) -> None:
        pod = self.pod
        destination = route.workload if isinstance(route, Upstream) else None
        if isinstance(route, Passthrough):
            connection.dst = route.to
        connection.peers = pod.peers(
            Direction.OUTBOUND, pod.workload, destination, connection.dst.port, addressed=route.service
        )
        way = PlainWay(self, route, tries) if isinstance(route, Upstream) else None
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

    __slots__ = ("_outbound", "_route", "_tries")

    def __init__(self, outbound: Outbound, route: Upstream, tries: Tries) -> None:
        self._outbound = outbound
        self._route = route
        self._tries = tries

    def reached(self) -> bytes:
        """See Way."""
        if self._route.is_choice:
            self._outbound.pod.balancer.succeeded(self._route.chosen, self._route.target_port)
        return self._tries.said

    def ended(self) -> None:
        """See Way."""
        if self._route.is_choice:
            self._outbound.pod.balancer.released(self._route.chosen)

    def elsewhere(self, connection: Connection, error: str) -> Route | None:
        """See Way."""
        self._outbound.unreachable(self._route, ConnectFailed(error))
        return self._outbound.another(connection, self._after())

    def follow(self, sock: socket.socket, connection: Connection, route: Route) -> None:
        """See Way."""
        self.ended()
        self._outbound.follow(sock, connection, route, self._after())

    def _after(self) -> Tries:
        return self._tries.after(self._route, self._tries.said)


def dial_tunnel(pod: PodContext, key: PoolKey, watcher: TunnelWatcher) -> ClientTunnel:
    """Begin a tunnel; raise IdentityError without a certificate, ConnectFailed when refused at once."""
    context = pod.tls.client()
    try:
        sock = pod.sockets.dial(key.dst)
    except OSError as error:
        raise connect_failure(key.dst, error.errno or 0) from error
    return ClientTunnel(pod.worker, sock, key, context, watcher)
