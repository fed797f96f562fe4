"""15001: what the pod's own app dials. Resolve, then HBONE to the peer pod or plain TCP to the rest."""

import os
import socket
from typing import Final

from zproxy.errors import ZproxyError
from zproxy.hbone.client import ClientTunnel, TunnelWatcher, connect_error, connect_failure
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction, PoolKey
from zproxy.model.route import Passthrough, Refuse, Upstream
from zproxy.net.poller import READ
from zproxy.net.sockets import close_with_reset, peer_of, tune
from zproxy.observe.connections import Connection
from zproxy.proxy.context import PodContext
from zproxy.proxy.plain import PlainRelay
from zproxy.proxy.relay import StreamRelay
from zproxy.state.resolve import resolve
from zproxy.wire.errors import ErrorCode
from zproxy.wire.headers import connect_block, forwarded_text, traceparent_text

OK: Final = 200


class Outbound:
    """Turns each accepted connection into a relay, or refuses it; nothing in between."""

    def __init__(self, pod: PodContext) -> None:
        self._pod = pod

    def on_accept(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Decide where a connection of the app goes."""
        pod = self._pod
        src = peer_of(address)
        to = pod.sockets.original_destination(sock)
        if to is None:
            self._refuse_direct(sock, src)
            return
        connection = pod.connections.open(pod.name, Direction.OUTBOUND, src, to, pod.worker.poller.now)
        choice = connection.route = resolve(pod.mesh(), pod.workload, to, pod.settings)
        if isinstance(choice, Refuse):
            close_with_reset(sock)
            pod.connections.end(connection, pod.worker.poller.now, choice.reason, "DENY")
        elif isinstance(choice, Upstream) and choice.identities:
            self._tunnel(sock, connection, choice)
        else:
            self._pass_through(sock, connection, choice)

    def _tunnel(self, sock: socket.socket, connection: Connection, upstream: Upstream) -> None:
        pod = self._pod
        connection.dst = upstream.address
        connection.hbone_addr = upstream.authority
        connection.peers = pod.peers(
            Direction.OUTBOUND,
            pod.workload,
            upstream.workload,
            upstream.port,
            pod.identity,
            upstream.workload.identity,
        )
        key = PoolKey(pod.identity, upstream.identities, connection.src.ip, upstream.address)
        OutboundStream(pod, sock, connection, key)

    def _pass_through(
        self, sock: socket.socket, connection: Connection, choice: Upstream | Passthrough
    ) -> None:
        pod = self._pod
        destination = choice.workload if isinstance(choice, Upstream) else None
        connection.peers = pod.peers(Direction.OUTBOUND, pod.workload, destination, connection.dst.port)
        try:
            far = pod.sockets.dial(connection.dst)
        except OSError as error:
            close_with_reset(sock)
            text = connect_error(str(connection.dst), error.errno or 0)
            pod.connections.end(connection, pod.worker.poller.now, text, "CONNECT")
            return
        tune(far)
        PlainRelay(pod, near=sock, far=far, connection=connection, is_far_app=False)

    def _refuse_direct(self, sock: socket.socket, src: Endpoint) -> None:
        """Something dialled 15001 itself: there is nowhere it could go on to."""
        pod = self._pod
        at = peer_of(sock.getsockname())
        close_with_reset(sock)
        connection = pod.connections.open(pod.name, Direction.OUTBOUND, src, at, pod.worker.poller.now)
        text = "no original destination: the port of the mesh proxy was dialled directly"
        pod.connections.end(connection, pod.worker.poller.now, text, "DENY")


class OutboundStream(StreamRelay):
    """An app's connection on its way into a tunnel: wait for one, CONNECT, relay once answered.

    What the app has said by then goes along with the CONNECT, which spares it the round trip to the answer.
    Only that much is read before the answer, and it is kept until then: should the peer not have begun with
    the stream, another tunnel takes it from the start.
    """

    __slots__ = ("_early", "_key", "_was_refused")

    def __init__(self, pod: PodContext, sock: socket.socket, connection: Connection, key: PoolKey) -> None:
        super().__init__(pod, sock, connection, mask=0)
        self._key = key
        self._was_refused = False
        self._early = b""
        pod.worker.answering.start(self, pod.worker.poller.now)
        pod.pool.want(key, self)

    def on_tunnel(self, tunnel: ClientTunnel) -> None:
        """Ask the peer to connect us to its app."""
        connection = self.connection
        head = connect_block(
            connection.hbone_addr,
            baggage=self.pod.baggage,
            forwarded=forwarded_text(connection.src),
            traceparent=traceparent_text(os.urandom(24)),
        )
        self.tunnel = tunnel
        self.stream = stream = tunnel.open_stream(head, self)
        connection.tunnel = tunnel.id
        room = tunnel.room_for(stream)
        if not self._early and room > 0:
            try:
                self._early = self.sock.recv(room)
            except BlockingIOError:
                return  # it waits for the other side to speak, or is about to
            except OSError as error:
                self._app_broke(error.errno)
                return
            connection.bytes_sent += len(self._early)
        elif len(self._early) > room:
            self.give_up("the peer refused the stream, and another tunnel has no room for it", "CONNECT")
            return
        if self._early:
            tunnel.push(stream, self._early)
            self._watch(READ)  # it will hardly say more before the answer, and then nothing need be changed

    def on_no_tunnel(self, error: ZproxyError) -> None:
        """The peer cannot be reached, or is not who it should be: nothing of the app's was sent."""
        self.give_up(str(error), error.reason)

    def on_answer(self, status: int) -> None:
        """Relay on 200, refuse on anything else."""
        self.pod.worker.answering.done(self)
        was_heard, self._early = bool(self._early), b""
        if status == OK:
            self.start()
            if not was_heard:
                self._pull()  # what it has said meanwhile
        else:
            self.give_up(f"http status: {status}", "PEER_DENY" if status == 401 else "CONNECT")

    def on_reset(self, code: int) -> None:
        """The peer broke the stream; when it had not even begun with it, another tunnel may take it, once."""
        if code == ErrorCode.REFUSED_STREAM and not self.is_open and not self._was_refused:
            self._was_refused = True
            if self.tunnel is not None:
                self.tunnel.forget(self)
            self.tunnel = self.stream = None
            self.pod.pool.want(self._key, self)
        elif code == ErrorCode.NO_ERROR and self.is_open and self._is_peer_ended:
            self._wanted_no_more()
        else:
            super().on_reset(code)

    def _wanted_no_more(self) -> None:
        """The answer is complete and only our side is refused: NEVER a reason to lose it (RFC 9113 8.1).

        Envoy's server says so whenever its app ends first. Our app hears the end, and a reset if it goes on.
        """
        self._drop_stream()
        self._is_app_ended = True
        self._watch(self._mask & ~READ)
        self._half_closed()

    def _on_finished(self) -> None:
        if self.tunnel is None:
            self.pod.pool.give_up(self._key, self)
        else:
            self.pod.pool.has_room(self._key)


def dial_tunnel(pod: PodContext, key: PoolKey, watcher: TunnelWatcher) -> ClientTunnel:
    """Begin a tunnel; raise IdentityError without a certificate, ConnectFailed when refused at once."""
    context = pod.tls.client()
    try:
        sock = pod.sockets.dial(key.dst)
    except OSError as error:
        raise connect_failure(key.dst, error.errno or 0) from error
    return ClientTunnel(pod.worker, sock, key, context, watcher)
