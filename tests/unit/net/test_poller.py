"""The epoll set: whom an event reaches, and when what became dirty is flushed."""

import select
import socket
from collections.abc import Iterator

import pytest

from zproxy.net.poller import BATCH, READ, WRITE, Flushable, Pollable, Poller


class Owner:
    """Notes its events; `work` is what it does with one."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.aborted = ""

    def on_event(self, events: int) -> None:
        self.events.append(events)

    def abort(self, error: str) -> None:
        self.aborted = error


class Broken(Owner):
    """Raises whatever happens."""

    def on_event(self, events: int) -> None:
        raise ValueError("a bug")

    def flush(self) -> None:
        raise ValueError("a bug")


class Dirty(Owner):
    """Notes the order of flushes in `log`."""

    def __init__(self, log: list[str], name: str, poller: Poller | None = None) -> None:
        super().__init__()
        self._log, self._name, self._poller = log, name, poller

    def flush(self) -> None:
        self._log.append(self._name)
        if self._poller is not None:
            self._poller.soon(Dirty(self._log, f"{self._name}'s"))


Crash = tuple[Pollable | Flushable, Exception]


@pytest.fixture
def crashes() -> list[Crash]:
    return []


@pytest.fixture
def poller(crashes: list[Crash]) -> Iterator[Poller]:
    made = Poller(lambda item, error: crashes.append((item, error)))
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two ends of a TCP connection, the first non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    near.setblocking(False)
    with near, far:
        yield near, far


def hangs_up(poller: Poller) -> bool:
    return bool(select.select([poller.fileno()], [], [], 0)[0])


def test_an_event_reaches_the_owner_of_its_descriptor(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    owner = Owner()
    poller.add(near.fileno(), owner, READ)
    poller.run_batch()
    assert owner.events == []
    far.sendall(b"x")
    poller.run_batch()
    assert owner.events == [READ]


def test_the_set_is_readable_exactly_while_events_wait(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    poller.add(near.fileno(), Owner(), READ)
    assert not hangs_up(poller)
    far.sendall(b"x")
    assert hangs_up(poller)
    near.recv(1)
    assert not hangs_up(poller)


def test_what_is_watched_can_change(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    owner = Owner()
    poller.add(near.fileno(), owner, READ)
    far.sendall(b"x")
    poller.modify(near.fileno(), WRITE)
    poller.run_batch()
    poller.modify(near.fileno(), READ | WRITE)
    poller.run_batch()
    assert owner.events == [WRITE, READ | WRITE]


def test_a_removed_descriptor_has_no_owner_any_more(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    owner = Owner()
    poller.add(near.fileno(), owner, READ)
    far.sendall(b"x")
    poller.remove(near.fileno())
    poller.remove(near.fileno())
    poller.run_batch()
    assert (owner.events, len(poller)) == ([], 0)


def test_an_owner_removed_by_another_in_the_same_batch_hears_nothing(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair

    class Remover(Owner):
        def on_event(self, events: int) -> None:
            super().on_event(events)
            for sock in pair:
                poller.remove(sock.fileno())

    first, second = Remover(), Remover()
    poller.add(near.fileno(), first, WRITE)
    poller.add(far.fileno(), second, WRITE)
    poller.run_batch()
    assert len(first.events) + len(second.events) == 1


def test_a_break_is_reported_although_nothing_is_watched(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    owner = Owner()
    poller.add(near.fileno(), owner, 0)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    poller.run_batch()
    assert len(owner.events) == 1
    assert owner.events[0] & select.EPOLLERR


@pytest.mark.parametrize("is_modified", [False, True])
def test_a_socket_that_ended_both_ways_does_not_spin_while_unwatched(
    poller: Poller, pair: tuple[socket.socket, socket.socket], is_modified: bool
) -> None:
    near, far = pair
    owner = Owner()
    near.shutdown(socket.SHUT_WR)
    far.close()
    poller.add(near.fileno(), owner, READ if is_modified else 0)
    if is_modified:
        poller.modify(near.fileno(), 0)
    for _ in range(3):
        poller.run_batch()
    assert owner.events == [select.EPOLLHUP]
    poller.modify(near.fileno(), READ)
    poller.run_batch()
    assert owner.events == [select.EPOLLHUP, select.EPOLLHUP | READ]


def test_dirty_items_are_flushed_once_in_order_after_the_batch(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, _ = pair
    log: list[str] = []

    class Busy(Owner):
        def on_event(self, events: int) -> None:
            poller.soon(Dirty(log, "first"))
            poller.soon(Dirty(log, "second"))
            log.append("event")

    poller.add(near.fileno(), Busy(), WRITE)
    poller.run_batch()
    assert log == ["event", "first", "second"]
    poller.flush()
    assert len(log) == 3


def test_what_a_flush_makes_dirty_is_flushed_too(poller: Poller) -> None:
    log: list[str] = []
    poller.soon(Dirty(log, "parent", poller))
    poller.flush()
    assert log == ["parent", "parent's"]


def test_a_handler_that_raises_is_reported_and_the_others_are_served(
    poller: Poller, pair: tuple[socket.socket, socket.socket], crashes: list[Crash]
) -> None:
    near, far = pair
    broken, sound = Broken(), Owner()
    poller.add(near.fileno(), broken, WRITE)
    poller.add(far.fileno(), sound, WRITE)
    poller.run_batch()
    assert [(item, str(error)) for item, error in crashes] == [(broken, "a bug")]
    assert sound.events == [WRITE]


def test_a_flush_that_raises_is_reported_and_the_others_are_flushed(
    poller: Poller, crashes: list[Crash]
) -> None:
    log: list[str] = []
    broken = Broken()
    poller.soon(broken)
    poller.soon(Dirty(log, "sound"))
    poller.flush()
    assert [item for item, _ in crashes] == [broken]
    assert log == ["sound"]


def test_a_batch_is_bounded_and_the_rest_comes_next(poller: Poller) -> None:
    owner = Owner()
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(BATCH + 5)]
    try:
        for sock in sockets:
            poller.add(sock.fileno(), owner, WRITE)
        poller.run_batch()
        assert len(owner.events) == BATCH
    finally:
        for sock in sockets:
            poller.remove(sock.fileno())
            sock.close()


def test_a_batch_has_one_time(poller: Poller) -> None:
    poller.clock = lambda: 42.0
    poller.run_batch()
    assert poller.now == 42.0


def test_a_forgotten_descriptor_leaves_the_set_when_it_is_closed(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    owner = Owner()
    poller.add(near.fileno(), owner, READ)
    far.sendall(b"x")
    poller.forget(near.fileno())
    assert len(poller) == 0
    assert hangs_up(poller)
    near.close()
    assert not hangs_up(poller)
    assert owner.events == []
