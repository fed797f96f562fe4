"""What makes a data-plane worker go: a thread for each, which waits in the worker's own epoll set.

Hung into the node's uvloop as a single reader, the set costs two waits and a turn of the loop at each
wake-up: 7 us of a round trip's 100. And whatever the control plane does would hold up the pods' traffic.

Whatever the control plane does to what lives on a worker goes through `Driver.call`. A worker that ended by
a fault, or no longer answers, serves its pods no more while their listeners still accept: the driver says so
through `on_failure`, once, and whoever built it takes the daemon down. The pods are then refused at once.
"""

import asyncio
import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from zproxy.errors import WorkerFailed
from zproxy.net.handover import Handover
from zproxy.net.tasks import spawn
from zproxy.net.worker import SWEEP_S, Worker

ANSWER_S: Final = 20.0
"""Longest wait for a worker to do what it is asked: its longest batch takes a few milliseconds."""
WATCH_S: Final = 10.0
"""How often a thread is asked for a sign of life, since nobody else may ask it anything for days."""
STOP_S: Final = 5.0
"""Longest wait for a thread to end once it was told."""
PR_SET_NAME: Final = 15

_log = logging.getLogger("zproxy.net")

T = TypeVar("T")


class Driver(Protocol):
    """One worker and what runs it. All methods belong to the node's loop."""

    number: int
    """0 for the first."""
    worker: Worker
    """Touched by work given to `call` only."""

    def start(self) -> None:
        """Begin to serve events and deadlines."""

    async def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns on the worker, or raise what it raises; WorkerFailed if that is lost."""

    async def stop(self) -> None:
        """Serve no more; from here on `call` works in the caller's own thread, for closing what is left."""

    def close(self) -> None:
        """Drop the worker, after `stop`; everything on it must be closed before."""


class ThreadDriver:
    """A worker with a thread of its own, called zproxy-wN, that waits in the worker's poller."""

    def __init__(
        self,
        number: int,
        worker: Worker,
        on_failure: Callable[[WorkerFailed], object],
        busy_poll_s: float = 0.0,
    ) -> None:
        """Let `on_failure` hear, from any thread, that the worker died or hangs.

        After an event the thread looks for more for `busy_poll_s` seconds before it sleeps: a wake-up less, a
        core busy.
        """
        self.number = number
        self.worker = worker
        self._on_failure = on_failure
        self._busy_poll_s = busy_poll_s
        self._handover = Handover(worker.poller)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"zproxy-w{number}", daemon=True)
        self._watch: asyncio.Task[Any] | None = None

    def start(self) -> None:
        """See Driver."""
        self._thread.start()
        self._watch = spawn(self._keep_watch(), f"watch-worker-{self.number}")

    async def call(self, work: Callable[[], T]) -> T:
        """See Driver."""
        if self._is_stopping:
            await self.stop()
            return work()
        future = self._handover.submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), ANSWER_S)
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise  # it is the work's own
            raise self._failed(f"has not answered for {ANSWER_S:g} s") from None

    async def stop(self) -> None:
        """See Driver; what was handed over before is done first. Raise WorkerFailed when the thread hangs."""
        self._is_stopping = True
        if self._watch is None:
            return  # never started
        self._watch.cancel()
        self._handover.wake()
        await asyncio.to_thread(self._thread.join, STOP_S)
        if self._thread.is_alive():
            raise WorkerFailed(f"data-plane worker {self.number} does not end")

    def close(self) -> None:
        """See Driver."""
        self._handover.release()
        self.worker.close()

    async def _keep_watch(self) -> None:
        """Find out that the worker hangs, although nobody wants anything of it; a loss ends the watch."""
        with contextlib.suppress(WorkerFailed):
            while True:
                await asyncio.sleep(WATCH_S)
                await self.call(lambda: None)

    def _run(self) -> None:
        try:
            name_thread(self._thread.name)
            self._serve()
            self._handover.run()
            self._handover.close(WorkerFailed(f"data-plane worker {self.number} has ended"))
        except BaseException as error:  # a thread that dies in silence would leave its pods hanging
            _log.critical("data-plane worker %d died", self.number, exc_info=error)
            self._handover.close(self._failed(f"died: {type(error).__name__}: {error}"))

    def _serve(self) -> None:
        poller = self.worker.poller
        due = poller.clock() + SWEEP_S
        while not self._is_stopping:
            if poller.run_batch(max(0.0, due - poller.clock())) and self._busy_poll_s:
                self._spin(due)
            if poller.now >= due:
                due = poller.now + SWEEP_S
                self._sweep()

    def _spin(self, due: float) -> None:
        """Look for more instead of sleeping, until busy_poll_s after the last event or until `due`."""
        poller = self.worker.poller
        until = poller.now + self._busy_poll_s
        while poller.clock() < until and not self._is_stopping and poller.now < due:
            if poller.run_batch():
                until = poller.now + self._busy_poll_s

    def _sweep(self) -> None:
        try:
            self.worker.sweep()
        except Exception:  # a thread that ends for it would take the daemon down: the next one may succeed
            _log.exception("sweep failed")

    def _failed(self, what: str) -> WorkerFailed:
        failure = WorkerFailed(f"data-plane worker {self.number} {what}")
        self._on_failure(failure)
        return failure


def name_thread(name: str) -> None:
    """Let ss, ps and top show the calling thread as `name`, of which the kernel keeps 15 bytes."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
