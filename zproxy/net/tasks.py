"""The only place that makes asyncio tasks: named, and referenced until they end."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_log = logging.getLogger("zproxy.net")

_running: set[asyncio.Task[Any]] = set()
"""The event loop keeps weak references only; a task nobody holds can vanish half way (CPython docs)."""


def spawn(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Start `work` as a task called `name`."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def in_thread(work: Callable[[], T]) -> T:
    """Call `work` in a thread and return its result; who is cancelled waits for the thread all the same.

    However often that happens: a daemon that ends cancels its tasks more than once. What a thread works with
    may be closed by whoever cancelled, and descriptors are used again at once.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise


async def every(seconds: float, work: Callable[[], object]) -> None:
    """Call `work` again and again; an error is logged and does not end it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            work()
        except Exception:  # a timer that dies would leave deadlines unenforced
            _log.exception("timer failed")
