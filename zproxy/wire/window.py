"""Flow control (RFC 9113 section 5.2 and 6.9): what the peer may still send, and when it is told of more."""

from typing import Final

LARGEST: Final = (1 << 31) - 1
"""No window may ever exceed this; a peer that makes one do so has broken flow control."""
INITIAL: Final = 65_535
"""Of every window, until SETTINGS or WINDOW_UPDATE change it."""


class ReceiveWindow:
    """What a peer may send on a stream or on the whole connection.

    Bytes go from `available` to the driver when a DATA frame begins, and come back by `give` when the far
    socket took them. They are announced a quarter window at a time: small credits would cost a frame each,
    and with three quarters still open a peer never waits for the rest.
    """

    __slots__ = ("available", "owed", "quarter")

    def __init__(self, size: int) -> None:
        self.available = size
        self.owed = 0
        """Taken by the far socket, not announced yet."""
        self.quarter = size // 4

    def resize(self, delta: int, size: int) -> None:
        """Change the window to `size`; what is available may become negative until bytes come back."""
        self.available += delta
        self.quarter = size // 4

    def give(self, size: int) -> int:
        """Take `size` bytes back; return the increment that is to be announced now, or 0."""
        self.owed += size
        if self.owed < self.quarter or not self.owed:
            return 0
        increment, self.owed = self.owed, 0
        self.available += increment
        return increment
