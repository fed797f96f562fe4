"""What the mesh does not know goes to the resolvers of the pod: each in turn until one answers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import dns.edns
import dns.rcode

from zproxy.dns.message import Query, failure
from zproxy.dns.upstream import Ask, DatagramAsk, Done, StreamAsk, Trouble, unreachable
from zproxy.model.addr import Endpoint
from zproxy.net.sockets import SocketFactory
from zproxy.net.worker import Worker
from zproxy.observe.dns import DnsCounts
from zproxy.observe.series import Labels

NOBODY: Final = Trouble(
    dns.edns.EDECode.NO_REACHABLE_AUTHORITY, "nobody was asked: the pod's resolv.conf names no resolver"
)
FULL: Final = Trouble(dns.edns.EDECode.PROHIBITED, "too many queries of this pod wait for resolvers already")


class Forwarder:
    """The queries of one pod that wait for resolvers; bounded."""

    def __init__(self, worker: Worker, sockets: SocketFactory, counts: DnsCounts) -> None:
        self._worker = worker
        self._sockets = sockets
        self._counts = counts
        self._waiting: set[_Forward] = set()

    def forward(
        self,
        query: Query,
        servers: Sequence[Endpoint],
        labels: Labels,
        done: Callable[[bytes], None],
        *,
        is_stream: bool,
    ) -> None:
        """Ask `servers` by the protocol that the client used; `done` hears once, possibly at once."""
        if len(self._waiting) >= self._worker.limits.dns_queries:
            self._counts.drop("full")
            done(failure(query, dns.rcode.SERVFAIL, *FULL))
            return
        dial = partial(self._dial, query, is_stream=is_stream)
        forward = _Forward(dial, query, list(servers), Meter(self._counts, labels, self._worker.poller.clock))
        self._waiting.add(forward)

        def end(reply: bytes) -> None:
            self._waiting.discard(forward)
            done(reply)

        forward.start(end)

    def close(self) -> None:
        """Forget all; nobody is told."""
        for each in tuple(self._waiting):
            each.close()
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def _dial(self, query: Query, to: Endpoint, done: Done, *, is_stream: bool) -> Ask:
        if is_stream:
            return StreamAsk(self._worker, self._sockets, query, to, done)
        return DatagramAsk(self._worker, self._sockets, query, to, done, lambda: self._counts.drop("spoofed"))


class Meter:
    """Counts what becomes of one query at its resolvers."""

    def __init__(self, counts: DnsCounts, labels: Labels, clock: Callable[[], float]) -> None:
        self._counts = counts
        self._labels = labels
        self._clock = clock
        self._since = 0.0

    def ask(self) -> None:
        """It goes to another one."""
        self._counts.forwarded(self._labels)
        self._since = self._clock()

    def fail(self) -> None:
        """That one did not answer."""
        self._counts.failed(self._labels)

    def answer(self) -> None:
        """It did."""
        self._counts.took(self._labels, self._clock() - self._since)


class _Forward:
    """One query, from its first resolver to an answer."""

    def __init__(
        self, dial: Callable[[Endpoint, Done], Ask], query: Query, servers: list[Endpoint], meter: Meter
    ) -> None:
        self._dial = dial
        self._query = query
        self._servers = servers
        self._meter = meter
        self._done: Callable[[bytes], None]
        self._ask: Ask | None = None

    def start(self, done: Callable[[bytes], None]) -> None:
        """Ask; `done` hears the answer, or what was wrong with the last resolver."""
        self._done = done
        self._next(NOBODY)

    def close(self) -> None:
        """Give up, and tell nobody."""
        if self._ask is not None:
            self._ask.close()

    def _next(self, trouble: Trouble) -> None:
        while self._servers:
            server = self._servers.pop(0)
            self._meter.ask()
            try:
                self._ask = self._dial(server, self._hear)
            except OSError as error:
                self._meter.fail()
                trouble = unreachable(server, error)
            else:
                return
        self._done(failure(self._query, dns.rcode.SERVFAIL, *trouble))

    def _hear(self, result: bytes | Trouble) -> None:
        self._ask = None
        if isinstance(result, Trouble):
            self._meter.fail()
            self._next(result)
        else:
            self._meter.answer()
            self._done(result)
