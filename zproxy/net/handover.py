"""Work that other threads hand to a worker: a bounded queue, and an eventfd on the worker's poller."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from zproxy.errors import WorkerFailed
from zproxy.net.poller import READ, Poller

QUEUE: Final = 256
"""Pieces of work that may wait; the control plane has a few at a time."""

T = TypeVar("T")


class Handover:
    """`submit` is for any thread; everything else happens on the worker's."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._lock = threading.Lock()
        """Between the last look at the queue and its closing nobody may add to it."""
        self._closed: WorkerFailed | None = None
        poller.add(self._fd, self, READ)

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Let the worker call `work`; the future gets what it returns or raises.

        Work whose future was cancelled before its turn is not begun. Raise WorkerFailed when the worker is
        gone or has QUEUE pieces of work waiting already.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed is not None:
                raise self._closed
            if len(self._queue) >= QUEUE:
                raise WorkerFailed(f"{QUEUE} requests wait for this worker already; try again")
            self._queue.append((future, work))
        self.wake()
        return future

    def wake(self) -> None:
        """Make the worker look, from any thread."""
        os.eventfd_write(self._fd, 1)

    def on_event(self, events: int) -> None:
        """Do what was handed over."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        self.run()

    def run(self) -> None:
        """Do everything that waits, in the order in which it came."""
        while self._queue:
            future, work = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except Exception as error:  # the caller's, whatever it is
                future.set_exception(error)
            except BaseException as error:  # SystemExit: meant for this thread, and not for the caller's
                future.set_exception(WorkerFailed(f"the worker was ended by {type(error).__name__}"))
                raise
            else:
                future.set_result(result)

    def abort(self, error: str) -> None:
        """Go on: what was handed over reports its own errors."""

    def close(self, failure: WorkerFailed) -> None:
        """Let everything that waits, and all that comes, fail with `failure`."""
        with self._lock:
            self._closed = failure
            waiting, self._queue = self._queue, deque()
        for future, _ in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(failure)

    def release(self) -> None:
        """Close the eventfd; ALWAYS last, when no thread has the handover any more."""
        self._poller.remove(self._fd)
        os.close(self._fd)
