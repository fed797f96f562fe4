"""Asks the same question again and again, some at once, and a resolver that gives the same answer to all."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tests.bench.load import LoadError

IDS: Final = 1 << 16
_HEADER: Final = 12
_ANSWER: Final = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xcb\0\x71\x50"
"""The name of the question, A, IN, five seconds, 203.0.113.80."""


_LOOK_S: Final = 5.0
"""After so long without a query the resolver looks whether somebody may still ask."""


class Window(NamedTuple):
    """What a time of asking gave; times are in microseconds."""

    rate: float
    p50: float
    p99: float


class Asker:
    """Keeps `width` queries on their way over one socket, each under an id of its own."""

    def __init__(self, sock: socket.socket, query: bytes, width: int) -> None:
        """Borrow a connected socket whose blocking calls have an end."""
        self._sock = sock
        self._query = query[2:]
        self._width = width
        is_stream = sock.type == socket.SOCK_STREAM
        self._head = len(query).to_bytes(2, "big") if is_stream else b""
        self._replies = self._framed if is_stream else self._datagrams
        self._buffer = bytearray()

    def ask(self, seconds: float) -> Window:
        """Ask for so long, and wait for the last answers; raise LoadError for one that is none."""
        sent, took, number, under_way = [0.0] * IDS, list[float](), 0, self._width
        clock = time.perf_counter
        began = clock()
        until = began + seconds
        for number in range(under_way):
            sent[number] = clock()
            self._send(number)
        while under_way:
            for reply in self._replies():
                now = clock()
                took.append(now - sent[_checked(reply)])
                if now > until:
                    under_way -= 1
                    continue
                number = (number + 1) % IDS
                sent[number] = now
                self._send(number)
        return _window(took, clock() - began)

    def _send(self, number: int) -> None:
        self._sock.sendall(self._head + number.to_bytes(2, "big") + self._query)

    def _datagrams(self) -> list[bytes]:
        return [self._receive()]

    def _framed(self) -> list[bytes]:
        buffer, found = self._buffer, []
        buffer += self._receive()
        while len(buffer) >= 2 and len(buffer) >= (end := 2 + int.from_bytes(buffer[:2], "big")):
            found.append(bytes(buffer[2:end]))
            del buffer[:end]
        return found

    def _receive(self) -> bytes:
        try:
            data = self._sock.recv(IDS)
        except TimeoutError as error:
            raise LoadError("a query was never answered") from error
        if not data:
            raise LoadError("the server closed the connection")
        return data


def _checked(reply: bytes) -> int:
    """Return the id of an answer that has records."""
    if reply[3] & 0x0F or reply[6:8] == b"\0\0":
        raise LoadError(f"a query was answered with rcode {reply[3] & 0x0F}, and without what was asked for")
    return int.from_bytes(reply[:2], "big")


def _window(took: list[float], seconds: float) -> Window:
    took.sort()
    return Window(len(took) / seconds, took[len(took) // 2] * 1e6, took[len(took) * 99 // 100] * 1e6)


@contextmanager
def resolver(sock: socket.socket) -> Iterator[None]:
    """Let a process of its own answer what comes to a bound UDP socket, queries for A without EDNS."""
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        try:
            _serve(sock, parent)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _serve(sock: socket.socket, parent: int) -> None:
    sock.settimeout(_LOOK_S)
    while True:
        try:
            query, client = sock.recvfrom(IDS)
        except TimeoutError:
            if os.getppid() != parent:
                return
            continue
        head = query[:2] + b"\x85\x80" + query[4:6] + b"\0\1\0\0\0\0"
        sock.sendto(head + query[_HEADER:] + _ANSWER, client)
