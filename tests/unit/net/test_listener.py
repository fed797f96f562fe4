"""Accepting on loopback: bounded turns, and pauses when descriptors run out."""

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.bench import Bench
from tests.support.netns import namespace
from zproxy.net.listener import ACCEPTS_PER_TURN, Listener
from zproxy.net.worker import LISTENER_PAUSE_S


class Door:
    """A listener on the bench and what came through it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.accepted: list[tuple[socket.socket, tuple[str, int]]] = []
        sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        sock.setblocking(False)
        self.listener = Listener(sock, bench.worker.poller, self._accept, bench.worker.paused)

    def dial(self) -> socket.socket:
        return self.bench.keep(socket.create_connection(("127.0.0.1", self.listener.port)))

    def _accept(self, sock: socket.socket, address: tuple[str, int]) -> None:
        assert not sock.getblocking()
        self.accepted.append((self.bench.keep(sock), address))
        sock.setblocking(False)


class FailingSocket:
    """A listening socket whose accept fails with each errno in turn, and then finds nothing."""

    def __init__(self, sock: socket.socket, *codes: int) -> None:
        self._sock, self._codes = sock, list(codes)

    def _accept(self) -> tuple[int, tuple[str, int]]:
        if self._codes:
            code = self._codes.pop(0)
            raise OSError(code, os.strerror(code))
        raise BlockingIOError

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def door(bench: Bench) -> Iterator[Door]:
    made = Door(bench)
    yield made
    made.listener.close()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave this process not one descriptor more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_accepted_socket_goes_to_its_handler_with_the_clients_address(bench: Bench, door: Door) -> None:
    near = door.dial()
    bench.wait(lambda: len(door.accepted) == 1)
    _, address = door.accepted[0]
    assert address == near.getsockname()


def test_a_turn_accepts_a_bounded_number(bench: Bench, door: Door) -> None:
    for _ in range(ACCEPTS_PER_TURN + 1):
        door.dial()
    bench.worker.poller.run_batch()
    assert len(door.accepted) == ACCEPTS_PER_TURN
    bench.wait(lambda: len(door.accepted) == ACCEPTS_PER_TURN + 1)


def test_without_descriptors_it_pauses_instead_of_spinning(bench: Bench, door: Door) -> None:
    near = door.dial()
    with no_descriptors():
        bench.worker.poller.run_batch()
        assert (door.accepted, door.listener.accept_errors) == ([], 1)
        bench.worker.poller.run_batch()
        assert door.listener.accept_errors == 1
    bench.advance(LISTENER_PAUSE_S)
    bench.wait(lambda: len(door.accepted) == 1)
    assert door.accepted[0][1] == near.getsockname()


def test_a_client_that_left_in_the_queue_costs_one_turn_nothing(bench: Bench, door: Door) -> None:
    door.listener.sock = FailingSocket(door.listener.sock, errno.ECONNABORTED, errno.EPROTO)  # type: ignore[assignment] # stands in
    door.listener.on_event(0)
    assert door.listener.accept_errors == 2
    assert len(bench.worker.paused) == 0


def test_an_error_that_it_does_not_know_is_no_pause(bench: Bench, door: Door) -> None:
    door.listener.sock = FailingSocket(door.listener.sock, errno.EBADF)  # type: ignore[assignment] # stands in
    with pytest.raises(OSError, match="Bad file descriptor"):
        door.listener.on_event(0)


def test_a_crash_in_a_handler_does_not_end_the_listener(bench: Bench, door: Door) -> None:
    door.listener.abort("internal error")
    door.dial()
    bench.wait(lambda: len(door.accepted) == 1)


def test_closing_stops_accepting_and_leaves_accepted_ones_alone(bench: Bench, door: Door) -> None:
    near = door.dial()
    bench.wait(lambda: len(door.accepted) == 1)
    door.listener.close()
    door.listener.close()
    near.sendall(b"still here")
    far = door.accepted[0][0]
    far.setblocking(True)
    assert far.recv(10) == b"still here"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", door.listener.port))


def test_a_listener_closed_during_its_pause_stays_closed(bench: Bench, door: Door) -> None:
    door.dial()
    with no_descriptors():
        bench.worker.poller.run_batch()
    assert len(bench.worker.paused) == 1
    door.listener.close()
    assert len(bench.worker.paused) == len(bench.worker.poller) == 0
    bench.advance(1.0)


def test_a_socket_that_was_taken_away_is_told_once_and_watched_no_longer(bench: Bench) -> None:
    door = Door(bench)
    lost: list[bool] = []
    door.listener.on_lost = lambda: lost.append(True)
    watched = len(bench.worker.poller)
    real, door.listener.sock = door.listener.sock, FailingSocket(door.listener.sock, errno.EINVAL)  # type: ignore[assignment] # stands in
    door.listener.on_event(0)
    assert (lost, len(bench.worker.poller)) == ([True], watched - 1)
    door.listener.sock = real
    door.listener.close()


@pytest.mark.root
def test_the_kernel_takes_a_listener_away_from_who_may_not_notice() -> None:
    """SOCK_DESTROY (`ss -K`) is for everybody with CAP_NET_ADMIN in the socket's namespace."""
    bench = Bench()
    with namespace() as pod:
        sock = pod.listen(7001)
        sock.setblocking(False)
        lost: list[bool] = []
        listener = Listener(sock, bench.worker.poller, lambda *_: None, bench.worker.paused)
        listener.on_lost = lambda: lost.append(True)
        assert states(listener) == [True]
        pod.execute("ss", "-K", "-t", "state", "listening", "sport", "=", ":7001")
        bench.wait(lambda: bool(lost))
        assert states(listener) == [False]
        listener.close()
        assert states(listener) == [False], "closed is not listening, either"
    bench.close()


def states(*listeners: Listener) -> list[bool]:
    return [listener.is_listening for listener in listeners]
