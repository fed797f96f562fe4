"""Accepting: bounded batches, and a pause instead of a spin when descriptors run out."""

import errno
import socket
from collections.abc import Callable
from typing import Final

from zproxy.net.deadline import Deadline
from zproxy.net.poller import READ, Poller

ACCEPTS_PER_TURN: Final = 64
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PEER_GONE: Final = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}
)

Accepted = Callable[[socket.socket, tuple[str, int]], None]


class Listener:
    """One listening socket. Hands every accepted socket (non-blocking) to `on_accept`, which then owns it."""

    def __init__(self, sock: socket.socket, poller: Poller, on_accept: Accepted, paused: Deadline) -> None:
        self.sock = sock
        self.port: int = sock.getsockname()[1]
        self._poller = poller
        self._on_accept = on_accept
        self._family = sock.family
        self._paused = paused
        self.accept_errors = 0
        self.on_lost: Callable[[], object] = bool
        """Called once when the kernel has taken the listening socket away: somebody with CAP_NET_ADMIN in its
        namespace may destroy any socket there (`ss -K`)."""
        poller.add(sock.fileno(), self, READ)

    @property
    def is_listening(self) -> bool:
        """Whether the kernel still takes connections for it; False when closed, too."""
        try:
            return bool(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        except OSError:
            return False

    def on_event(self, events: int) -> None:
        """Accept what waits, at most ACCEPTS_PER_TURN."""
        # accept(2) alone: `socket.accept` asks the listener for family and type each time, a microsecond.
        accept: Callable[[], tuple[int, tuple[str, int]]] = self.sock._accept  # type: ignore[attr-defined]
        family = self._family
        for _ in range(ACCEPTS_PER_TURN):
            try:
                fd, address = accept()
            except BlockingIOError:
                return
            except OSError as error:
                self.accept_errors += 1
                if error.errno in _PEER_GONE:
                    continue
                if error.errno == errno.EINVAL:  # it listens no more, and would be reported for ever
                    self._poller.remove(self.sock.fileno())
                    self.on_lost()
                    return
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause()
                return
            accepted = socket.socket(family, socket.SOCK_STREAM, 0, fd)
            accepted.setblocking(False)
            self._on_accept(accepted, address)

    def on_deadline(self, deadline: Deadline) -> None:
        """Accept again after a pause."""
        if self.sock.fileno() >= 0 and self.is_listening:
            self._poller.modify(self.sock.fileno(), READ)

    def abort(self, error: str) -> None:
        """Keep listening: a connection that crashed in its first moment is not the listener's end."""

    def close(self) -> None:
        """Stop accepting; connections already handed over live on."""
        if self.sock.fileno() >= 0:
            self._paused.done(self)
            self._poller.remove(self.sock.fileno())
            self.sock.close()

    def _pause(self) -> None:
        self._poller.modify(self.sock.fileno(), 0)
        self._paused.start(self, self._poller.now)
