"""The sending half, against a socket that does not drain."""

import socket
from collections.abc import Callable
from typing import Any

from zproxy.config import Deadlines, Limits
from zproxy.hbone.outbox import Outbox
from zproxy.net.poller import READ
from zproxy.net.worker import Worker

FRAME = 16 << 10
"""The smallest SETTINGS_MAX_FRAME_SIZE that a peer can have."""


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
        self.max_frame = 1 << 20
        self.open = 1 << 20
        self.sizes: list[int] = []

    def window(self, stream: Any) -> int:
        return self.open

    def fill(self, buffer: memoryview, at: int, stream: Any, receive: Callable[[memoryview], int]) -> int:
        moved = receive(buffer[at + 9 : at + 9 + min(self.max_frame, self.open)])
        if moved:
            self.put_data_header(buffer, at, stream, moved)
        return moved

    def put_data_header(self, buffer: memoryview, at: int, stream: Any, size: int) -> None:
        buffer[at : at + 9] = b"-" * 9
        self.open -= size
        self.sizes.append(size)


class NarrowSocket:
    """Takes `room` bytes, then none until there is room again."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.room = 0
        self.taken = b""

    def send(self, data: Any) -> int:
        if not self.room:
            raise BlockingIOError
        taken = bytes(data)[: self.room]
        self.room -= len(taken)
        self.taken += taken
        return len(taken)

    def fileno(self) -> int:
        return self._sock.fileno()


class Bench:
    def __init__(self, backlog_bytes: int = 1 << 20, *, is_narrow: bool = False) -> None:
        self.worker = Worker(Deadlines(), Limits(backlog_bytes=backlog_bytes), lambda item, error: None)
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.app, self.source = socket.socketpair()
        self.source.setblocking(False)
        self.worker.poller.add(self.near.fileno(), self, READ)  # type: ignore[arg-type] # never called
        self.tls, self.wire = FakeTls(), FakeWire()
        tls: Any = self.tls
        wire: Any = self.wire
        self.narrow = NarrowSocket(self.near)
        narrow: Any = self.narrow
        self.outbox = Outbox(self.worker, narrow if is_narrow else self.near, tls, wire)

    def pull(self, data: bytes) -> int:
        self.app.sendall(data)
        return self.outbox.pull(self.source, None)  # type: ignore[arg-type] # the fake needs none

    def put(self, data: bytes) -> None:
        """Send one frame as a tunnel does."""
        self.pull(data)
        self.outbox.seal()
        self.outbox.send()

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
    bench.outbox.send()
    assert len(bench.worker.buffers._spare) == 1
    assert not bench.outbox.has_backlog
    bench.close()


def small_frames(bench: Bench, window: int = 1 << 20) -> None:
    """Be a peer like Envoy, and an app that can write much at once."""
    bench.wire.max_frame, bench.wire.open = FRAME, window
    bench.app.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)


def test_small_frames_are_filled_many_at_a_time() -> None:
    bench = Bench()
    small_frames(bench)
    data = bytes(range(256)) * 320
    bench.app.sendall(data)
    assert bench.outbox.pull(bench.source, None) == len(data)  # type: ignore[arg-type] # as above
    assert bench.wire.sizes == [FRAME] * 5
    bench.outbox.seal()
    sent = bytes(bench.tls.pending)
    assert b"".join(sent[at + 9 : at + 9 + FRAME] for at in range(0, len(sent), 9 + FRAME)) == data
    bench.close()


def test_small_frames_stay_within_the_window() -> None:
    bench = Bench()
    small_frames(bench, window=FRAME * 2 + 500)
    bench.app.sendall(bytes(FRAME * 4))
    assert bench.outbox.pull(bench.source, None) == FRAME * 2 + 500  # type: ignore[arg-type] # as above
    assert bench.wire.sizes == [FRAME, FRAME, 500]
    bench.close()


def test_one_full_small_frame_and_nothing_behind_it_is_no_error() -> None:
    bench = Bench()
    small_frames(bench)
    bench.app.sendall(bytes(FRAME))
    assert bench.outbox.pull(bench.source, None) == FRAME  # type: ignore[arg-type] # as above
    bench.app.sendall(bytes(FRAME))
    bench.app.close()
    assert bench.outbox.pull(bench.source, None) == FRAME  # type: ignore[arg-type] # as above
    assert bench.outbox.pull(bench.source, None) == 0  # type: ignore[arg-type] # as above
    bench.close()


def has_backlog(bench: Bench) -> bool:
    return bench.outbox.has_backlog


def is_congested(bench: Bench) -> bool:
    return bench.outbox.is_congested


def test_what_the_socket_does_not_take_is_kept_in_order() -> None:
    bench = Bench(is_narrow=True)
    bench.narrow.room = 12
    bench.put(b"one")
    assert has_backlog(bench) is False
    bench.narrow.room = 5
    bench.put(b"two")
    bench.narrow.room = 100  # the poller has not said so yet: what came first goes first
    bench.put(b"three")
    assert bench.narrow.taken == b"---------one-----"
    bench.narrow.room = 10
    bench.outbox.send_backlog()
    assert has_backlog(bench) is True
    bench.narrow.room = 100
    bench.outbox.send_backlog()
    assert bench.narrow.taken == b"---------one---------two---------three"
    assert has_backlog(bench) is False
    assert bench.outbox.bytes_sent == len(bench.narrow.taken)
    bench.close()


def test_apps_are_read_again_when_half_of_the_allowed_backlog_is_gone() -> None:
    bench = Bench(backlog_bytes=1000, is_narrow=True)
    bench.put(bytes(991))
    assert is_congested(bench) is False
    bench.wire.out += b"x"
    bench.outbox.seal()
    bench.outbox.send()
    assert is_congested(bench) is True
    bench.narrow.room = 500
    assert bench.outbox.send_backlog() is False
    bench.narrow.room = 1
    assert bench.outbox.send_backlog() is True
    assert bench.outbox.send_backlog() is False, "a socket that takes nothing makes no room"
    bench.close()


def test_dropping_forgets_what_was_not_sent_and_gives_the_batch_back() -> None:
    bench = Bench(is_narrow=True)
    bench.put(b"never")
    bench.pull(b"leaves")
    bench.outbox.drop()
    assert has_backlog(bench) is False
    assert len(bench.worker.buffers._spare) == 1
    bench.close()
