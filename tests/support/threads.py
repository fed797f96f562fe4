"""Threads that meet where it hurts: all begin at once, and give way at the points that a test names."""

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

WAIT_S = 10.0
EAGER_S = 1e-6
"""How long a thread that wants the GIL waits before the one that has it must give way; 5 ms by default."""

T = TypeVar("T")


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make every call in a thread of its own, all at the same time; return what they return."""
    together = threading.Barrier(len(calls))

    def work(call: Callable[[], T]) -> T:
        together.wait(WAIT_S)
        return call()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(EAGER_S)
    try:
        with ThreadPoolExecutor(len(calls)) as threads:
            return list(threads.map(work, calls))
    finally:
        sys.setswitchinterval(interval)


def let_others_run() -> None:
    """Stay in the interpreter until a thread that waits for it has had its turn (inside `at_once`)."""
    for _ in range(20_000):
        pass
