"""Accepting."""

import errno
import socket
from collections.abc import Iterator

import pytest

from zproxy.config import Deadlines, Limits
from zproxy.net.listener import ACCEPTS_PER_TURN, Listener
from zproxy.net.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(Deadlines(), Limits(), lambda item, error: None)
    yield made
    made.close()


def bound() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0), backlog=512)
    sock.setblocking(False)
    return sock


def test_a_turn_accepts_a_bounded_number(worker: Worker) -> None:
    accepted: list[socket.socket] = []
    listener = Listener(bound(), worker.poller, lambda sock, _: accepted.append(sock), worker.paused)
    clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(ACCEPTS_PER_TURN + 1)]
    worker.poller.run_batch()
    assert len(accepted) == ACCEPTS_PER_TURN
    worker.poller.run_batch()
    assert len(accepted) == len(clients)
    assert not any(sock.getblocking() for sock in accepted)
    for sock in (*accepted, *clients):
        sock.close()
    listener.close()
    listener.close()


class Exhausted(socket.socket):
    """A listening socket whose process has no descriptor left."""

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        raise OSError(errno.EMFILE, "Too many open files")


def test_without_descriptors_it_pauses_and_resumes(worker: Worker) -> None:
    real = bound()
    sock = Exhausted(fileno=real.detach())
    listener = Listener(sock, worker.poller, lambda *_: None, worker.paused)
    client = socket.create_connection(("127.0.0.1", listener.port))
    worker.poller.run_batch()
    worker.poller.run_batch()
    assert listener.accept_errors == 1, "it did not spin"
    assert len(worker.paused) == 1
    for waiter in worker.paused.expired(worker.poller.now + 1):
        waiter.on_deadline(worker.paused)
    worker.poller.run_batch()
    assert listener.accept_errors == 2
    client.close()
    listener.close()
