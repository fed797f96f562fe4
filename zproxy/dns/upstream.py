"""One query, asked of one resolver from the pod's own address, exempt from steering.

Each has a socket of its own: the kernel draws its port and hears nobody but the resolver, so that whoever
wants to forge an answer must guess the port and the id (RFC 5452).
"""

import errno
import os
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

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


class Ask(Protocol):
    """A query on its way."""

    def close(self) -> None:
        """Give up, and tell nobody."""


class DatagramAsk:
    """By UDP."""

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
        self._worker = worker
        self._query = query
        self._to = to
        self._done = done
        self._on_forged = on_forged
        self._sent = with_id(query.wire, _new_id())
        self._sock = sockets.dial_datagrams(to)
        try:
            self._sock.send(self._sent)
            worker.poller.add(self._sock.fileno(), self, READ)
        except BaseException:
            self._sock.close()
            raise
        worker.asking.start(self, worker.poller.now)

    def on_event(self, events: int) -> None:
        """Look whether it is the answer; what is not is as if it had never come."""
        for _ in range(_TRIES):
            try:
                reply = self._sock.recv(LARGEST)
            except BlockingIOError:
                return
            except OSError as error:
                self._end(unreachable(self._to, error))
                return
            if is_answer_to(self._sent, reply):
                self._end(with_id(reply, self._query.id))
                return
            self._on_forged()

    def on_deadline(self, deadline: Deadline) -> None:
        """The resolver is silent."""
        self._end(silent(self._to, deadline))

    def abort(self, error: str) -> None:
        """End with an error inside zproxy."""
        self._end(Trouble(dns.edns.EDECode.OTHER, error))

    def close(self) -> None:
        """Give up, and tell nobody."""
        self._worker.asking.done(self)
        self._worker.poller.remove(self._sock.fileno())
        self._sock.close()

    def _end(self, result: bytes | Trouble) -> None:
        self.close()
        self._done(result)


class StreamAsk:
    """By TCP: one connection for one query."""

    def __init__(
        self, worker: Worker, sockets: SocketFactory, query: Query, to: Endpoint, done: Done
    ) -> None:
        """Dial; raise OSError when that fails at once."""
        self._worker = worker
        self._query = query
        self._to = to
        self._done = done
        self._sent = with_id(query.wire, _new_id())
        self._out: bytes = framed(self._sent)
        self._in = bytearray()
        self._is_up = False
        self._sock = sockets.dial(to)
        try:
            worker.poller.add(self._sock.fileno(), self, WRITE)
        except BaseException:
            self._sock.close()
            raise
        worker.asking.start(self, worker.poller.now)

    def on_event(self, events: int) -> None:
        """Go on with what is next: connect, send, receive."""
        try:
            if self._is_up or self._connect():
                if self._out:
                    self._send()
                else:
                    self._receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._end(unreachable(self._to, error))

    def on_deadline(self, deadline: Deadline) -> None:
        """The resolver is silent."""
        self._end(silent(self._to, deadline))

    def abort(self, error: str) -> None:
        """End with an error inside zproxy."""
        self._end(Trouble(dns.edns.EDECode.OTHER, error))

    def close(self) -> None:
        """Give up, and tell nobody."""
        self._worker.asking.done(self)
        self._worker.poller.remove(self._sock.fileno())
        self._sock.close()

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
        if reply is None:
            return
        if is_answer_to(self._sent, reply):
            self._end(with_id(reply, self._query.id))
        else:
            self._end(Trouble(dns.edns.EDECode.NETWORK_ERROR, f"{self._to} answered something else"))

    def _end(self, result: bytes | Trouble) -> None:
        self.close()
        self._done(result)


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


def silent(resolver: Endpoint, deadline: Deadline) -> Trouble:
    """Return what a missed deadline means."""
    return Trouble(dns.edns.EDECode.NO_REACHABLE_AUTHORITY, f"{resolver}: {deadline}")


def _new_id() -> int:
    return int.from_bytes(os.urandom(2), "big")
