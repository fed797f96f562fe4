"""Waits that must end: all waits of one kind share a length, so the oldest is always first."""

from collections.abc import Iterator
from typing import Protocol


class Waiter(Protocol):
    """Something that waits; identity is what counts, so it must be hashable."""

    def on_deadline(self, deadline: "Deadline") -> None:
        """Give up: `deadline` says what was waited for and how long."""

    def abort(self, error: str) -> None:
        """Close at once because of an error inside zproxy."""


class Deadline:
    """Everything that is waiting for one kind of thing, in order of arrival.

    Starting and ending a wait cost one dict operation and no timer; `expired` looks only at the front.
    Resolution is that of the caller's sweep.
    """

    __slots__ = ("_waiting", "seconds", "what")

    def __init__(self, what: str, seconds: float) -> None:
        self.what = what
        """What is waited for, as it reads in an error: 'TLS handshake'."""
        self.seconds = seconds
        self._waiting: dict[Waiter, float] = {}

    def start(self, waiter: Waiter, now: float) -> None:
        """Begin (or begin anew) the wait of `waiter`."""
        self._waiting.pop(waiter, None)
        self._waiting[waiter] = now

    def done(self, waiter: Waiter) -> None:
        """End the wait of `waiter`; harmless when there is none."""
        self._waiting.pop(waiter, None)

    def expired(self, now: float) -> Iterator[Waiter]:
        """Remove and yield every waiter that waited longer than `seconds`."""
        limit = now - self.seconds
        while self._waiting:
            waiter, since = next(iter(self._waiting.items()))
            if since > limit:
                return
            del self._waiting[waiter]
            yield waiter

    def __len__(self) -> int:
        return len(self._waiting)

    def __str__(self) -> str:
        return f"{self.what} took longer than {self.seconds:g} s"
