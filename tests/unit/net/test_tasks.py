"""Tasks that nobody else holds."""

import asyncio
import gc

from zproxy.net.tasks import spawn


def test_a_task_nobody_holds_survives_the_collector() -> None:
    async def main() -> list[str]:
        done: list[str] = []
        gate = asyncio.Event()

        async def work() -> None:
            await gate.wait()
            done.append("worked")

        spawn(work(), "unheld")
        await asyncio.sleep(0)
        gc.collect()
        gate.set()
        for _ in range(3):
            await asyncio.sleep(0)
        return done

    assert asyncio.run(main()) == ["worked"]


def test_a_task_bears_its_name_and_returns_its_result() -> None:
    async def main() -> tuple[str, int]:
        async def work() -> int:
            return 7

        task = spawn(work(), "counting")
        return task.get_name(), await task

    assert asyncio.run(main()) == ("counting", 7)


def test_an_ended_task_is_let_go() -> None:
    async def main() -> int:
        async def work() -> None:
            pass

        await spawn(work(), "short")
        await asyncio.sleep(0)
        return sum(
            isinstance(found, set) and any(isinstance(item, asyncio.Task) and item.done() for item in found)
            for found in (vars(__import__("zproxy.net.tasks", fromlist=["_running"]))["_running"],)
        )

    assert asyncio.run(main()) == 0
