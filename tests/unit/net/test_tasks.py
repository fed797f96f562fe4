"""Tasks that nobody else holds."""

import asyncio
import gc
import threading
import weakref

import pytest

from zproxy.net.tasks import every, in_thread, spawn


def test_a_task_nobody_holds_survives_the_collector() -> None:
    async def main() -> bool:
        async def wait_for_what_only_it_knows() -> None:
            await asyncio.get_running_loop().create_future()

        task = weakref.ref(spawn(wait_for_what_only_it_knows(), "unheld"))
        await asyncio.sleep(0)
        gc.collect()
        survivor = task()
        if survivor is None:
            return False
        survivor.cancel()
        return True

    assert asyncio.run(main())


def test_a_task_bears_its_name_and_returns_its_result() -> None:
    async def main() -> tuple[str, int]:
        async def work() -> int:
            return 7

        task = spawn(work(), "counting")
        return task.get_name(), await task

    assert asyncio.run(main()) == ("counting", 7)


def test_an_ended_task_is_let_go() -> None:
    async def main() -> object:
        async def work() -> None:
            pass

        task = spawn(work(), "short")
        await task
        await asyncio.sleep(0)
        let_go = weakref.ref(task)
        del task
        gc.collect()
        return let_go()

    assert asyncio.run(main()) is None


def test_a_timer_goes_on_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        second = asyncio.Event()
        calls = []

        def work() -> None:
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("first")
            second.set()

        timer = asyncio.ensure_future(every(0.001, work))
        await asyncio.wait_for(second.wait(), 10)
        timer.cancel()

    asyncio.run(run())
    assert "timer failed" in caplog.text


def test_who_is_cancelled_waits_for_the_thread() -> None:
    """Descriptors that the thread works with are closed next."""
    started, may_end = threading.Event(), threading.Event()
    ended: list[int] = []

    def work() -> int:
        started.set()
        may_end.wait(10)
        ended.append(1)
        return 7

    async def main() -> list[int]:
        task = spawn(in_thread(work), "threaded")
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        asyncio.get_running_loop().call_soon(may_end.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        return list(ended)

    assert asyncio.run(main()) == [1]
    may_end.set()
    assert asyncio.run(in_thread(work)) == 7
