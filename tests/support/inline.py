"""A worker without a thread: what is asked of it happens at once, in the caller's thread."""

from collections.abc import Callable
from typing import TypeVar

from zproxy.net.worker import Worker

T = TypeVar("T")


class InlineDriver:
    """Stands for a zproxy.net.drivers.Driver whose worker the test itself moves."""

    def __init__(self, number: int, worker: Worker) -> None:
        self.number = number
        self.worker = worker

    def start(self) -> None:
        """See Driver."""

    async def call(self, work: Callable[[], T]) -> T:
        try:
            return work()
        finally:
            self.worker.poller.flush()

    async def stop(self) -> None:
        """See Driver."""

    def close(self) -> None:
        self.worker.close()
