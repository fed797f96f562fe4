"""Waits that end."""

from zproxy.net.deadline import Deadline


class Waiting:
    def __init__(self) -> None:
        self.gave_up: list[str] = []

    def on_deadline(self, deadline: Deadline) -> None:
        self.gave_up.append(str(deadline))


def test_oldest_waits_expire_first_and_only_once() -> None:
    deadline = Deadline("TLS handshake", 10)
    first, second = Waiting(), Waiting()
    deadline.start(first, now=0)
    deadline.start(second, now=5)
    assert list(deadline.expired(now=9.9)) == []
    assert list(deadline.expired(now=10)) == [first]
    assert list(deadline.expired(now=100)) == [second]
    assert list(deadline.expired(now=1000)) == []


def test_a_wait_that_is_done_does_not_expire() -> None:
    deadline = Deadline("x", 1)
    waiter = Waiting()
    deadline.start(waiter, now=0)
    deadline.done(waiter)
    deadline.done(waiter)
    assert list(deadline.expired(now=10)) == []
    assert len(deadline) == 0


def test_beginning_anew_counts_from_the_new_start() -> None:
    deadline = Deadline("x", 1)
    early, late = Waiting(), Waiting()
    deadline.start(early, now=0)
    deadline.start(late, now=0.5)
    deadline.start(early, now=0.9)
    assert list(deadline.expired(now=1.6)) == [late]
    assert list(deadline.expired(now=2)) == [early]


def test_it_reads_as_what_was_waited_for() -> None:
    assert str(Deadline("TCP connect", 10)) == "TCP connect took longer than 10 s"
