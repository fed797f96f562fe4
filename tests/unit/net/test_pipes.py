"""Bytes from socket to socket through a pipe."""

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from zproxy.net.pipes import SIZE, SPARE, Pipes


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket, socket.socket, socket.socket]]:
    """Return two connections: far end and near end of the source, near end and far end of the sink."""
    made: list[socket.socket] = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            made.append(socket.create_connection(server.getsockname()))
            made.append(server.accept()[0])
            made[-1].setblocking(False)
    yield made[0], made[1], made[3], made[2]
    for sock in made:
        sock.close()


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_a_socket_holds_goes_to_another(
    pipes: Pipes, ends: tuple[socket.socket, socket.socket, socket.socket, socket.socket]
) -> None:
    app, source, sink, peer = ends
    pipe = pipes.borrow()
    with pytest.raises(BlockingIOError):
        pipe.fill(source.fileno())
    app.sendall(b"hello")
    assert (pipe.fill(source.fileno()), pipe.held) == (5, 5)
    assert (pipe.drain(sink.fileno()), pipe.held) == (5, 0)
    assert peer.recv(10) == b"hello"
    app.shutdown(socket.SHUT_WR)
    assert pipe.fill(source.fileno()) == 0
    pipes.give_back(pipe)


def test_a_pipe_is_large_and_never_blocks(pipes: Pipes) -> None:
    pipe = pipes.borrow()
    for fd in (pipe._source, pipe._sink):
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
        assert not os.get_inheritable(fd)
    assert fcntl.fcntl(pipe._sink, fcntl.F_GETPIPE_SZ) == SIZE
    pipes.give_back(pipe)


def test_an_empty_pipe_is_kept_for_the_next(pipes: Pipes) -> None:
    pipe = pipes.borrow()
    pipes.give_back(pipe)
    assert pipes.borrow() is pipe
    pipes.give_back(pipe)


def test_a_pipe_that_holds_something_is_closed(
    pipes: Pipes, ends: tuple[socket.socket, socket.socket, socket.socket, socket.socket]
) -> None:
    app, source, _, _ = ends
    before = descriptors()
    pipe = pipes.borrow()
    app.sendall(b"secret of another connection")
    pipe.fill(source.fileno())
    pipes.give_back(pipe)
    assert descriptors() == before


def test_no_more_than_a_few_are_kept(pipes: Pipes) -> None:
    before = descriptors()
    for pipe in [pipes.borrow() for _ in range(SPARE + 5)]:
        pipes.give_back(pipe)
    assert descriptors() == before + 2 * SPARE
    pipes.close()
    assert descriptors() == before
