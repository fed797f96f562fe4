"""One data-plane worker that a test drives by waiting: no loop, no thread, no sleep, a clock that stands."""

import select
import socket
import time
from collections.abc import Callable

from tests.support.frame_peer import FramePeer
from tests.support.raw import Played, RawPeer, RawServer
from zproxy.config import Deadlines, Limits
from zproxy.model.addr import Endpoint
from zproxy.model.credentials import Credentials
from zproxy.net.worker import Worker

WAIT_S = 10.0
START = 1000.0
"""What the worker's clock says at first; it moves only by `advance`."""


class Bench:
    """Everything on the worker, and every peer played by the test, moves while `wait` waits. Close it."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - immutable
    ) -> None:
        self.now = START
        self.crashes: list[Exception] = []
        self.worker = Worker(deadlines, limits, lambda item, error: self.crashes.append(error))
        self.worker.poller.clock = lambda: self.now
        self.worker.poller.now = self.now
        self._played: list[Played] = []
        self._opened: list[socket.socket] = []

    def wait(self, condition: Callable[[], bool], seconds: float = WAIT_S) -> None:
        """Run until `condition` holds; fail after `seconds`, or when a handler has raised."""
        ends = time.monotonic() + seconds
        poller = self.worker.poller
        while not condition():
            assert time.monotonic() < ends, "the condition never held"
            for peer in self._played:
                peer.step()
            if select.select([poller.fileno()], [], [], 0 if self._played else 0.01)[0]:
                poller.run_batch()
            else:
                poller.flush()
            assert self.crashes == []

    def narrow(self, *socks: socket.socket) -> int:
        """Fix the buffers of sockets, which grow by tens of megabytes otherwise, depending on the timing;
        return how many bytes they take together.
        """
        options = (socket.SO_SNDBUF, socket.SO_RCVBUF)
        for sock in socks:
            for option in options:
                sock.setsockopt(socket.SOL_SOCKET, option, 1 << 18)
        return sum(sock.getsockopt(socket.SOL_SOCKET, option) for sock in socks for option in options)

    def flood(self, sock: socket.socket) -> int:
        """Send until the other side, which does not read, stalls it for good; return how much went."""
        sock.setblocking(False)
        sent, stalls = 0, 0

        def push() -> bool:
            nonlocal sent, stalls
            try:
                sent += sock.send(bytes(1 << 16))
                stalls = 0
            except BlockingIOError:
                stalls += 1
            return stalls > 20

        self.wait(push)
        return sent

    def settle(self) -> None:
        """Run until nothing has happened for a while that is long on loopback: for what must not happen."""
        quiet = time.monotonic() + 0.05
        self.wait(lambda: time.monotonic() > quiet)

    def advance(self, seconds: float) -> None:
        """Let time pass on the worker's clock, and sweep."""
        self.now += seconds
        self.worker.sweep()
        assert self.crashes == []

    def keep(self, sock: socket.socket) -> socket.socket:
        """Close `sock` with the bench; its blocking calls give up in time."""
        sock.settimeout(WAIT_S)
        self._opened.append(sock)
        return sock

    def dial_raw(
        self,
        to: Endpoint,
        credentials: Credentials,
        source_ip: str = "127.0.0.1",
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> RawPeer:
        """Return a client played by the test, on its way to the tunnel listener at `to`."""
        peer = RawPeer.dial(to, credentials, source_ip, limits)
        self._played.append(peer)
        return peer

    def dial_frames(self, to: Endpoint, credentials: Credentials, source_ip: str = "127.0.0.1") -> FramePeer:
        """Return a client that sends what the test wants, on its way to the tunnel listener at `to`."""
        peer = FramePeer(socket.create_connection(to, source_address=(source_ip, 0)), credentials)
        self._played.append(peer)
        return peer

    def serve_raw(
        self,
        credentials: Credentials,
        ip: str,
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> RawServer:
        """Return a tunnel server played by the test, on a free port of `ip`."""
        server = RawServer(credentials, limits, ip)
        self._played.append(server)
        return server

    def play(self, peer: Played) -> None:
        """Move `peer`, too, while the bench waits, and close it in the end."""
        self._played.append(peer)

    def close(self) -> None:
        """Close what the test opened, then the worker."""
        self.worker.poller.flush()
        for peer in self._played:
            peer.close()
        for sock in self._opened:
            sock.close()
        self.worker.close()
