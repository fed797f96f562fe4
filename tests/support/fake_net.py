"""Sockets, TLS and readiness that are not there: a worker's whole world in memory, as strict as the kernel.

What the real ones would forgive or hide is an AssertionError here: a socket used after its close, an fd
watched twice or not at all, a handler that is called for ever.
"""

import errno
import itertools
import select
import socket
from typing import Any, Final

from zproxy.net.poller import READ, WRITE, Flushable, Pollable

MOST_TURNS: Final = 2_000
"""Events after one step; a level-triggered fd that nobody reads makes more."""
_BREAKS: Final = select.EPOLLHUP | select.EPOLLERR


class FakeSocket:
    """One end of a connection. `inbox` is what waits to be read, `room` what it still takes (None: all)."""

    def __init__(self, fd: int, *, is_connecting: bool = False, ip: str = "127.0.0.1") -> None:
        self._fd = fd
        self._ip = ip
        self.is_connecting = is_connecting
        self.is_closed = False
        self.inbox = bytearray()
        self.is_ended = False
        self.is_shut = False
        self.error = 0
        self.room: int | None = None
        self.taken = bytearray()

    def fileno(self) -> int:
        return -1 if self.is_closed else self._fd

    def ready(self) -> int:
        """Return what epoll would say."""
        if self.is_connecting:
            return 0
        events = READ if self.inbox or self.is_ended or self.error else 0
        events |= WRITE if self.room != 0 or self.error else 0
        if self.error:
            events |= _BREAKS
        elif self.is_ended and self.is_shut:
            events |= select.EPOLLHUP
        return events

    def recv_into(self, buffer: memoryview) -> int:
        self._check()
        if not self.inbox:
            if self.is_ended:
                return 0
            raise BlockingIOError
        size = min(len(self.inbox), len(buffer))
        buffer[:size] = self.inbox[:size]
        del self.inbox[:size]
        return size

    def recv(self, size: int) -> bytes:
        buffer = memoryview(bytearray(size))
        return bytes(buffer[: self.recv_into(buffer)])

    def recvmsg_into(self, buffers: list[memoryview]) -> tuple[int, list[object], int, None]:
        size = self.recv_into(buffers[0])
        for buffer in buffers[1:]:
            if not self.inbox:
                break
            size += self.recv_into(buffer)
        return size, [], 0, None

    def connect_ex(self, to: object) -> int:
        return errno.EALREADY if self.is_connecting else errno.EISCONN

    def send(self, data: bytes | bytearray | memoryview) -> int:
        self._check()
        assert not self.is_shut, "send after shutdown"
        size = len(data) if self.room is None else min(len(data), self.room)
        if not size and len(data):
            raise BlockingIOError
        if self.room is not None:
            self.room -= size
        self.taken += data[:size]
        return size

    def sendmsg(self, chunks: list[memoryview]) -> int:
        return self.send(b"".join(chunks))

    def shutdown(self, how: int) -> None:
        self._check()
        assert how == socket.SHUT_WR
        self.is_shut = True

    def setsockopt(self, *_: object) -> None:
        assert not self.is_closed

    def getsockopt(self, level: int, name: int) -> int:
        assert not self.is_closed
        assert (level, name) == (socket.SOL_SOCKET, socket.SO_ERROR)
        code, self.error = self.error, 0
        self.is_ended = self.is_ended or bool(code)
        return code

    def getsockname(self) -> tuple[str, int]:
        assert not self.is_closed
        return self._ip, self._fd

    def close(self) -> None:
        self.is_closed = True

    def _check(self) -> None:
        assert not self.is_closed, "a closed socket is used"
        assert not self.is_connecting, "a socket is used before it is connected"
        if self.error:
            code = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            raise OSError(code, errno.errorcode[code])


class FakePoller:
    """Stands for zproxy.net.poller.Poller; faults of handlers come through."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sockets: dict[int, FakeSocket] = {}
        self._owners: dict[int, tuple[Pollable, int]] = {}
        self._told: set[int] = set()
        self._dirty: list[Flushable] = []
        self._numbers = itertools.count(3)

    def clock(self) -> float:
        return self.now

    def socket(self, *, is_connecting: bool = False, ip: str = "127.0.0.1") -> FakeSocket:
        fd = next(self._numbers)
        made = self.sockets[fd] = FakeSocket(fd, is_connecting=is_connecting, ip=ip)
        return made

    def add(self, fd: int, owner: Pollable, events: int) -> None:
        assert fd in self.sockets
        assert not self.sockets[fd].is_closed
        assert fd not in self._owners, "an fd is watched twice"
        self._owners[fd] = owner, events

    def modify(self, fd: int, events: int) -> None:
        assert fd in self._owners, "an fd that is not watched is changed"
        self._owners[fd] = self._owners[fd][0], events
        self._told.discard(fd)

    def remove(self, fd: int) -> None:
        self._owners.pop(fd, None)
        self._told.discard(fd)

    def forget(self, fd: int) -> None:
        self.remove(fd)

    def soon(self, item: Flushable) -> None:
        self._dirty.append(item)

    def flush(self) -> None:
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            for item in dirty:
                item.flush()

    def settle(self) -> None:
        """Serve events until there are none."""
        for _ in range(MOST_TURNS):
            waiting = self._waiting()
            if not waiting:
                return
            for fd, events in waiting:
                if fd in self._owners:
                    self._owners[fd][0].on_event(events)
            self.flush()
        raise AssertionError(f"handlers spin: {waiting}")

    def _waiting(self) -> list[tuple[int, int]]:
        found = []
        for fd, (_, mask) in self._owners.items():
            events = self.sockets[fd].ready() & (mask | _BREAKS)
            if events and mask == 0:
                if fd in self._told:
                    continue
                self._told.add(fd)
            if events:
                found.append((fd, events))
        return found

    def __len__(self) -> int:
        return len(self._owners)


class FakeTls:
    """A session that encrypts nothing, and agrees with everybody who says anything."""

    def __init__(self, uris: tuple[str, ...]) -> None:
        self.eof = False
        self.alpn = "h2"
        self._uris = uris
        self._fed = b""
        self._out = b""

    def handshake(self) -> bool:
        return True

    def feed(self, data: memoryview) -> None:
        assert not self._fed, "fed before the last was read"
        self._fed = bytes(data)

    def read_into(self, buffer: memoryview) -> int:
        size = min(len(self._fed), len(buffer))
        buffer[:size] = self._fed[:size]
        self._fed = self._fed[size:]
        return size

    def write(self, data: memoryview | bytes) -> None:
        self._out += data

    def output(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def peer_uris(self) -> tuple[str, ...]:
        return self._uris

    def cipher(self) -> str:
        return "none"

    def shutdown(self) -> None:
        pass

    def close(self) -> None:
        self._fed = b""


class FakeEngine:
    """Makes contexts whose peers are `uri`."""

    name = "none"

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def server(self, _credentials: Any) -> "FakeEngine":
        return self

    client = server

    def session(self) -> FakeTls:
        return FakeTls((self._uri,))
