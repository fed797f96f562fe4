"""The daemon's sign of life in the kernel, for pods that are to fail open (bpf/lib/heart.h)."""

import time
from collections.abc import Callable
from typing import Final

from zproxy.steering import syscall
from zproxy.steering.layout import HEART, INDEX

BEAT_S: Final = 1.0
"""ZP_HEART_NS is three of these: two may be late before anybody is taken for dead."""
_FIRST: Final = INDEX.pack(index=0)


class Heart:
    """Writes zp_heart. A beat is good for three seconds."""

    def __init__(self, map_fd: int, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """Borrow the map; the clock is bpf_ktime_get_ns's, CLOCK_MONOTONIC."""
        self._map = map_fd
        self._clock_ns = clock_ns

    def beat(self) -> None:
        """Say that the data plane is alive now."""
        self._write(self._clock_ns())

    def stop(self) -> None:
        """Say that nobody serves from now on, instead of letting it be found out."""
        self._write(0)

    def _write(self, beat_ns: int) -> None:
        syscall.map_update(self._map, _FIRST, HEART.pack(beat_ns=beat_ns))
