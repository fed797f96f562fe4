"""One query, asked of one resolver from the pod's own address, exempt from steering.

Each has a socket of its own: the kernel draws its port and hears nobody but the resolver, so that whoever
wants to forge an answer must guess the port and the id (RFC 5452).
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import Final, NamedTuple

import dns.edns

from zproxy.dns.message import LARGEST, Query, is_answer_to, with_id
from zproxy.model.addr import Endpoint
from zproxy.net.deadline import Deadline
from zproxy.net.poller import READ, WRITE
from zproxy.net.sockets import SocketFactory, connect_progress
from zproxy.net.worker import Worker

LENGTH: Final = 2
"""Bytes before each message on a stream (RFC 1035 4.2.2)."""
_TRIES: Final = 16
"""Datagrams that are looked at per turn, most of them forged."""


class Trouble(NamedTuple):
    """Why there is no answer, in the words of RFC 8914."""

    code: dns.edns.EDECode
    text: str


Done = Callable[[bytes | Trouble], None]
"""Hears once; the answer has the id of the client's query."""


class Ask:
    """A query on its way; owns its socket until an answer, a failure or `close`."""

    def __init__(
        self, worker: Worker, sock: socket.socket, query: Query, to: Endpoint, done: Done, events: int
    ) -> None:
        self._worker = worker
        self._sock = sock
        self._query = query
        self._to = to
        self._done = done
        self._sent = with_id(query.wire, int.from_bytes(os.urandom(2), "big"))
        try:
            self._begin()
            worker.poller.add(sock.fileno(), self, events)
        except BaseException:
            sock.close()
            raise
        worker.asking.start(self, worker.poller.now)

    def _begin(self) -> None:
        """Do what can be done at once; raise OSError."""

    def _go_on(self) -> None:
        """Do what the socket allows; raise BlockingIOError or another OSError."""
        raise NotImplementedError

    def on_event(self, events: int) -> None:
        """Go on; an error of the socket is the end."""
        try:
            self._go_on()
        except BlockingIOError:
            return
        except OSError as error:
            self._end(unreachable(self._to, error))

    def on_deadline(self, deadline: Deadline) -> None:
        """The resolver is silent."""
        self._end(Trouble(dns.edns.EDECode.NO_REACHABLE_AUTHORITY, f"{self._to}: {deadline}"))

    def abort(self, error: str) -> None:
        """End with an error inside zproxy."""
        self._end(Trouble(dns.edns.EDECode.OTHER, error))

    def close(self) -> None:
        """Give up, and tell nobody."""
        self._worker.asking.done(self)
        self._worker.poller.remove(self._sock.fileno())
        self._sock.close()

    def _hear(self, reply: bytes) -> bool:
        """End with `reply` if that is the answer; tell whether it is."""
        if not is_answer_to(self._sent, reply):
            return False
        self._end(with_id(reply, self._query.id))
        return True

    def _end(self, result: bytes | Trouble) -> None:
        self.close()
        self._done(result)


class DatagramAsk(Ask):
    """By UDP; what is not the answer is as if it had never come, but for `on_forged`."""

    def __init__(
        self,
        worker: Worker,
        sockets: SocketFactory,
        query: Query,
        to: Endpoint,
        done: Done,
        on_forged: Callable[[], object],
    ) -> None:
        """Send it; raise OSError when that fails at once."""
        self._on_forged = on_forged
        super().__init__(worker, sockets.dial_datagrams(to), query, to, done, READ)

    def _begin(self) -> None:
        self._sock.send(self._sent)

    def _go_on(self) -> None:
        for _ in range(_TRIES):
            if self._hear(self._sock.recv(LARGEST)):
                return
            self._on_forged()


class StreamAsk(Ask):
    """By TCP: one connection for one query."""

    def __init__(
        self, worker: Worker, sockets: SocketFactory, query: Query, to: Endpoint, done: Done
    ) -> None:
        """Dial; raise OSError when that fails at once."""
        self._in = bytearray()
        self._is_up = False
        super().__init__(worker, sockets.dial(to), query, to, done, WRITE)
        self._out = framed(self._sent)

    def _go_on(self) -> None:
        if not self._is_up and not self._connect():
            return
        if self._out:
            self._send()
        else:
            self._receive()

    def _connect(self) -> bool:
        code = connect_progress(self._sock, self._to)
        if code == errno.EINPROGRESS:
            return False
        if code:
            raise OSError(code, os.strerror(code))
        self._is_up = True
        return True

    def _send(self) -> None:
        self._out = self._out[self._sock.send(self._out) :]
        if not self._out:
            self._worker.poller.modify(self._sock.fileno(), READ)

    def _receive(self) -> None:
        data = self._sock.recv(LARGEST + LENGTH)
        if not data:
            self._end(Trouble(dns.edns.EDECode.NETWORK_ERROR, f"{self._to} closed the connection unanswered"))
            return
        self._in += data
        reply = taken(self._in)
        if reply is not None and not self._hear(reply):
            self._end(Trouble(dns.edns.EDECode.NETWORK_ERROR, f"{self._to} answered something else"))


def framed(message: bytes) -> bytes:
    """Return a message as it goes over a stream."""
    return len(message).to_bytes(LENGTH, "big") + message


def taken(buffer: bytearray) -> bytes | None:
    """Take the first message off what came over a stream; None while it is not whole."""
    if len(buffer) < LENGTH:
        return None
    end = LENGTH + int.from_bytes(buffer[:LENGTH], "big")
    if len(buffer) < end:
        return None
    message = bytes(buffer[LENGTH:end])
    del buffer[:end]
    return message


def unreachable(resolver: Endpoint, error: OSError) -> Trouble:
    """Return what a failed socket call means."""
    return Trouble(dns.edns.EDECode.NETWORK_ERROR, f"{resolver}: {error.strerror or error}")
