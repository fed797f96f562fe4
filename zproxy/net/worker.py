"""One data-plane worker: its poller, its buffers, its deadlines. Everything that runs on it shares these."""

from collections.abc import Callable
from typing import Final, Protocol

from zproxy.config import Deadlines, Limits
from zproxy.net.buffers import Buffers
from zproxy.net.deadline import Deadline, Waiter
from zproxy.net.names import Names
from zproxy.net.pipes import Pipes
from zproxy.net.poller import Flushable, Pollable, Poller

SWEEP_S: Final = 1.0
"""How often `Worker.sweep` is to be called; the resolution of every deadline."""
LISTENER_PAUSE_S: Final = 0.1


class Ticking(Protocol):
    """Something that looks at the clock once per sweep."""

    def on_tick(self, now: float) -> None:
        """Do what time demands; `now` is monotonic."""

    def abort(self, error: str) -> None:
        """Close at once because of an error inside zproxy."""


class Worker:
    """Owned by one thread; NEVER shared."""

    def __init__(
        self,
        deadlines: Deadlines,
        limits: Limits,
        on_crash: Callable[[Pollable | Flushable | Waiter | Ticking, Exception], None],
    ) -> None:
        self.limits = limits
        self.poller = Poller(on_crash)
        self._on_crash = on_crash
        self.buffers = Buffers()
        self.pipes = Pipes()
        self.names = Names(self.poller)
        self.naming = Deadline("DNS", deadlines.name_s)
        self.asking = Deadline("the answer of a resolver", deadlines.dns_s)
        self.querying = Deadline("a DNS query", deadlines.dns_idle_s)
        self.connecting = Deadline("TCP connect", deadlines.connect_s)
        self.handshaking = Deadline("TLS and HTTP/2 handshake", deadlines.handshake_s)
        self.agreeing = Deadline("SETTINGS acknowledgement", deadlines.settings_ack_s)
        self.answering = Deadline("CONNECT reply", deadlines.reply_s)
        self.half_closed = Deadline("the other direction after a half-close", deadlines.half_close_s)
        self.awaiting = Deadline("its record", deadlines.record_s)
        self.paused = Deadline("file descriptors", LISTENER_PAUSE_S)
        self.idle = Deadline("a byte in either direction", deadlines.idle_s)
        self.frame_s = deadlines.frame_s
        self.pool_idle_s = deadlines.pool_idle_s
        self.ticking: set[Ticking] = set()
        """Tunnels: they ping and expire."""

    def sweep(self) -> None:
        """Expire waits and tick; then flush what that made dirty."""
        now = self.poller.now = self.poller.clock()
        for deadline in (
            self.paused, self.naming, self.asking, self.querying, self.connecting, self.handshaking,
            self.agreeing, self.answering, self.half_closed, self.awaiting, self.idle,
        ):  # fmt: skip
            for waiter in deadline.expired(now):
                try:
                    waiter.on_deadline(deadline)
                except Exception as error:  # one connection's bug must not stop the clock of the others
                    self._on_crash(waiter, error)
        for item in tuple(self.ticking):
            try:
                item.on_tick(now)
            except Exception as error:  # likewise
                self._on_crash(item, error)
        self.poller.flush()

    def watch_idle(self, waiter: Waiter) -> None:
        """Begin, or begin anew, the wait for a byte; nothing when connections may be idle for ever."""
        if self.idle.seconds:
            self.idle.start(waiter, self.poller.now)

    def close(self) -> None:
        """Drop poller and pipes; everything on the poller must be closed before."""
        self.names.close()
        self.poller.close()
        self.pipes.close()
