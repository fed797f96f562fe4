"""Abuse without volume: frames that cost us more than the peer (rapid reset, PING and SETTINGS floods).

A clock would be natural, but this package has none; reads of the socket stand in for it. A peer that
trickles such frames is read one at a time and may do so for ever (keepalive PINGs on an idle tunnel); one
that floods is read in batches, and each batch costs more than it earns.
"""

from typing import Final

from zproxy.wire.errors import ErrorCode, RemoteProtocolError

BUDGET: Final = 1000
"""Tokens of a quiet peer: several times what one read holds in honest traffic."""
CHATTER: Final = 1
"""Price of PING, SETTINGS, PRIORITY, unknown frames, DATA without a byte, RST_STREAM on a closed stream."""
WASTE: Final = 2
"""Price of work done for nothing: a stream reset before its answer, refused, or ended by its own error.
HEADERS and RST_STREAM in two reads earn as much, so a client that gives up slowly is never punished."""


class FloodGuard:
    """A bucket of tokens, NEVER more than BUDGET."""

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = BUDGET

    def earn(self, count: int) -> None:
        """Count one read, and one for each stream that it brought data for."""
        if self.tokens < BUDGET:
            self.tokens = min(BUDGET, self.tokens + count)

    def spend(self, price: int, what: str) -> None:
        """Pay for one frame; RemoteProtocolError when nothing is left."""
        self.tokens -= price
        if self.tokens < 0:
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"the peer floods: too many {what}")
