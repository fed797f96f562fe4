"""What makes a worker go: its answers, its deadlines, its end, and that it is loud when it is lost."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from zproxy.config import Deadlines, Limits
from zproxy.errors import WorkerFailed
from zproxy.net import drivers
from zproxy.net.drivers import Driver, ThreadDriver
from zproxy.net.poller import READ
from zproxy.net.worker import Worker

WAIT_S = 10.0
ROOT = Path(__file__).parents[3]


class Stand:
    """A driver, and whatever it reported."""

    def __init__(self, busy_poll_s: float = 0.0) -> None:
        self.crashes: list[Exception] = []
        self.failures: list[WorkerFailed] = []
        self.on_failure: Callable[[], object] = lambda: None
        self.worker = Worker(Deadlines(), Limits(), lambda _, error: self.crashes.append(error))
        self.driver = ThreadDriver(3, self.worker, self._failed, busy_poll_s)

    def _failed(self, failure: WorkerFailed) -> None:
        self.failures.append(failure)
        self.on_failure()

    def run(self, visit: Callable[["Stand"], Awaitable[Any]]) -> Any:
        """Start the driver, visit, and take it down; the visit may have stopped it."""

        async def main() -> Any:
            self.driver.start()
            try:
                return await asyncio.wait_for(visit(self), WAIT_S)
            finally:
                await self.driver.stop()
                self.driver.close()

        return asyncio.run(main())


@pytest.fixture
def stand() -> Stand:
    return Stand()


class Reader:
    """Notes, in its thread, what a descriptor delivers; then lets the loop know."""

    def __init__(self, fd: int, tell: Callable[[], object]) -> None:
        self.got = b""
        self.thread = 0
        self._fd = fd
        self._tell = tell

    def on_event(self, events: int) -> None:
        self.got += os.read(self._fd, 100)
        self.thread = threading.get_ident()
        self._tell()

    def abort(self, error: str) -> None:
        raise NotImplementedError


class Dirty:
    """Notes that it was flushed."""

    def __init__(self) -> None:
        self.is_flushed = threading.Event()

    def flush(self) -> None:
        self.is_flushed.set()

    def abort(self, error: str) -> None:
        raise NotImplementedError


async def for_ever(driver: Driver) -> None:
    """Call until the driver refuses."""
    while True:
        await driver.call(lambda: None)


def test_a_call_returns_what_the_work_returned_or_raises_its_error(stand: Stand) -> None:
    async def visit(_: Stand) -> int:
        with pytest.raises(ValueError, match="invalid literal"):
            await stand.driver.call(lambda: int("x"))
        return await stand.driver.call(lambda: 7)

    assert (stand.driver.number, stand.run(visit)) == (3, 7)


def test_what_a_call_made_dirty_is_flushed(stand: Stand) -> None:
    async def visit(_: Stand) -> bool:
        dirty = Dirty()
        await stand.driver.call(lambda: stand.worker.poller.soon(dirty))
        return await asyncio.to_thread(dirty.is_flushed.wait, WAIT_S)

    assert stand.run(visit)


def test_events_are_served(stand: Stand) -> None:
    async def visit(_: Stand) -> Reader:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        near, far = os.pipe()
        reader = Reader(near, lambda: loop.call_soon_threadsafe(heard.set))
        await stand.driver.call(lambda: stand.worker.poller.add(near, reader, READ))
        os.write(far, b"x")
        await heard.wait()
        await stand.driver.call(lambda: stand.worker.poller.remove(near))
        os.close(near)
        os.close(far)
        return reader

    reader = stand.run(visit)
    assert reader.got == b"x"
    assert reader.thread not in {0, threading.get_ident()}


def test_deadlines_expire_although_nothing_happens(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "SWEEP_S", 0.01)

    async def visit(_: Stand) -> None:
        loop, ticked = asyncio.get_running_loop(), asyncio.Event()

        class Clock:
            def on_tick(self, now: float) -> None:
                loop.call_soon_threadsafe(ticked.set)

            def abort(self, error: str) -> None:
                raise AssertionError(error)

        await stand.driver.call(lambda: stand.worker.ticking.add(Clock()))
        await ticked.wait()

    stand.run(visit)


def test_a_sweep_that_raises_is_logged_and_the_next_one_comes(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(drivers, "SWEEP_S", 0.01)
    first, again = threading.Event(), threading.Event()

    def broken_sweep() -> None:
        (again if first.is_set() else first).set()
        raise ValueError("a bug")

    monkeypatch.setattr(stand.worker, "sweep", broken_sweep)  # before the start, which keeps it

    async def visit(_: Stand) -> None:
        assert await asyncio.to_thread(again.wait, WAIT_S)

    stand.run(visit)
    assert "ValueError: a bug" in caplog.text
    assert stand.failures == []


def test_after_the_stop_what_is_left_is_closed_by_the_caller(stand: Stand) -> None:
    async def visit(_: Stand) -> int:
        await stand.driver.stop()
        await stand.driver.stop()
        return await stand.driver.call(threading.get_ident)

    assert stand.run(visit) == threading.get_ident()
    assert stand.failures == []


def test_what_was_handed_over_before_the_stop_is_done(stand: Stand) -> None:
    async def visit(_: Stand) -> list[int]:
        calls = [asyncio.ensure_future(stand.driver.call(lambda: 1)) for _ in range(50)]
        await asyncio.sleep(0)
        await stand.driver.stop()
        return list(await asyncio.gather(*calls))

    assert stand.run(visit) == [1] * 50


def test_one_that_never_started_can_be_stopped_and_closed(stand: Stand) -> None:
    asyncio.run(stand.driver.stop())
    stand.driver.close()


def test_work_runs_in_a_thread_that_is_named_after_the_worker(stand: Stand) -> None:
    def look() -> tuple[str, str]:
        return threading.current_thread().name, Path("/proc/thread-self/comm").read_text()

    assert stand.run(lambda _: stand.driver.call(look)) == ("zproxy-w3", "zproxy-w3\n")


def test_a_thread_that_dies_says_so_and_fails_every_call(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    async def visit(_: Stand) -> None:
        with pytest.raises(WorkerFailed, match="ended by SystemExit"):
            await stand.driver.call(sys.exit)
        with pytest.raises(WorkerFailed, match="data-plane worker 3 died: SystemExit"):
            await for_ever(stand.driver)

    stand.run(visit)
    assert [str(failure) for failure in stand.failures] == ["data-plane worker 3 died: SystemExit: "]
    assert "data-plane worker 3 died" in caplog.text
    assert "Traceback" in caplog.text


def test_a_handler_that_raises_does_not_end_the_thread(stand: Stand) -> None:
    async def visit(_: Stand) -> int:
        near, far = os.pipe()
        os.close(far)

        class Broken(Reader):
            def on_event(self, events: int) -> None:
                stand.worker.poller.remove(near)
                raise ValueError("a bug")

        await stand.driver.call(lambda: stand.worker.poller.add(near, Broken(near, lambda: 0), READ))
        while not stand.crashes:
            await stand.driver.call(lambda: None)
        os.close(near)
        return await stand.driver.call(lambda: 7)

    assert stand.run(visit) == 7
    assert [str(error) for error in stand.crashes] == ["a bug"]


def test_a_poller_that_breaks_ends_the_thread_loudly(stand: Stand) -> None:
    async def visit(_: Stand) -> None:
        await stand.driver.call(stand.worker.poller.close)
        with pytest.raises(WorkerFailed, match="died: ValueError: I/O operation on closed epoll object"):
            await for_ever(stand.driver)

    stand.run(visit)
    assert len(stand.failures) == 1


def test_a_thread_that_hangs_is_reported_and_the_caller_goes_on(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "ANSWER_S", 0.05)
    release = threading.Event()

    async def visit(_: Stand) -> None:
        with pytest.raises(WorkerFailed, match=r"data-plane worker 3 has not answered for 0\.05 s"):
            await stand.driver.call(lambda: release.wait(WAIT_S))
        monkeypatch.setattr(drivers, "STOP_S", 0.05)
        with pytest.raises(WorkerFailed, match="data-plane worker 3 does not end"):
            await stand.driver.stop()
        monkeypatch.setattr(drivers, "STOP_S", WAIT_S)
        release.set()

    stand.run(visit)
    assert len(stand.failures) == 1


def test_a_thread_that_hangs_is_found_although_nobody_asks_it_anything(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "WATCH_S", 0.01)
    monkeypatch.setattr(drivers, "ANSWER_S", 0.05)
    release, lost = threading.Event(), threading.Event()
    stand.on_failure = lost.set

    async def visit(_: Stand) -> bool:
        stand.worker.poller.clock = lambda: release.wait(WAIT_S) and time.monotonic()
        found = await asyncio.to_thread(lost.wait, WAIT_S)
        release.set()
        return found

    assert stand.run(visit)
    assert [str(failure) for failure in stand.failures] == ["data-plane worker 3 has not answered for 0.05 s"]


def test_a_thread_that_lives_is_watched_without_a_word(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "WATCH_S", 0.001)

    async def visit(_: Stand) -> None:
        for _turn in range(100):
            await stand.driver.call(lambda: None)
            await asyncio.sleep(0)

    stand.run(visit)
    assert stand.failures == []


def test_a_timeout_of_the_work_s_own_is_the_caller_s(stand: Stand) -> None:
    def give_up() -> None:
        raise TimeoutError("the work's own")

    async def visit(_: Stand) -> None:
        with pytest.raises(TimeoutError, match="the work's own"):
            await stand.driver.call(give_up)

    stand.run(visit)
    assert stand.failures == []


def test_the_name_of_a_process_is_that_of_its_first_thread() -> None:
    code = "from zproxy.net.drivers import name_thread; name_thread('zproxy-w63'); "
    code += "print(open('/proc/self/comm').read(), end='')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "zproxy-w63\n"


def test_after_an_event_a_busy_poller_looks_again_before_it_sleeps_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand = Stand(busy_poll_s=0.2)
    waits: list[float] = []
    run_batch = stand.worker.poller.run_batch

    def noted(wait_s: float = 0.0) -> bool:
        waits.append(wait_s)
        return run_batch(wait_s)

    monkeypatch.setattr(stand.worker.poller, "run_batch", noted)

    async def visit(_: Stand) -> None:
        await stand.driver.call(waits.clear)
        ends = time.monotonic() + WAIT_S
        while not (waits and waits[-1] > 0.0):  # until it sleeps
            assert time.monotonic() < ends
            await asyncio.sleep(0.001)  # the other thread has the interpreter meanwhile

    stand.run(visit)
    assert waits.count(0.0) > 10


def test_a_poller_that_is_not_busy_sleeps_at_once(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    run_batch = stand.worker.poller.run_batch

    def noted(wait_s: float = 0.0) -> bool:
        waits.append(wait_s)
        return run_batch(wait_s)

    monkeypatch.setattr(stand.worker.poller, "run_batch", noted)

    async def visit(_: Stand) -> None:
        for _number in range(3):
            await stand.driver.call(lambda: None)

    stand.run(visit)
    assert 0.0 not in waits[:3]
