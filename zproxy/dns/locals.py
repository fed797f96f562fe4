"""Who may ask: the pod itself. A resolver that answered others could be turned against third parties."""

from collections.abc import Callable
from typing import Final

from zproxy.net.poller import Poller

BELIEVED_S: Final = 5.0
"""How long an address stays what it was found to be."""
REMEMBERED: Final = 256


class Locals:
    """Knows the pod's own addresses by asking the kernel about each one that is claimed."""

    def __init__(self, is_own: Callable[[str], bool], poller: Poller) -> None:
        self._is_own = is_own
        self._poller = poller
        self._known: dict[str, bool] = {}
        self._until = 0.0

    def has(self, ip: str) -> bool:
        """Tell whether `ip` is one of them."""
        now = self._poller.now
        if now >= self._until or len(self._known) >= REMEMBERED:
            self._known, self._until = {}, now + BELIEVED_S
        if ip not in self._known:
            self._known[ip] = self._is_own(ip)
        return self._known[ip]
