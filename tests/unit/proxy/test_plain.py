"""Two sockets and the bytes between them."""

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.plane import Plane
from zproxy.config import Deadlines
from zproxy.model.addr import Endpoint
from zproxy.net.pipes import SIZE, Pipe
from zproxy.net.poller import READ
from zproxy.proxy.plain import SPLICE_AFTER


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


def pair(plane: Plane) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection that is passed through in plain."""
    outside = plane.keep(socket.create_server(("127.0.0.3", 0)))
    plane.routes[Endpoint("127.0.0.3", 80)] = outside.getsockname()[1]
    near = plane.dial("127.0.0.3", 80)
    return near, plane.accept(outside)


@pytest.mark.parametrize("is_up", [True, False], ids=["up", "down"])
def test_bulk_arrives_intact_and_half_close_travels(plane: Plane, is_up: bool) -> None:
    ends = pair(plane)
    source, sink = ends if is_up else reversed(ends)
    data = os.urandom(1 << 20) * 8
    source.setblocking(True)

    def send() -> None:
        source.sendall(data)
        source.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    got = plane.receive(sink, len(data) + 1)
    sender.join()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    sink.sendall(b"thanks")
    sink.close()
    assert plane.receive(source, 100) == b"thanks"
    record = plane.ended(1)[0]
    assert record.error == ""
    assert (record.bytes_sent, record.bytes_recv) == ((len(data), 6) if is_up else (6, len(data)))


@pytest.mark.parametrize("is_near", [True, False], ids=["near", "far"])
def test_a_reset_travels(plane: Plane, is_near: bool) -> None:
    ends = pair(plane)
    breaks, hears = ends if is_near else reversed(ends)
    breaks.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    breaks.close()
    with pytest.raises(ConnectionResetError):
        plane.receive(hears, 1)
    assert plane.ended(1)[0].error
    assert plane.client.relays == set()


def test_who_does_not_read_stops_the_sender(plane: Plane) -> None:
    near, far = pair(plane)
    (relay,) = plane.client.relays
    ends = (relay._near.sock, relay._far.sock)  # type: ignore[attr-defined] # a PlainRelay is more than a Relay
    sockets = plane.narrow(near, *ends, far)
    sent = plane.flood(near)
    assert SPLICE_AFTER < sent < sockets + SIZE, "buffers, and one pipe"
    assert len(plane.receive(far, sent)) == sent


def test_a_destination_that_refuses_is_named(plane: Plane) -> None:
    plane.routes[Endpoint("127.0.0.3", 80)] = 1
    near = plane.dial("127.0.0.3", 80)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert "connect to 127.0.0.3:80 failed: Connection refused" in plane.ended(1)[0].error


def test_who_ended_while_nobody_reads_is_heard_to_the_end(plane: Plane) -> None:
    near, far = pair(plane)
    near.shutdown(socket.SHUT_WR)
    assert plane.receive(far, 1) == b""
    (relay,) = plane.client.relays
    sent = 0

    def push() -> bool:
        nonlocal sent
        sent += far.send(bytes(1 << 16))
        return not relay._far._mask & READ  # type: ignore[attr-defined] # until it is not read any more

    plane.wait(push)
    far.close()
    plane.settle()
    assert len(plane.receive(near, sent + 1)) == sent
    assert plane.ended(1)[0].error == ""


def test_a_connect_that_takes_too_long_is_given_up(plane: Plane) -> None:
    outside = plane.keep(socket.create_server(("127.0.0.3", 0), backlog=0))
    plane.routes[Endpoint("127.0.0.3", 80)] = outside.getsockname()[1]
    for _ in range(4):
        plane.dial("127.0.0.3", 80)
    plane.settle()
    plane.advance(9.9)
    assert plane.lines.ended_connections == []
    plane.advance(0.1)
    assert {c.error for c in plane.lines.ended_connections} == {"connect to 127.0.0.3:80 timed out"}


def test_a_half_closed_connection_is_given_up_when_the_other_half_is_silent(plane: Plane) -> None:
    near, far = pair(plane)
    near.shutdown(socket.SHUT_WR)
    assert plane.receive(far, 1) == b""
    for _ in range(3):
        plane.advance(3599.0)
        far.sendall(b"still alive")
        assert plane.receive(near, 11) == b"still alive"
    plane.advance(3600.0)
    assert plane.lines.ended_connections == []
    plane.advance(3600.0)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.reason, record.error) == (
        "TIMEOUT",
        "the other direction after a half-close took longer than 3600 s",
    )


def test_an_app_that_leaves_during_the_connect_ends_it(plane: Plane) -> None:
    outside = plane.keep(socket.create_server(("127.0.0.3", 0), backlog=0))
    plane.routes[Endpoint("127.0.0.3", 80)] = outside.getsockname()[1]
    apps = [plane.dial("127.0.0.3", 80) for _ in range(4)]
    plane.settle()
    for app in apps:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        app.close()
    assert all("Connection reset by peer" in c.error for c in plane.ended(4))
    assert len(plane.worker.connecting) == 0


def test_plain_connections_leave_nothing_behind(plane: Plane) -> None:
    outside = plane.keep(socket.create_server(("127.0.0.3", 0), backlog=512))
    plane.routes[Endpoint("127.0.0.3", 80)] = outside.getsockname()[1]
    before, watched = len(os.listdir("/proc/self/fd")), len(plane.worker.poller)
    for number in range(1000):
        near = plane.dial("127.0.0.3", 80)
        far = plane.accept(outside)
        if number % 3 == 0:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        near.close()
        far.close()
    plane.ended(1000)
    assert len(os.listdir("/proc/self/fd")) == before
    assert plane.client.relays == set()
    assert len(plane.worker.connecting) == len(plane.worker.half_closed) == 0
    assert len(plane.worker.poller) == watched


def test_a_long_direction_is_spliced_and_a_short_one_copied(plane: Plane) -> None:
    near, far = pair(plane)
    near.sendall(bytes(SPLICE_AFTER // 2))
    assert len(plane.receive(far, SPLICE_AFTER // 2)) == SPLICE_AFTER // 2
    assert plane.worker.pipes._spare == []
    data = os.urandom(SPLICE_AFTER * 4)
    near.sendall(data)
    assert plane.receive(far, len(data)) == data
    assert len(plane.worker.pipes._spare) == 1


def test_a_spliced_direction_survives_the_lack_of_descriptors(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> Pipe:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(plane.worker.pipes, "borrow", none_left)
    near, far = pair(plane)
    data = os.urandom(SPLICE_AFTER * 4)
    near.sendall(data)
    assert plane.receive(far, len(data)) == data


def test_what_a_broken_connection_left_in_a_pipe_reaches_nobody_else(plane: Plane) -> None:
    near, far = pair(plane)
    plane.flood(near)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    plane.ended(1)
    assert all(not pipe.held for pipe in plane.worker.pipes._spare)
    near, far = pair(plane)
    near.sendall(bytes(SPLICE_AFTER * 2))
    assert plane.receive(far, SPLICE_AFTER * 2) == bytes(SPLICE_AFTER * 2)


def test_a_plain_connection_that_is_idle_for_too_long_is_ended_when_that_is_asked_for() -> None:
    with closing(Plane(deadlines=Deadlines(idle_s=5))) as plane:
        near, far = pair(plane)
        near.sendall(b"x")
        assert plane.receive(far, 1) == b"x"
        plane.advance(5)
        assert plane.lines.ended_connections == []
        plane.advance(5)
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1)
        record = plane.ended(1)[0]
        assert (record.reason, record.error) == ("TIMEOUT", "a byte in either direction took longer than 5 s")
