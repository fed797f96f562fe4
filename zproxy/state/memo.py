"""What was found out and may be found out again: bounded, and nobody makes it forget what others use."""

from collections.abc import Hashable
from typing import Any


class Memo(dict[Hashable, Any]):
    """Asked by `memo[key]`, which is None for what is not known; told by `keep`. Any thread may do both.

    Two generations: when the younger one is full it becomes the older one, which is forgotten when that
    happens again. Whatever is asked for meanwhile moves to the younger one. So a client that fills it with
    answers of its own costs others nothing that they ask for more often than once in `limit` new answers.
    """

    __slots__ = ("_limit", "older")

    def __init__(self, limit: int) -> None:
        """Begin with nothing; at most twice `limit` answers are kept."""
        self._limit = limit
        self.older: dict[Hashable, Any] = {}
        """The generation before; what is asked for comes back from it."""

    def __missing__(self, key: Hashable) -> Any:
        """Look into the older generation."""
        found = self.older.get(key)
        if found is not None:
            self.keep(key, found)
        return found

    def keep(self, key: Hashable, answer: Any) -> None:
        """Remember `answer`, which is not None."""
        if len(self) >= self._limit:
            self.older = dict(self)
            self.clear()
        self[key] = answer
