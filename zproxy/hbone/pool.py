"""The pool: which tunnel carries a connection. One dial under any number of waiters.

`plan` decides and does nothing; `Pool` does what it says. A tunnel that is full gets a sibling, and takes
streams again when some of its own end.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Protocol

from zproxy.errors import TooMany, TunnelClosed, ZproxyError
from zproxy.hbone.client import ClientTunnel, TunnelWatcher
from zproxy.hbone.tunnel import State
from zproxy.model.conn import PoolKey
from zproxy.observe.series import TunnelCounts


class Verdict(Enum):
    """What to do with a connection when no tunnel can take it now."""

    DIAL = "dial"
    WAIT = "wait"


class TunnelView(Protocol):
    """What a decision looks at."""

    @property
    def state(self) -> State:
        """Where the tunnel is in its life."""

    @property
    def room(self) -> int:
        """How many streams it could still take."""

    @property
    def is_opening(self) -> bool:
        """Whether that is not its last word: it, or the server's limit, is still to come."""


class TunnelWaiter(Protocol):
    """A connection in want of a tunnel; hears exactly one of these."""

    def on_tunnel(self, tunnel: ClientTunnel) -> None:
        """Open a stream on `tunnel` now; it has room."""

    def on_no_tunnel(self, error: ZproxyError) -> None:
        """There will be none."""


def plan(tunnels: Sequence[TunnelView]) -> int | Verdict:
    """Return the index of the tunnel to use, or what to do instead.

    Three cases: 1. an open tunnel has room: the oldest such one, so that the younger can fall idle;
    2. one is being opened: wait for it, whatever number waits already; 3. otherwise dial.
    """
    for index, tunnel in enumerate(tunnels):
        if tunnel.state is State.OPEN and tunnel.room > 0:
            return index
    if any(tunnel.is_opening for tunnel in tunnels):
        return Verdict.WAIT
    return Verdict.DIAL


Dial = Callable[[PoolKey, TunnelWatcher], ClientTunnel]


class Pool:
    """The client tunnels of one pod. Two keys NEVER share a tunnel; one key NEVER has two dials in flight."""

    def __init__(self, dial: Dial, max_waiting: int, counts: TunnelCounts) -> None:
        self._dial = dial
        self._counts = counts
        self._opening: set[ClientTunnel] = set()
        self._max_waiting = max_waiting
        self._tunnels: dict[PoolKey, list[ClientTunnel]] = {}
        self._waiting: dict[PoolKey, dict[TunnelWaiter, None]] = {}
        """In order of arrival: a dict, because any of them may give up."""
        self._waiters = 0
        self._watcher = TunnelWatcher(self._opened, self._ready, self._closed)

    def want(self, key: PoolKey, waiter: TunnelWaiter) -> None:
        """Give `waiter` a tunnel, at once or when one is up."""
        if key not in self._waiting:
            choice = plan(self._tunnels.get(key, ()))
            if isinstance(choice, int):
                waiter.on_tunnel(self._tunnels[key][choice])
                return
        if self._waiters >= self._max_waiting:
            waiter.on_no_tunnel(TooMany(f"{self._waiters} connections already wait for tunnels of this pod"))
            return
        self._waiting.setdefault(key, {})[waiter] = None
        self._waiters += 1
        self._serve(key)

    def give_up(self, key: PoolKey, waiter: TunnelWaiter) -> None:
        """Forget a waiter whose app went away."""
        queue = self._waiting.get(key)
        if queue is not None and waiter in queue:
            del queue[waiter]
            self._waiters -= 1
            if not queue:
                del self._waiting[key]

    def has_room(self, key: PoolKey) -> None:
        """A stream of `key` ended: whoever waits may have its place."""
        if key in self._waiting:
            self._serve(key)

    def tunnels(self) -> Iterator[ClientTunnel]:
        """Yield every tunnel."""
        for tunnels in self._tunnels.values():
            yield from tunnels

    def close(self) -> None:
        """Close every tunnel and refuse every waiter."""
        for tunnel in tuple(self.tunnels()):
            tunnel.close()

    def retire(self, is_stale: Callable[[ClientTunnel], bool], why: ZproxyError) -> None:
        """Drop the tunnels whose peer is not who was meant any more; streams and waiters hear `why`."""
        for tunnel in [tunnel for tunnel in self.tunnels() if is_stale(tunnel)]:
            tunnel.fail(why)

    def drain(self) -> None:
        """Close every tunnel when its last stream ends."""
        for tunnel in tuple(self.tunnels()):
            tunnel.drain()

    def _serve(self, key: PoolKey) -> None:
        while queue := self._waiting.get(key):
            choice = plan(self._tunnels.get(key, ()))
            if choice is Verdict.WAIT:
                return
            if choice is Verdict.DIAL:
                self._start(key)
                return
            self._pop(key, queue).on_tunnel(self._tunnels[key][choice])

    def _start(self, key: PoolKey) -> None:
        try:
            tunnel = self._dial(key, self._watcher)
        except ZproxyError as error:
            self._counts.end(error.reason, was_open=False)
            self._refuse(key, error)
            return
        self._tunnels.setdefault(key, []).append(tunnel)
        self._opening.add(tunnel)

    def _opened(self, tunnel: ClientTunnel) -> None:
        self._opening.discard(tunnel)
        self._counts.opened += 1
        self._serve(tunnel.key)

    def _ready(self, tunnel: ClientTunnel) -> None:
        self._serve(tunnel.key)

    def _closed(self, tunnel: ClientTunnel, error: ZproxyError | None) -> None:
        self._counts.end(error.reason if error is not None else "", was_open=tunnel not in self._opening)
        self._opening.discard(tunnel)
        siblings = self._tunnels.get(tunnel.key, [])
        if tunnel in siblings:
            siblings.remove(tunnel)
        if not siblings:
            self._tunnels.pop(tunnel.key, None)
        if plan(siblings) is Verdict.DIAL:  # nothing is under way for those who wait
            self._refuse(tunnel.key, error or TunnelClosed(f"{tunnel.remote}: the tunnel was closed"))

    def _refuse(self, key: PoolKey, error: ZproxyError) -> None:
        while queue := self._waiting.get(key):
            self._pop(key, queue).on_no_tunnel(error)

    def _pop(self, key: PoolKey, queue: dict[TunnelWaiter, None]) -> TunnelWaiter:
        waiter = next(iter(queue))
        del queue[waiter]
        self._waiters -= 1
        if not queue:
            del self._waiting[key]
        return waiter
