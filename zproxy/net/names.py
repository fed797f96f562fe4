"""Addresses of host names, asked of the node's own resolver in threads, since getaddrinfo(3) blocks.

One of these belongs to a worker. Whoever waits for a name is told on the worker's thread, once.
"""

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from zproxy.model.addr import canonical_ip
from zproxy.net.poller import READ, Poller

FOUND_S: Final = 5.0
"""How long an answer is used again: getaddrinfo tells no TTL, and a name that moves should be followed."""
FAILED_S: Final = 1.0
NAMES: Final = 1024
"""Answers that are kept."""
LOOKUPS: Final = 16
"""Threads at a time; a resolver that is silent holds one for as long as resolv.conf says."""


class Answer(NamedTuple):
    """What a name came to."""

    ips: tuple[str, ...]
    """Canonical text, in the resolver's order."""
    error: str
    """A part of a sentence; empty where there are addresses."""


class NameWaiter(Protocol):
    """Someone in want of an address; hears once, unless it gave up before."""

    def on_name(self, answer: Answer) -> None:
        """Go on."""


Lookup = Callable[[str], Answer]


def look_up(hostname: str) -> Answer:
    """Ask the resolver; blocks."""
    try:
        found = socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "it is no host name"
        return Answer((), text or "no answer")
    ips = dict.fromkeys(canonical_ip(str(address[0])) for *_, address in found)
    return Answer(tuple(ips), "" if ips else "no address")


class Names:
    """`find` and `give_up` on the worker's thread only."""

    def __init__(self, poller: Poller, lookup: Lookup = look_up) -> None:
        self._poller = poller
        self._lookup = lookup
        self._known: dict[str, tuple[Answer, float]] = {}
        self._waiting: dict[str, dict[NameWaiter, None]] = {}
        """A name is in here for as long as a thread asks for it, also when nobody waits any more."""
        self._answers: deque[tuple[str, Answer]] = deque()
        self._fd = -1
        self._lock = threading.Lock()
        """No thread may write to the eventfd once it is closed."""

    def find(self, hostname: str, waiter: NameWaiter) -> None:
        """Tell `waiter` the addresses of `hostname`, at once when they are known."""
        known = self._known.get(hostname)
        if known is not None and self._poller.now < known[1]:
            waiter.on_name(known[0])
        elif hostname in self._waiting:
            self._waiting[hostname][waiter] = None
        elif len(self._waiting) >= LOOKUPS:
            waiter.on_name(Answer((), f"{LOOKUPS} names are being looked up already"))
        else:
            try:
                self._ask(hostname)
            except (OSError, RuntimeError) as error:  # no descriptor, no thread
                waiter.on_name(Answer((), str(error)))
            else:
                self._waiting[hostname] = {waiter: None}

    def give_up(self, hostname: str, waiter: NameWaiter) -> None:
        """Forget a waiter; harmless when it does not wait."""
        self._waiting.get(hostname, {}).pop(waiter, None)

    def on_event(self, events: int) -> None:
        """Tell what threads found."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        while self._answers:
            self._tell(*self._answers.popleft())

    def abort(self, error: str) -> None:
        """Go on: those who wait have deadlines."""

    def close(self) -> None:
        """Let answers that still come find nobody."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            self._poller.remove(fd)
            os.close(fd)

    def _ask(self, hostname: str) -> None:
        if self._fd < 0:
            self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._poller.add(self._fd, self, READ)
        threading.Thread(target=self._run, args=(hostname,), name="zproxy-name", daemon=True).start()

    def _run(self, hostname: str) -> None:
        answer = self._lookup(hostname)
        with self._lock:
            if self._fd >= 0:
                self._answers.append((hostname, answer))
                os.eventfd_write(self._fd, 1)

    def _tell(self, hostname: str, answer: Answer) -> None:
        if len(self._known) >= NAMES:
            self._known.clear()
        self._known[hostname] = answer, self._poller.now + (FOUND_S if answer.ips else FAILED_S)
        for waiter in self._waiting.pop(hostname, {}):
            waiter.on_name(answer)
