"""The sending half, against a socket that does not drain."""

import socket
from typing import Any

from zproxy.config import Deadlines, Limits
from zproxy.hbone.outbox import Outbox
from zproxy.net.poller import READ
from zproxy.net.worker import Worker


class FakeTls:
    """Encrypts by doing nothing."""

    def __init__(self) -> None:
        self.pending = bytearray()
        self.writes = 0

    def write(self, data: Any) -> None:
        self.writes += 1
        self.pending += data

    def output(self) -> bytes:
        data, self.pending = bytes(self.pending), bytearray()
        return data


class FakeWire:
    """Frames have a header of nine dashes."""

    def __init__(self) -> None:
        self.out = bytearray()

    def put_data_header(self, buffer: memoryview, at: int, stream: Any, size: int) -> None:
        buffer[at : at + 9] = b"-" * 9


class Bench:
    def __init__(self, backlog_bytes: int = 1 << 20) -> None:
        self.worker = Worker(Deadlines(), Limits(backlog_bytes=backlog_bytes), lambda item, error: None)
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.app, self.source = socket.socketpair()
        self.source.setblocking(False)
        self.worker.poller.add(self.near.fileno(), self, READ)  # type: ignore[arg-type] # never called
        self.tls, self.wire = FakeTls(), FakeWire()
        tls: Any = self.tls
        wire: Any = self.wire
        self.outbox = Outbox(self.worker, self.near, tls, wire)

    def pull(self, data: bytes) -> int:
        self.app.sendall(data)
        return self.outbox.pull(self.source, None, 1 << 20)  # type: ignore[arg-type] # the fake needs none

    def close(self) -> None:
        for sock in (self.near, self.far, self.app, self.source):
            sock.close()
        self.worker.close()


def test_frames_and_control_leave_in_order_in_one_write() -> None:
    bench = Bench()
    bench.wire.out += b"HEADERS"
    assert bench.pull(b"one") == 3
    bench.wire.out += b"RST"
    assert bench.pull(b"two") == 3
    bench.wire.out += b"END"
    writes = bench.tls.writes
    bench.outbox.seal()
    bench.outbox.send()
    assert bench.far.recv(1000) == b"HEADERS---------oneRST---------twoEND"
    assert bench.tls.writes == writes + 1
    bench.close()


def test_an_idle_outbox_holds_no_buffer() -> None:
    bench = Bench()
    bench.pull(b"x")
    bench.outbox.seal()
    assert bench.worker.buffers.borrow() is not None
    bench.outbox.send()
    assert not bench.outbox.has_backlog
    bench.close()
