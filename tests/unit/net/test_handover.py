"""Work handed to a worker by other threads: order, results, bounds, and the end."""

import select
import threading
from collections.abc import Iterator

import pytest

from zproxy.errors import WorkerFailed
from zproxy.net.handover import QUEUE, Handover
from zproxy.net.poller import Poller

GONE = WorkerFailed("the worker is gone")


@pytest.fixture
def poller() -> Iterator[Poller]:
    crashes: list[Exception] = []
    made = Poller(lambda _, error: crashes.append(error))
    yield made
    made.close()
    assert crashes == []


@pytest.fixture
def handover(poller: Poller) -> Iterator[Handover]:
    made = Handover(poller)
    yield made
    made.release()


def is_ready(poller: Poller) -> bool:
    return bool(select.select([poller.fileno()], [], [], 0)[0])


def test_work_is_done_in_order_by_the_next_batch(poller: Poller, handover: Handover) -> None:
    done: list[int] = []
    futures = [handover.submit(lambda number=number: done.append(number)) for number in range(3)]  # type: ignore[misc] # a default binds it
    assert (done, is_ready(poller)) == ([], True)
    poller.run_batch()
    assert done == [0, 1, 2]
    assert all(future.done() for future in futures)
    assert not is_ready(poller)


def test_the_result_and_the_error_are_the_caller_s(poller: Poller, handover: Handover) -> None:
    good, bad = handover.submit(lambda: 7), handover.submit(lambda: int("x"))
    poller.run_batch()
    assert good.result(0) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        bad.result(0)


def test_work_handed_over_by_work_is_done_too(poller: Poller, handover: Handover) -> None:
    future = handover.submit(lambda: handover.submit(lambda: "inner"))
    poller.run_batch()
    assert future.result(0).result(0) == "inner"
    poller.run_batch()
    assert not is_ready(poller)


def test_cancelled_work_is_not_begun(poller: Poller, handover: Handover) -> None:
    done: list[int] = []
    assert handover.submit(lambda: done.append(1)).cancel()
    poller.run_batch()
    assert done == []


def test_a_full_queue_refuses_and_loses_nothing(poller: Poller, handover: Handover) -> None:
    futures = [handover.submit(lambda: 1) for _ in range(QUEUE)]
    with pytest.raises(WorkerFailed, match=f"{QUEUE} requests wait"):
        handover.submit(lambda: 1)
    poller.run_batch()
    assert sum(future.result(0) for future in futures) == QUEUE
    assert not handover.submit(lambda: 1).done()


def test_a_closed_one_fails_what_waits_and_what_comes(handover: Handover) -> None:
    waiting, cancelled = handover.submit(lambda: 1), handover.submit(lambda: 1)
    cancelled.cancel()
    handover.close(GONE)
    assert waiting.exception(0) is GONE
    with pytest.raises(WorkerFailed, match="is gone"):
        handover.submit(lambda: 1)


def test_what_ends_a_thread_ends_the_worker_s_and_not_the_caller_s(
    poller: Poller, handover: Handover
) -> None:
    def leave() -> None:
        raise SystemExit(3)

    future = handover.submit(leave)
    with pytest.raises(SystemExit):
        poller.run_batch()
    assert isinstance(future.exception(0), WorkerFailed)


def test_an_event_of_a_former_descriptor_harms_nothing(handover: Handover) -> None:
    handover.on_event(1)
    handover.abort("an error in the poller")


def test_many_threads_hand_over_and_each_piece_is_done_once(poller: Poller, handover: Handover) -> None:
    done: list[tuple[int, int]] = []

    def submit(thread: int) -> None:
        for number in range(200):
            while True:
                try:
                    future = handover.submit(lambda number=number: done.append((thread, number)))  # type: ignore[misc] # a default binds it
                    break
                except WorkerFailed:
                    continue  # the queue is full
            future.result(10)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        poller.run_batch(0.01)
    assert sorted(done) == [(thread, number) for thread in range(4) for number in range(200)]
