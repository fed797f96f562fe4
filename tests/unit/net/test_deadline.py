"""Waits of one length, oldest first."""

import pytest

from zproxy.net.deadline import Deadline


class Patient:
    """A waiter with a name."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def abort(self, error: str) -> None:
        raise AssertionError(error)

    def on_deadline(self, deadline: Deadline) -> None:
        raise AssertionError("the sweep calls it, not the deadline")

    def __repr__(self) -> str:
        return self.name


@pytest.fixture
def deadline() -> Deadline:
    return Deadline("TLS handshake", 10.0)


def test_a_wait_expires_when_it_lasted_its_length_and_not_before(deadline: Deadline) -> None:
    waiter = Patient()
    deadline.start(waiter, 100.0)
    assert list(deadline.expired(109.9)) == []
    assert list(deadline.expired(110.0)) == [waiter]


def test_an_expired_wait_is_over(deadline: Deadline) -> None:
    deadline.start(Patient(), 100.0)
    assert len(list(deadline.expired(200.0))) == 1
    assert len(deadline) == 0
    assert list(deadline.expired(300.0)) == []


def test_waits_expire_oldest_first_and_younger_ones_go_on(deadline: Deadline) -> None:
    first, second, third = Patient("1"), Patient("2"), Patient("3")
    for at, waiter in enumerate((first, second, third)):
        deadline.start(waiter, 100.0 + at)
    assert list(deadline.expired(111.5)) == [first, second]
    assert len(deadline) == 1


def test_a_wait_begun_anew_counts_from_then_and_goes_to_the_end(deadline: Deadline) -> None:
    early, late = Patient("early"), Patient("late")
    deadline.start(early, 100.0)
    deadline.start(late, 101.0)
    deadline.start(early, 105.0)
    assert list(deadline.expired(114.0)) == [late]
    assert list(deadline.expired(115.0)) == [early]


def test_a_wait_that_is_done_never_expires(deadline: Deadline) -> None:
    waiter = Patient()
    deadline.start(waiter, 100.0)
    deadline.done(waiter)
    assert list(deadline.expired(1000.0)) == []


def test_ending_a_wait_that_never_began_is_harmless(deadline: Deadline) -> None:
    deadline.done(Patient())
    assert len(deadline) == 0


def test_a_waiter_that_starts_again_while_expiring_does_not_expire_twice(deadline: Deadline) -> None:
    waiter = Patient()
    deadline.start(waiter, 100.0)
    for expired in deadline.expired(110.0):
        deadline.start(expired, 110.0)
    assert len(deadline) == 1


def test_its_text_says_what_was_waited_for_and_how_long(deadline: Deadline) -> None:
    assert str(deadline) == "TLS handshake took longer than 10 s"
    assert str(Deadline("a descriptor", 0.1)) == "a descriptor took longer than 0.1 s"
