"""The accepting end of a tunnel: what reaches a pod on 15008."""

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn

from zproxy.errors import TlsFailed, ZproxyError
from zproxy.hbone.tunnel import State, Tunnel
from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.net.poller import READ
from zproxy.net.sockets import peer_of
from zproxy.net.worker import Worker
from zproxy.wire.errors import ErrorCode
from zproxy.wire.events import StreamRequested
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.stream import Role, Stream
from zproxy.wire.tls import TlsContext


class ServerTunnel(Tunnel):
    """Accepts streams. Reads NO frame before the client's certificate is verified and of our trust domain."""

    role = "server"

    def __init__(
        self,
        worker: Worker,
        sock: socket.socket,
        remote: Endpoint,
        context: TlsContext,
        owner: "TunnelOwner",
    ) -> None:
        super().__init__(worker, sock, context.session(), HboneConnection(Role.SERVER, worker.limits))
        self.remote = remote
        self.local = peer_of(sock.getsockname())
        self.peer: SpiffeId | None = None
        """Who the client is; set before any stream."""
        self._owner = owner
        self.state = State.HANDSHAKING
        worker.handshaking.start(self, worker.poller.now)
        worker.poller.add(sock.fileno(), self, READ)

    @property
    def identities(self) -> tuple[str, str]:
        """The client's, and the pod's own."""
        return str(self.peer or ""), str(self._owner.identity)

    def on_secured(self) -> None:
        """Take the first SPIFFE identity of the client's certificate; its trust domain must be ours."""
        found = self.tls.peer_uris()
        for uri in found:
            with contextlib.suppress(ValueError):
                self.peer = SpiffeId.parse(uri)
                break
        if self.peer is None:
            self._turn_away(f"presented no SPIFFE identity ({', '.join(found) or 'no URI SAN'})")
        elif self.peer.trust_domain != self._owner.identity.trust_domain:
            self._turn_away(
                f"is of trust domain {self.peer.trust_domain}; "
                f"this pod accepts {self._owner.identity.trust_domain}"
            )

    def _turn_away(self, why: str) -> NoReturn:
        """Tell the client in a GOAWAY, since TLS has no alert left to say it with; raise TlsFailed."""
        self.wire.start()
        self.wire.goaway(ErrorCode.INADEQUATE_SECURITY, f"the client {why}")
        self._outbox.seal()
        self.tls.shutdown()
        raise TlsFailed(f"{self.remote} {why}")

    def on_open(self) -> None:
        """Tell the straw."""
        self._owner.on_open(self)

    def on_request(self, event: StreamRequested) -> None:
        """Hand a new stream to the straw."""
        self._owner.on_request(self, event)

    def on_refused(self) -> None:
        """Tell the straw."""
        self._owner.on_refused(self)

    def answer(
        self,
        stream: Stream,
        status: int,
        headers: Sequence[tuple[str, str]] = (),
        *,
        end: bool = False,
    ) -> None:
        """Answer a CONNECT; `end` closes our side of the stream with it, as a refusal does."""
        self.wire.respond(stream, status, headers, end=end)
        self.touch()

    def on_draining(self) -> None:
        """The client will open no more streams; it closes the connection itself."""

    def on_closed(self, error: ZproxyError | None) -> None:
        """Tell the straw."""
        self._owner.on_closed(self, error)


class TunnelOwner:
    """What a server tunnel needs of its straw."""

    __slots__ = ("identity", "on_closed", "on_open", "on_refused", "on_request")

    def __init__(
        self,
        identity: SpiffeId,
        on_open: Callable[[ServerTunnel], None],
        on_request: Callable[[ServerTunnel, StreamRequested], None],
        on_refused: Callable[[ServerTunnel], None],
        on_closed: Callable[[ServerTunnel, ZproxyError | None], None],
    ) -> None:
        self.identity = identity
        self.on_open = on_open
        self.on_request = on_request
        self.on_refused = on_refused
        self.on_closed = on_closed
