"""The beat that says that every worker answers; pods that are to fail open live by it."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from zproxy.errors import WorkerFailed
from zproxy.node.workers import PodWorker
from zproxy.steering.heart import BEAT_S, Heart

_log = logging.getLogger("zproxy.node")
ANSWER_S: Final = 2 * BEAT_S
"""A worker that is busy for longer serves nobody; the beat is then about to be missed."""


class Heartbeat:
    """Asks all workers once a beat. One that does not answer stops it: a hung data plane is a dead one."""

    def __init__(self, heart: Heart, workers: Sequence[PodWorker]) -> None:
        self._heart = heart
        self._workers = workers
        self._is_late = False
        self._is_over = False

    def stop(self) -> None:
        """Beat no more, and let the kernel know at once: the daemon is about to end."""
        self._is_over = True
        self._heart.stop()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(BEAT_S)

    async def once(self) -> None:
        """Beat if every worker answers."""
        try:
            asked = asyncio.gather(*(worker.call(_nothing) for worker in self._workers))
            await asyncio.wait_for(asked, ANSWER_S)
        except (TimeoutError, WorkerFailed):
            if not self._is_late:
                _log.warning("a worker has not answered for %.0f s: pods that are to fail open do", ANSWER_S)
            self._is_late = True
            return
        self._is_late = False
        if not self._is_over:
            self._heart.beat()


def _nothing() -> None:
    """What a worker is asked to do to show that it does something."""
