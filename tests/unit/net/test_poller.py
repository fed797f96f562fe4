"""Readiness in batches."""

import socket
from collections.abc import Iterator

import pytest

from zproxy.net.poller import READ, Flushable, Pollable, Poller


class Owner:
    """Reads what comes and asks for a flush, once per batch."""

    def __init__(self, poller: Poller, sock: socket.socket) -> None:
        self.poller = poller
        self.sock = sock
        self.got = b""
        self.flushes = 0
        self.aborted = ""

    def on_event(self, events: int) -> None:
        self.got += self.sock.recv(100)
        if self.got == b"boom":
            raise ValueError("boom")
        self.poller.soon(self)

    def flush(self) -> None:
        self.flushes += 1

    def abort(self, error: str) -> None:
        self.aborted = error


@pytest.fixture
def crashes() -> list[tuple[object, str]]:
    return []


@pytest.fixture
def poller(crashes: list[tuple[object, str]]) -> Iterator[Poller]:
    def on_crash(item: Pollable | Flushable, error: Exception) -> None:
        crashes.append((item, str(error)))

    made = Poller(on_crash)
    yield made
    made.close()


def test_a_batch_serves_all_and_flushes_at_its_end(poller: Poller) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    owners = [Owner(poller, near) for near, _ in pairs]
    for owner, (near, far) in zip(owners, pairs, strict=True):
        poller.add(near.fileno(), owner, READ)
        far.send(b"hello")
    poller.run_batch()
    assert [(owner.got, owner.flushes) for owner in owners] == [(b"hello", 1)] * 3
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_a_crash_is_one_connections_only(poller: Poller, crashes: list[tuple[object, str]]) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    owners = [Owner(poller, near) for near, _ in pairs]
    for owner, (near, far), text in zip(owners, pairs, (b"boom", b"fine"), strict=True):
        poller.add(near.fileno(), owner, READ)
        far.send(text)
    poller.run_batch()
    assert crashes == [(owners[0], "boom")]
    assert owners[1].flushes == 1
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_removed_and_paused_descriptors_are_not_served(poller: Poller) -> None:
    near, far = socket.socketpair()
    owner = Owner(poller, near)
    poller.add(near.fileno(), owner, READ)
    far.send(b"x")
    poller.modify(near.fileno(), 0)
    poller.run_batch()
    assert owner.got == b""
    poller.modify(near.fileno(), READ)
    poller.run_batch()
    assert owner.got == b"x"
    poller.remove(near.fileno())
    poller.remove(near.fileno())
    far.send(b"y")
    poller.run_batch()
    assert owner.got == b"x"
    assert len(poller) == 0
    near.close()
    far.close()
