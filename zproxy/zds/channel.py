"""The connection to istio-cni: AF_UNIX SOCK_SEQPACKET, a message to a packet, descriptors by SCM_RIGHTS.

A descriptor that arrives is owned here until the caller has taken the packet; whatever is wrong with the
packet, it is closed.
"""

import array
import asyncio
import os
import socket
from typing import Final, NamedTuple

from zproxy.zds.wire import MAX_PACKET

SEND_S: Final = 5.0
"""How long istio-cni may take to read an answer; it gives us as long to write it."""
MAX_FDS: Final = 253
"""SCM_MAX_FD: no packet has more (linux/net/scm.h)."""
_INT: Final = array.array("i").itemsize


class PacketBroken(Exception):
    """A packet that cannot be understood; the text says why. What came with it is closed."""


class Packet(NamedTuple):
    """One message. Whoever is given it owns the descriptors."""

    data: bytes
    fds: tuple[int, ...] = ()

    def close(self) -> None:
        """Close what came along."""
        for fd in self.fds:
            os.close(fd)


class Channel:
    """One connection; used by one task at a time, on the event loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    def connect(cls, path: str) -> "Channel":
        """Connect, which NEVER waits: a full backlog is an error like any other. Raise OSError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def receive(self) -> Packet | None:
        """Return the next packet, None when the other side has gone; raise PacketBroken, OSError.

        Who is cancelled while waiting loses nothing.
        """
        while True:
            try:
                return self._read()
            except BlockingIOError:
                await self._when(readable=True)

    async def send(self, data: bytes) -> None:
        """Send a packet; raise OSError, also a TimeoutError when the other side does not read."""
        while True:
            try:
                self._sock.send(data, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                try:
                    async with asyncio.timeout(SEND_S):
                        await self._when(readable=False)
                except TimeoutError:
                    raise TimeoutError("istio-cni does not read its answers") from None
            else:
                return

    def close(self) -> None:
        """Close; idempotent. The kernel closes what came and was not read."""
        self._sock.close()

    def _read(self) -> Packet | None:
        room = socket.CMSG_SPACE(MAX_FDS * _INT)
        data, ancillary, flags, _ = self._sock.recvmsg(MAX_PACKET, room, socket.MSG_CMSG_CLOEXEC)
        packet = Packet(data, _descriptors(ancillary))
        fault = _fault(flags)
        if fault:
            packet.close()
            raise PacketBroken(fault)
        if not data and not packet.fds:
            return None  # or a packet without a byte, which asks for nothing
        return packet

    async def _when(self, *, readable: bool) -> None:
        loop, number = asyncio.get_running_loop(), self._sock.fileno()
        ready = loop.create_future()
        begin, end = (
            (loop.add_reader, loop.remove_reader) if readable else (loop.add_writer, loop.remove_writer)
        )
        begin(number, _settle, ready)
        try:
            await ready
        finally:
            end(number)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % _INT])
    return tuple(found)


def _fault(flags: int) -> str:
    if flags & socket.MSG_TRUNC:
        return f"a packet of more than {MAX_PACKET} bytes"
    if flags & socket.MSG_CTRUNC:
        return "descriptors that could not be received: are too many open?"
    return ""
