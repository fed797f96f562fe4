"""Host names, looked up by threads and told on the worker."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.bench import Bench
from zproxy.net.names import FAILED_S, FOUND_S, LOOKUPS, NAMES, Answer, Names, look_up


class Waiter:
    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def on_name(self, answer: Answer) -> None:
        self.answers.append(answer)


class Resolver:
    """Answers when it may, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may = threading.Event()
        self.may.set()
        self.answer = Answer(("10.0.0.1",), "")

    def __call__(self, hostname: str) -> Answer:
        self.asked.append(hostname)
        assert self.may.wait(10)
        return self.answer


@pytest.fixture
def bench() -> Iterator[Bench]:
    with closing(Bench()) as made:
        yield made


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    made = Resolver()
    yield made
    made.may.set()


@pytest.fixture
def names(bench: Bench, resolver: Resolver) -> Iterator[Names]:
    with closing(Names(bench.worker.poller, resolver)) as made:
        yield made


def ask(bench: Bench, names: Names, hostname: str = "db.test") -> Waiter:
    waiter = Waiter()
    names.find(hostname, waiter)
    bench.wait(lambda: bool(waiter.answers))
    return waiter


def test_an_answer_is_told_and_used_again_for_a_while(bench: Bench, names: Names, resolver: Resolver) -> None:
    assert ask(bench, names).answers == [resolver.answer]
    ask(bench, names)
    assert resolver.asked == ["db.test"]
    bench.advance(FOUND_S)
    ask(bench, names)
    assert len(resolver.asked) == 2


def test_a_failure_is_remembered_for_a_shorter_while(bench: Bench, names: Names, resolver: Resolver) -> None:
    resolver.answer = Answer((), "no such name")
    assert ask(bench, names).answers[0].error == "no such name"
    bench.advance(FAILED_S)
    ask(bench, names)
    assert len(resolver.asked) == 2


def test_who_waits_for_one_name_shares_one_look_up(bench: Bench, names: Names, resolver: Resolver) -> None:
    resolver.may.clear()
    waiters = [Waiter() for _ in range(3)]
    for waiter in waiters:
        names.find("db.test", waiter)
    names.give_up("db.test", waiters[1])
    names.give_up("db.test", waiters[1])
    resolver.may.set()
    bench.wait(lambda: bool(waiters[0].answers and waiters[2].answers))
    assert (len(resolver.asked), waiters[1].answers) == (1, [])


def test_look_ups_at_a_time_are_bounded(bench: Bench, names: Names, resolver: Resolver) -> None:
    resolver.may.clear()
    for number in range(LOOKUPS):
        names.find(f"n{number}", Waiter())
    late = Waiter()
    names.find("late", late)
    assert "already" in late.answers[0].error


def test_answers_are_bounded(bench: Bench, names: Names) -> None:
    for number in range(NAMES + 1):
        ask(bench, names, f"n{number}")
    assert len(names._known) == 1


def test_an_answer_after_the_end_finds_nobody(bench: Bench, names: Names, resolver: Resolver) -> None:
    resolver.may.clear()
    waiter = Waiter()
    names.find("db.test", waiter)
    names.close()
    resolver.may.set()
    bench.settle()
    assert waiter.answers == []


def test_without_a_thread_there_is_an_error_and_later_another_try(
    bench: Bench, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        assert ask(bench, names).answers == [Answer((), "can't start new thread")]
    assert ask(bench, names).answers[0].ips


def test_an_address_is_a_name_of_itself() -> None:
    assert look_up("127.0.0.9") == Answer(("127.0.0.9",), "")
    assert look_up("::ffff:127.0.0.9").ips == ("127.0.0.9",)


@pytest.mark.parametrize("hostname", ["", "x" * 300, "no such host"])
def test_what_is_no_name_has_an_error(hostname: str) -> None:
    answer = look_up(hostname)
    assert answer.ips == () or hostname == ""
    assert answer.error or hostname == ""
