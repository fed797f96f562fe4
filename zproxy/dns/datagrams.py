"""Queries by UDP: each is answered from the very address that it was sent to."""

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from zproxy.dns.locals import Locals
from zproxy.dns.message import LARGEST
from zproxy.net import datagrams
from zproxy.net.datagrams import Datagram
from zproxy.net.poller import READ
from zproxy.net.worker import Worker

PER_TURN: Final = 64
"""Datagrams taken at a time, so that the node's other work gets its turn."""

Take = Callable[[bytes, str, Callable[[bytes], None]], None]
"""Takes a query, the address that it was sent to, and what answers it."""


class Datagrams:
    """One UDP socket, owned from construction to `close`."""

    def __init__(
        self, sock: socket.socket, worker: Worker, own: Locals, take: Take, drop: Callable[[str], None]
    ) -> None:
        self.sock = sock
        self._port: int = sock.getsockname()[1]
        self._worker = worker
        self._own = own
        self._take = take
        self._drop = drop
        worker.poller.add(sock.fileno(), self, READ)

    def on_event(self, events: int) -> None:
        """Take what waits, at most PER_TURN."""
        for _ in range(PER_TURN):
            try:
                query = datagrams.receive(self.sock, LARGEST)
            except BlockingIOError:
                return
            except OSError:  # an answer met a closed port; its client is gone
                continue
            if query is None:
                continue
            if not query.data or not self._own.has(query.source.ip):  # empty: it came from outside
                self._drop("stranger")
            elif query.source.port == self._port:  # an answer of ours that came back as a query
                self._drop("loop")
            else:
                self._take(query.data, query.destination, partial(self._answer, query))

    def abort(self, error: str) -> None:
        """Go on: one query's crash is not the end of the others."""

    def close(self) -> None:
        """Take no more; queries under way are answered to nobody."""
        if self.sock.fileno() >= 0:
            self._worker.poller.remove(self.sock.fileno())
            self.sock.close()

    def _answer(self, query: Datagram, reply: bytes) -> None:
        if reply and self.sock.fileno() >= 0:
            with contextlib.suppress(OSError):  # no room: it is as if the answer was lost, and asked again
                datagrams.answer(self.sock, reply, query)
