"""The sending half of a tunnel: frames collected during a batch leave in one TLS write and one send.

App bytes are received straight into the batch, behind the nine bytes of a DATA header that is filled in
afterwards; control frames are put between them in the order in which they arose.
"""

import socket
from typing import Final

from zproxy.net.poller import READ, WRITE
from zproxy.net.worker import Worker
from zproxy.wire.hbone import HboneConnection
from zproxy.wire.stream import Stream
from zproxy.wire.tls import TlsSession

DATA_HEADER: Final = 9
SMALLEST_READ: Final = 16 << 10
"""A batch with less room than this is encrypted before the next read, so that frames stay large."""


class Outbox:
    """Holds a batch only while dirty, and ciphertext only while the socket does not take it."""

    __slots__ = (
        "_backlog", "_batch", "_buffers", "_fill", "_sock", "_tls", "_wire", "_worker", "bytes_sent",
        "is_congested", "sealed",
    )  # fmt: skip

    def __init__(self, worker: Worker, sock: socket.socket, tls: TlsSession, wire: HboneConnection) -> None:
        self._worker = worker
        self._buffers = worker.buffers
        self._sock = sock
        self._tls = tls
        self._wire = wire
        self._batch: memoryview | None = None
        self._fill = 0
        self._backlog = bytearray()
        self.bytes_sent = 0
        """Ciphertext that the socket took."""
        self.is_congested = False
        """Whether apps should not be read because the socket does not drain."""
        self.sealed = 0
        """Bytes that were encrypted and not handed to the socket yet."""

    @property
    def backlog(self) -> int:
        """Bytes that wait for the socket."""
        return len(self._backlog)

    @property
    def has_backlog(self) -> bool:
        """Whether ciphertext waits for the socket."""
        return bool(self._backlog)

    def pull(self, source: socket.socket, stream: Stream) -> int:
        """Receive one DATA frame from `source`; return and raise as `HboneConnection.fill` and recv_into do.

        Where the peer allows only small frames and one read filled such a frame, more follow at once.
        """
        wire, batch = self._wire, self._room()
        moved = wire.fill(batch, self._fill, stream, source.recv_into)
        if moved > 0:
            self._fill += DATA_HEADER + moved
            if moved >= SMALLEST_READ and moved == wire.max_frame < len(batch) // 2:
                moved += self._scatter(batch, source, stream)
        return moved

    def push(self, data: bytes, stream: Stream) -> None:
        """Put `data`, at most SMALLEST_READ - DATA_HEADER bytes, into one DATA frame."""
        batch = self._room()
        at = self._fill + DATA_HEADER
        batch[at : at + len(data)] = data
        self._wire.put_data_header(batch, self._fill, stream, len(data))
        self._fill = at + len(data)

    def _room(self) -> memoryview:
        """Return the batch: control frames before its fill, space for a frame behind it."""
        if self._wire.out:
            self._put_control()
        batch = self._batch
        if batch is None:
            batch = self._batch = self._buffers.borrow()
        elif len(batch) - self._fill < SMALLEST_READ:
            self._encrypt()
        return batch

    def _scatter(self, batch: memoryview, source: socket.socket, stream: Stream) -> int:
        """Fill the rest of the batch with one read into many frames; return the bytes moved, maybe none."""
        allowed, frame = self._wire.window(stream), self._wire.max_frame
        at, payloads = self._fill, list[memoryview]()
        while allowed > 0 and len(batch) - at > SMALLEST_READ // 2:
            at += DATA_HEADER
            payloads.append(batch[at : at + min(frame, allowed)])
            at += len(payloads[-1])
            allowed -= len(payloads[-1])
        if not payloads:
            return 0
        try:
            moved = rest = source.recvmsg_into(payloads)[0]
        except BlockingIOError:
            return 0
        for payload in payloads:
            if not rest:
                break
            size = min(len(payload), rest)
            self._wire.put_data_header(batch, self._fill, stream, size)
            self._fill += DATA_HEADER + size
            rest -= size
        return moved

    def seal(self) -> None:
        """Encrypt everything collected and give the batch back."""
        if self._wire.out:
            self._put_control()
        batch = self._batch
        if batch is not None:
            self._encrypt()
            self._buffers.give_back(batch)
            self._batch = None

    def send(self) -> None:
        """Hand the ciphertext to the socket; keep what it does not take. Raise OSError."""
        data = self._tls.output()
        self.sealed = 0
        if not data:
            return
        if self._backlog:
            self._hold(data)
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        self.bytes_sent += sent
        if sent < len(data):
            self._hold(data[sent:])
            self._worker.poller.modify(self._sock.fileno(), READ | WRITE)

    def send_backlog(self) -> bool:
        """Continue after the socket became writable; return whether apps may be read again. Raise OSError."""
        try:
            sent = self._sock.send(self._backlog)
        except BlockingIOError:
            return False
        self.bytes_sent += sent
        del self._backlog[:sent]
        if not self._backlog:
            self._backlog = bytearray()  # an emptied bytearray keeps its memory; an idle tunnel has none
            self._worker.poller.modify(self._sock.fileno(), READ)
        has_room = len(self._backlog) <= self._worker.limits.backlog_bytes // 2
        if has_room:
            self.is_congested = False
        return has_room

    def drop(self) -> None:
        """Forget everything unsent."""
        if self._batch is not None:
            self._buffers.give_back(self._batch)
            self._batch, self._fill = None, 0
        self._backlog = bytearray()
        self.sealed = 0

    def _hold(self, data: bytes | memoryview) -> None:
        self._backlog += data
        self.is_congested = len(self._backlog) > self._worker.limits.backlog_bytes

    def _put_control(self) -> None:
        """Put the control frames that wait between the DATA before and after them."""
        out = self._wire.out
        batch = self._batch
        if batch is not None and len(out) <= len(batch) - self._fill:
            batch[self._fill : self._fill + len(out)] = out
            self._fill += len(out)
        else:
            self._encrypt()
            self._tls.write(bytes(out))
        out.clear()

    def _encrypt(self) -> None:
        if self._batch is not None and self._fill:
            self._tls.write(self._batch[: self._fill])
            self.sealed += self._fill
        self._fill = 0
