"""Sockets of a straw under Istio's rules: told apart by their mark, as ztunnel's are.

Whoever has CAP_NET_ADMIN or CAP_NET_RAW in the pod can set the mark too, and so pass the mesh by: that is how
those rules are. eBPF steering has no such way.
"""

import socket
from typing import Final

from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.net.netns import Netns
from zproxy.net.sockets import SO_MARK, SocketFactory, peer_of

PROXY_MARK: Final = 0x539
"""1337: what Istio's rules let pass."""


def mark(fd: int) -> None:
    """Mark the socket behind `fd` as the proxy's; raise OSError."""
    sock = socket.socket(fileno=fd)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, PROXY_MARK)
    finally:
        sock.detach()


class MarkedSockets(SocketFactory):
    """Listeners are marked, too: what they accept inherits it, and so the way back to the app is found."""

    def __init__(self, netns: Netns) -> None:
        super().__init__(netns, mark)

    def listen(self, port: int, backlog: int) -> socket.socket:
        """See SocketFactory."""
        sock = super().listen(port, backlog)
        mark(sock.fileno())
        return sock

    def bind_datagrams(self, port: int) -> socket.socket:
        """See SocketFactory."""
        sock = super().bind_datagrams(port)
        mark(sock.fileno())
        return sock

    def _prepare_app(self, sock: socket.socket, to: Endpoint, source_ip: str) -> None:
        super()._prepare_app(sock, to, source_ip)
        mark(sock.fileno())  # by which connection tracking brings the replies back over lo

    def original_destination(self, sock: socket.socket) -> Endpoint | None:
        """Return where the app dialled, as connection tracking has it; None when it dialled us."""
        found = super().original_destination(sock)
        is_ours = found is not None and found.port in ports.ILLEGAL and self.is_own(found.ip)
        return None if is_ours else found

    def arrived_at(self, sock: socket.socket) -> Endpoint:
        """Return what a client outside dialled: REDIRECT has put our port in its place."""
        return super().original_destination(sock) or peer_of(sock.getsockname())
