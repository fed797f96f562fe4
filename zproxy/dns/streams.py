"""Queries by TCP, any number on a connection and answered as they are ready (RFC 7766)."""

import contextlib
import socket
from collections.abc import Callable
from typing import Final

from zproxy.dns.upstream import framed, taken
from zproxy.model.addr import Endpoint
from zproxy.net.deadline import Deadline
from zproxy.net.poller import READ, WRITE
from zproxy.net.worker import Worker

_CHUNK: Final = 16 << 10

Take = Callable[[bytes, Endpoint | None, Callable[[bytes], None]], None]
"""Takes a query, the resolver that was dialled, and what answers it."""


class Stream:
    """One connection of a pod's resolver; owns its socket."""

    def __init__(
        self,
        sock: socket.socket,
        resolver: Endpoint | None,
        worker: Worker,
        take: Take,
        on_end: Callable[["Stream"], object],
    ) -> None:
        self._sock = sock
        self._resolver = resolver
        self._worker = worker
        self._take = take
        self._on_end = on_end
        self._in = bytearray()
        self._out = bytearray()
        self._under_way = 0
        self._has_ended = False
        """The client will ask no more."""
        self._is_busy = False
        """Answers that come at once are sent together."""
        self._waits = True
        worker.poller.add(sock.fileno(), self, READ)
        worker.querying.start(self, worker.poller.now)

    def on_event(self, events: int) -> None:
        """Go on with what is possible."""
        try:
            if self._may_read and events & ~WRITE:
                self._receive()
            self._go_on()
        except OSError:  # the client is gone
            self.close()

    def on_deadline(self, deadline: Deadline) -> None:
        """No query came, or its answer is not taken."""
        self.close()

    def abort(self, error: str) -> None:
        """End with an error inside zproxy."""
        self.close()

    def close(self) -> None:
        """End now; what is under way is answered to nobody."""
        if self._is_closed:
            return
        self._worker.querying.done(self)
        self._worker.poller.remove(self._sock.fileno())
        self._sock.close()
        self._on_end(self)

    @property
    def _is_closed(self) -> bool:
        return self._sock.fileno() < 0

    @property
    def _has_room(self) -> bool:
        limits = self._worker.limits
        return self._under_way < limits.dns_pipelined and len(self._out) < limits.dns_backlog_bytes

    @property
    def _may_read(self) -> bool:
        return self._has_room and not self._has_ended

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self._sock.recv(_CHUNK)
            self._in += data
            self._has_ended = not data

    def _go_on(self) -> None:
        """Take the queries that there is room for, send answers, and wait for what is next."""
        has_moved = False
        self._is_busy = True
        while self._has_room and (query := taken(self._in)) is not None:
            has_moved = True
            self._under_way += 1
            self._take(query, self._resolver, self._answer)
            if self._is_closed:
                return
        self._is_busy = False
        with contextlib.suppress(BlockingIOError):
            while self._out:
                del self._out[: self._sock.send(self._out)]
                has_moved = True
        self._rest(has_moved)

    def _answer(self, reply: bytes) -> None:
        self._under_way -= 1
        if self._is_closed:
            return
        if not reply:  # no query, and nothing that could be said about it
            self.close()
            return
        self._out += framed(reply)
        if not self._is_busy:
            self.on_event(0)

    def _rest(self, has_moved: bool) -> None:
        if self._has_ended and not self._under_way and not self._out:
            self.close()
            return
        wanted = (READ if self._may_read else 0) | (WRITE if self._out else 0)
        self._worker.poller.modify(self._sock.fileno(), wanted)
        waits = bool(self._out) or not self._under_way  # resolvers have deadlines of their own
        if not waits:
            self._worker.querying.done(self)
        elif has_moved or not self._waits:
            self._worker.querying.start(self, self._worker.poller.now)
        self._waits = waits
