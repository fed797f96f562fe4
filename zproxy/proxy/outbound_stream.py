"""An app's connection on its way into a tunnel, and in it."""

import os
import socket
from typing import TYPE_CHECKING, Final

from zproxy.errors import PeerRefused, ZproxyError
from zproxy.hbone.client import ClientTunnel
from zproxy.model.conn import Direction, PoolKey
from zproxy.model.route import Upstream
from zproxy.net.poller import READ
from zproxy.observe.connections import Connection, Peers
from zproxy.proxy.relay import StreamRelay
from zproxy.proxy.tries import Tries
from zproxy.wire.errors import ErrorCode
from zproxy.wire.headers import Headers, connect_block, forwarded_text, traceparent_text

if TYPE_CHECKING:
    from zproxy.proxy.outbound import Outbound

OK: Final = 200


class OutboundStream(StreamRelay):
    """Waits for a tunnel, sends CONNECT, relays once that is answered.

    What the app has said by then goes along with the CONNECT, which spares it the round trip to the answer.
    Only that much is read before the answer, and it is kept until then: should the peer not have begun with
    the stream, another tunnel takes it from the start; and should the peer's app not be there, another
    endpoint may.
    """

    __slots__ = ("_early", "_key", "_outbound", "_route", "_tries", "_was_refused")

    network = ""
    """What the peer is told about where the connection comes from; nothing on one's own network."""

    def __init__(
        self,
        outbound: "Outbound",
        sock: socket.socket,
        connection: Connection,
        route: Upstream,
        tries: Tries,
    ) -> None:
        pod = outbound.pod
        super().__init__(pod, sock, connection, mask=0)
        self._outbound = outbound
        self._route = route
        self._tries = tries
        self._key = PoolKey(
            pod.identity, route.identities, connection.src.ip, connection.dst, route.workload.uid
        )
        self._was_refused = False
        self._early = tries.said

    def begin(self) -> None:
        """Take up work; what follows may happen before this returns."""
        worker = self.pod.worker
        worker.answering.start(self, worker.poller.now)
        self._want()
        if not self.is_done and self.connection.peers is None:
            self.connection.peers = self._peers(None)

    def _want(self) -> None:
        """Ask for a tunnel."""
        self.pod.pool.want(self._key, self)

    def _peers(self, tunnel: ClientTunnel | None) -> Peers:
        """Return who talks to whom: without a tunnel nobody has proven anything."""
        pod, route = self.pod, self._route
        return pod.peers(
            Direction.OUTBOUND,
            pod.workload,
            route.workload,
            route.port,
            pod.identity,
            None if tunnel is None else tunnel.peer_id,
            route.service,
        )

    def _head(self) -> bytes:
        """Return the block of the CONNECT."""
        connection, service = self.connection, self._route.service
        return connect_block(
            connection.hbone_addr,
            baggage=self.pod.baggage,
            forwarded=forwarded_text(connection.src, "" if service is None else service.hostname),
            traceparent=traceparent_text(os.urandom(24)),
            network=self.network,
        )

    def on_tunnel(self, tunnel: ClientTunnel) -> None:
        """Ask the peer to connect us to its app."""
        connection = self.connection
        connection.peers = self._peers(tunnel)
        self.tunnel = tunnel
        self.stream = stream = tunnel.open_stream(self._head(), self)
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
        if self._went_elsewhere(error):
            return
        if self.connection.peers is None:
            self.connection.peers = self._peers(None)
        self.give_up(str(error), error.reason)

    def on_answer(self, status: int, headers: Headers) -> None:
        """Relay on 200, try another endpoint when this one's app is not there, refuse on anything else."""
        if status != OK:
            error = PeerRefused(status)
            if not self._went_elsewhere(error):
                self.give_up(str(error), error.reason)
            return
        pod = self.pod
        pod.worker.answering.done(self)
        if self._route.is_choice:
            pod.balancer.succeeded(self._route.chosen, self._route.target_port)
        was_heard, self._early = bool(self._early), b""
        self.start()
        if not was_heard:
            self._pull()  # what it has said meanwhile

    def on_reset(self, code: int) -> None:
        """The peer broke the stream; when it had not even begun with it, another tunnel may take it, once."""
        if code == ErrorCode.REFUSED_STREAM and not self.is_open and not self._was_refused:
            self._was_refused = True
            if self.tunnel is not None:
                self.tunnel.forget(self)
            self.tunnel = self.stream = None
            self._want()
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

    def _went_elsewhere(self, error: ZproxyError) -> bool:
        """Let another endpoint have the app's socket, if there is one to try."""
        outbound, connection = self._outbound, self.connection
        if not outbound.unreachable(self._route, error):
            return False
        tries = self._tries.after(self._route, self._early)
        found = outbound.another(connection, tries)
        if found is None:
            return False
        self._part()
        connection.peers = None
        connection.tunnel = 0
        outbound.follow(self.sock, connection, found, tries)
        return True

    def _part(self) -> None:
        """End without a word to the app or in the log: both go on with another relay."""
        self._drop_stream()
        self.is_done = True
        worker = self.pod.worker
        worker.answering.done(self)
        worker.poller.remove(self.sock.fileno())
        self.pod.relays.discard(self)
        if self.tunnel is not None:
            self.tunnel.forget(self)
        self._on_finished()

    def _on_finished(self) -> None:
        pod = self.pod
        if self._route.is_choice:
            pod.balancer.released(self._route.chosen)
        if self.tunnel is None:
            pod.pool.give_up(self._key, self)
        else:
            pod.pool.has_room(self._key)
