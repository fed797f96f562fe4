"""How long to wait before something is tried again: longer each time, and never all nodes at once."""

import random
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.5
LONGEST_S: Final = 30.0
"""An API server that is back is noticed within this, and a cluster's nodes come to it spread over as long."""


class Backoff:
    """Doubles from `first_s` to LONGEST_S; each wait is drawn from the upper half of that."""

    def __init__(self, first_s: float = FIRST_S, draw: Callable[[], float] = random.random) -> None:
        """`draw` returns a number from 0 up to 1."""
        self._first_s = first_s
        self._draw = draw
        self._next_s = first_s

    def wait_s(self, at_least: float = 0.0) -> float:
        """Return how many seconds to wait now; a server that asks for `at_least` gets up to LONGEST_S."""
        span = max(self._next_s, min(at_least, LONGEST_S))
        self._next_s = min(self._next_s * 2, LONGEST_S)
        return max(span * (1 + self._draw()) / 2, min(at_least, LONGEST_S))

    def reset(self) -> None:
        """Begin with the shortest wait again: it went well."""
        self._next_s = self._first_s
