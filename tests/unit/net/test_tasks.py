"""Tasks."""

import asyncio

from zproxy.net.tasks import spawn


def test_a_task_has_its_name_and_its_result() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    async def main() -> tuple[str, str]:
        task = spawn(work(), "a-name")
        return task.get_name(), await task

    assert asyncio.run(main()) == ("a-name", "done")
