"""What a tunnel's client and server make of its turns; each role says it for itself."""

from abc import abstractmethod

from zproxy.errors import ZproxyError
from zproxy.wire.events import StreamRequested


class TunnelHooks:
    """Called by zproxy.hbone.tunnel.Tunnel and by nobody else."""

    role = ""

    @abstractmethod
    def on_secured(self) -> None:
        """TLS is up: judge the peer. Raises TlsFailed when it is not acceptable."""

    @abstractmethod
    def on_open(self) -> None:
        """The peer is accepted and HTTP/2 has begun: open streams, or close the tunnel."""

    @abstractmethod
    def on_request(self, event: StreamRequested) -> None:
        """The peer opened a stream."""

    def on_ready(self) -> None:
        """The peer's SETTINGS are here."""

    def on_refused(self) -> None:
        """The peer opened a stream more than it may."""

    def on_draining(self) -> None:
        """The peer takes no more streams on this tunnel."""

    def on_closed(self, error: ZproxyError | None) -> None:
        """The tunnel is closed; `error` is why, unless it ended as it should."""

    def on_idle(self) -> None:
        """The last stream ended, and more may come."""

    @property
    @abstractmethod
    def identities(self) -> tuple[str, str]:
        """Who opens streams here and who serves them; empty where not yet known."""
