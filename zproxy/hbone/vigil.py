"""Watching a tunnel's peer: when it is to be pinged, and when it is too silent or too slow. Pure."""

from enum import Enum
from typing import Final

PING_AFTER_S: Final = 10.0
"""Silence after which the peer is pinged, ztunnel's value."""
DEAD_AFTER_S: Final = 30.0
"""Silence after which the peer is taken for gone: PING_AFTER_S and ztunnel's 20 s for the answer."""


class Finding(Enum):
    """What a look at the clock says."""

    FINE = "fine"
    PING = "ask for a sign of life"
    DEAD = "it is gone"
    STALLED = "a frame that it began does not end"


class Vigil:
    """Looks once a second. Silence counts only while streams are open: else nothing is owed."""

    __slots__ = ("_pinged", "_since", "_unfinished", "heard")

    def __init__(self, now: float) -> None:
        self.heard = now
        """When the peer was last heard."""
        self._pinged = 0.0
        """When the last PING was sent; the peer owes an answer until it is heard again."""
        self._unfinished = 0
        """Which frame was unfinished at the last look; 0 is none."""
        self._since = 0.0

    def look(self, now: float, *, unfinished: int, frame_s: float, is_owed: bool) -> Finding:
        """Judge the peer; `unfinished` numbers the frame under way, `is_owed`: streams are open."""
        if unfinished != self._unfinished:
            self._unfinished, self._since = unfinished, now
        elif unfinished and now - self._since > frame_s:
            return Finding.STALLED
        if not is_owed:
            self.heard = max(self.heard, now - PING_AFTER_S)
            return Finding.FINE
        silent_s = now - self.heard
        if silent_s > DEAD_AFTER_S:
            return Finding.DEAD
        if silent_s > PING_AFTER_S and self._pinged <= self.heard:
            self._pinged = now
            return Finding.PING
        return Finding.FINE
