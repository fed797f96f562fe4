"""One notice, then silence until the pod was looked at."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from tests.support.netns import Namespace, ip, pair
from tests.support.steering import open_files
from zproxy.node.watch import Watches

pytestmark = pytest.mark.root


class Told:
    """Keeps the notices."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[int] = asyncio.Queue()
        self.tell = self._queue.put_nowait

    async def next(self) -> int:
        return await asyncio.wait_for(self._queue.get(), 10)

    async def silent(self) -> bool:
        """Tell whether nothing was said, after the loop has looked at its descriptors."""
        for _ in range(3):
            await asyncio.sleep(0)
        return self._queue.empty()


def watched(work: Callable[[Namespace, Watches, Told], Awaitable[None]]) -> None:
    async def main(pod: Namespace) -> None:
        told = Told()
        watches = Watches(told.tell)
        watches.open(7, pod.netns)
        await work(pod, watches, told)
        watches.keep(set())
        assert len(watches) == 0

    with pair() as (pod, _):
        pod.run(bool)  # a handle remembers the way home from its first use on
        before = open_files()
        asyncio.run(main(pod))
        assert open_files() == before


def change(pod: Namespace, number: int = 1) -> None:
    ip("-n", pod.name, "route", "add", f"10.6.{number}.0/24", "dev", "eth0")


def test_one_notice_until_it_is_armed_again() -> None:
    async def work(pod: Namespace, watches: Watches, told: Told) -> None:
        for number in range(20):
            change(pod, number)
        assert await told.next() == 7
        change(pod, 30)
        assert await told.silent()
        watches.drain(7)
        watches.rearm(7)
        watches.rearm(7)
        assert await told.silent(), "what was said before the look is forgotten"
        change(pod, 31)
        assert await told.next() == 7

    watched(work)


def test_what_changes_between_drain_and_rearm_is_not_missed() -> None:
    async def work(pod: Namespace, watches: Watches, told: Told) -> None:
        change(pod, 1)
        assert await told.next() == 7
        watches.drain(7)
        change(pod, 2)
        watches.rearm(7)
        assert await told.next() == 7

    watched(work)


def test_a_closed_watch_says_nothing_and_is_closed_twice() -> None:
    async def work(pod: Namespace, watches: Watches, told: Told) -> None:
        assert 7 in watches
        watches.close(7)
        watches.close(7)
        assert 7 not in watches
        change(pod)
        watches.drain(7)
        watches.rearm(7)
        assert await told.silent()

    watched(work)


def test_a_pod_that_cannot_be_watched_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with pair() as (pod, _):
        pass  # closed by now
    with caplog.at_level(logging.WARNING):
        Watches(bool).open(7, pod.netns)
    assert "are found every minute only" in caplog.text
