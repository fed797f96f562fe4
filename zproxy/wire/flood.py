"""Abuse without volume: frames that cost us more than the peer (rapid reset, PING and SETTINGS floods).

Chatter is paid for by reads of the socket. A peer that trickles such frames is read one at a time and may
do so for ever (keepalive PINGs on an idle tunnel); one that floods is read in batches, and each batch costs
more than it earns. Wasted streams cost more than a read, a connect to the app among other things, however
slowly they come: these are also limited by the second, whose passing the driver reports by `tick`.
"""

from typing import Final

from zproxy.config import Limits
from zproxy.wire.errors import ErrorCode, RemoteProtocolError

CHATTER: Final = 1
"""Price of PING, SETTINGS, PRIORITY, unknown frames, DATA without a byte, RST_STREAM on a closed stream."""
WASTE: Final = 2
"""Price of work done for nothing: a stream reset before its answer, refused, or ended by its own error.
HEADERS and RST_STREAM in two reads earn as much, so a client that gives up slowly is never punished."""


class FloodGuard:
    """Two buckets, NEVER more than full: tokens for chatter, and streams that may be wasted."""

    __slots__ = ("_limits", "streams", "tokens")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.tokens = limits.chatter
        self.streams = limits.wasted_streams

    def earn(self, count: int) -> None:
        """Count one read, and one for each stream that it brought data for."""
        if self.tokens < self._limits.chatter:
            self.tokens = min(self._limits.chatter, self.tokens + count)

    def tick(self) -> None:
        """Count one second."""
        limits = self._limits
        self.streams = min(limits.wasted_streams, self.streams + limits.wasted_streams_per_s)

    def waste(self, what: str) -> None:
        """Pay for one stream that was work for nothing."""
        self.streams -= 1
        if self.streams < 0:
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"the peer floods: too many {what}")
        self.spend(WASTE, what)

    def spend(self, price: int, what: str) -> None:
        """Pay for one frame; RemoteProtocolError when nothing is left."""
        self.tokens -= price
        if self.tokens < 0:
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"the peer floods: too many {what}")
