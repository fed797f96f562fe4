"""Tasks that nobody else holds."""

import asyncio
import gc
import weakref

import pytest

from zproxy.net.tasks import every, spawn


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
