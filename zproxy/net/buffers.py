"""Memory of a data-plane worker: shared scratch buffers, and batch buffers borrowed while dirty.

A connection owns no buffer. 256 KiB fits the L2 cache of the machines this was measured on: smaller
buffers cost a quarter of the throughput, larger ones a tenth of the small-message rate.
"""

from typing import Final

SIZE: Final = 256 << 10
SPARE: Final = 16
"""Idle batch buffers kept; a burst's others go back to the allocator."""


class Buffers:
    """`cipher` and `plain` are valid only until the current handler returns; batches until given back."""

    def __init__(self) -> None:
        self.cipher = memoryview(bytearray(SIZE))
        """What a socket delivered."""
        self.plain = memoryview(bytearray(SIZE))
        """What TLS made of it, or an app's bytes on a plain leg."""
        self._spare: list[memoryview] = []

    def borrow(self) -> memoryview:
        """Return a batch buffer; its contents are undefined."""
        return self._spare.pop() if self._spare else memoryview(bytearray(SIZE))

    def give_back(self, batch: memoryview) -> None:
        """Take a batch buffer back."""
        if len(self._spare) < SPARE:
            self._spare.append(batch)
