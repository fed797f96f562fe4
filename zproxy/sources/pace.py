"""Long work in a thread, done so that the threads beside it go on.

A thread that computes keeps the interpreter for 5 ms at a time (sys.getswitchinterval), and a data-plane
worker asks for it back after every system call: beside one that reads a large file it would do next to
nothing. So does the cycle collector, which stops all threads for as long as it searches what was read.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

WORK_S: Final = 200e-6
"""How long the others wait at most, beside what the system needs to wake them."""
REST_S: Final = 200e-6
"""How long they have to themselves then."""

Pause = Callable[[], None]
"""Called often by long work; may take a moment."""


def hurry() -> None:
    """Take no pause: nobody else is there yet."""


class Pace:
    """A Pause that rests whenever WORK_S have been worked."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + WORK_S

    def __call__(self) -> None:
        """Rest, if it is time to."""
        if time.perf_counter() >= self._until:
            time.sleep(REST_S)
            self._until = time.perf_counter() + WORK_S


@contextmanager
def considerate() -> Iterator[Pause]:
    """Give long work its Pause, and keep the cycle collector away meanwhile: one such work at a time."""
    gc.disable()
    try:
        yield Pace()
    finally:
        gc.enable()
