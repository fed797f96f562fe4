"""Readiness for the data plane: one epoll set, a table fd -> owner, one flush per batch.

One call serves a whole batch of events, and everything that the batch made dirty is flushed once at its end.
So all frames of a tunnel leave in one TLS write and one send.
"""

import select
import time
from collections.abc import Callable
from typing import Final, Protocol

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
BATCH: Final = 256
"""Events taken per turn; more wait for the next, so that the node's other work gets its turn."""
_ONLY_BREAKS: Final = select.EPOLLET
"""A socket that ended both ways hangs up for ever, and what it delivered may still have to wait for room:
level-triggered, it would spin."""


class Pollable(Protocol):
    """Owner of an fd. An event is a hint: the owner ALWAYS asks the socket what really is the case,
    because an fd closed and reused within a batch can receive the event of its predecessor."""

    def on_event(self, events: int) -> None:
        """Do what `events` (EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR) allows, without blocking."""

    def abort(self, error: str) -> None:
        """Close at once because of an error inside zproxy."""


class Flushable(Protocol):
    """Something that collects output during a batch."""

    def flush(self) -> None:
        """Send what was collected."""

    def abort(self, error: str) -> None:
        """Close at once because of an error inside zproxy."""


class Poller:
    """The epoll set of one data-plane worker. Used from one thread only."""

    clock = staticmethod(time.monotonic)

    def __init__(self, on_crash: Callable[[Pollable | Flushable, Exception], None]) -> None:
        self._epoll = select.epoll()
        self._owners: dict[int, Pollable] = {}
        self._dirty: list[Flushable] = []
        self._on_crash = on_crash
        self.now = self.clock()
        """Time of the current batch, in seconds; good enough for every deadline and duration."""

    def fileno(self) -> int:
        """Return the fd that is readable while events wait."""
        return self._epoll.fileno()

    def add(self, fd: int, owner: Pollable, events: int) -> None:
        """Watch `fd`; level-triggered, except that 0 reports each error and hang-up once."""
        self._epoll.register(fd, events or _ONLY_BREAKS)
        self._owners[fd] = owner

    def modify(self, fd: int, events: int) -> None:
        """Change what `fd` is watched for; 0 leaves errors and hang-ups, each reported once."""
        self._epoll.modify(fd, events or _ONLY_BREAKS)

    def remove(self, fd: int) -> None:
        """Stop watching `fd`; ALWAYS before closing it."""
        if self._owners.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`, which the caller closes at once: that takes it out of the set, too."""
        self._owners.pop(fd, None)

    def soon(self, item: Flushable) -> None:
        """Flush `item` at the end of this batch. The caller asks at most once per batch."""
        self._dirty.append(item)

    def run_batch(self, wait_s: float = 0.0) -> bool:
        """Serve the events that are there, then flush; when there are none, wait up to `wait_s` for some.

        Return whether there were any. Whoever is told that the epoll fd is readable need not wait.
        """
        batch = self._epoll.poll(wait_s, BATCH)
        self.now = self.clock()
        owners = self._owners
        for fd, events in batch:
            owner = owners.get(fd)
            if owner is None:
                continue
            try:
                owner.on_event(events)
            except Exception as error:  # one connection's bug must not take the node down
                self._on_crash(owner, error)
        self.flush()
        return bool(batch)

    def flush(self) -> None:
        """Flush everything dirty; also called after work that did not start from an event."""
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            for item in dirty:
                try:
                    item.flush()
                except Exception as error:  # as in run_batch
                    self._on_crash(item, error)

    def close(self) -> None:
        """Drop the set; the fds stay with their owners."""
        self._owners.clear()
        self._epoll.close()

    def __len__(self) -> int:
        return len(self._owners)
