"""The data-plane workers of a node, and the straws on them, as the control plane sees them.

A pod lives on one worker from its enrolment to its end: listeners, relays, tunnels and pool. So no two
workers share anything that changes, and one pool key has one pool.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from zproxy.model.pod import ResolvConf
from zproxy.model.workload import Workload
from zproxy.net.drivers import Driver
from zproxy.net.netns import Netns
from zproxy.observe.connections import Connection, Connections
from zproxy.observe.metrics import Family, families
from zproxy.proxy.balancer import Known, Standing
from zproxy.proxy.straw import Straw, TunnelView
from zproxy.state.names import Asker
from zproxy.state.store import Mesh

MakeStraw = Callable[[Workload, Netns], Straw]

T = TypeVar("T")


class Figures(NamedTuple):
    """What one worker has counted since it began."""

    live: int
    opened: int
    closed: int
    failed: int
    bytes_sent: int
    bytes_recv: int
    reasons: Counter[str]
    """Failed ones by reason."""


class PodWorker:
    """One worker. Every method reaches what lives on it through its driver and so on its own thread."""

    def __init__(self, driver: Driver, connections: Connections, make_straw: MakeStraw) -> None:
        self._driver = driver
        self._connections = connections
        self._make_straw = make_straw

    @property
    def number(self) -> int:
        """0 for the first."""
        return self._driver.number

    async def open_straw(self, workload: Workload, netns: Netns) -> "PlacedStraw":
        """Give a pod a straw on this worker; raise EnrollError."""
        straw = await self.call(partial(self._make_straw, workload, netns))
        return PlacedStraw(self, straw)

    async def connections(self) -> list[dict[str, Any]]:
        """Return a row per live and per lately ended connection."""
        clock = self._driver.worker.poller.clock
        return await self.call(lambda: list(self._connections.rows(clock())))

    async def connection(self, number: int, view: Callable[[Connection], T]) -> T | None:
        """Return what `view` makes of the connection of this number, on the worker; None if it has none."""

        def look() -> T | None:
            found = self._connections.find(number)
            return None if found is None else view(found)

        return await self.call(look)

    async def figures(self) -> Figures:
        """Return counters, all of one moment."""

        def read() -> Figures:
            of = self._connections.totals
            live = self._connections.live()
            return Figures(live, of.opened, of.closed, of.failed, of.bytes_sent, of.bytes_recv, of.reasons)

        return await self.call(read)

    async def metrics(self) -> list[Family]:
        """Return the families of this worker alone, all of one moment."""
        return await self.call(partial(families, self._connections))

    async def on_mesh(self, workloads: Sequence[Workload]) -> None:
        """See Connections."""
        await self.call(partial(self._connections.on_mesh, workloads))

    async def idle(self) -> None:
        """Wait until no connection is open; for one waiter."""
        idle, loop = asyncio.Event(), asyncio.get_running_loop()
        tell = partial(loop.call_soon_threadsafe, idle.set)
        await self.call(partial(self._connections.when_idle, tell))
        await idle.wait()

    async def call(self, work: Callable[[], T]) -> T:
        """See Driver."""
        return await self._driver.call(work)


class PlacedStraw:
    """A straw and the worker that it is on. Plain values here change by `reopen` only."""

    def __init__(self, worker: PodWorker, straw: Straw) -> None:
        self.worker = worker
        self.name = straw.pod.name
        """`namespace/name` of the pod."""
        self.ports = [listener.port for listener in straw.listeners]
        self.plaintext_fd = straw.plaintext_fd
        """See Straw; void once it is closed."""
        self._straw = straw

    async def tunnels(self, view: Callable[[TunnelView, float], T]) -> list[T]:
        """Return what `view` makes of each tunnel and the worker's time, on the worker."""

        def look() -> list[T]:
            now = self._straw.pod.worker.poller.clock()
            return [view(tunnel, now) for tunnel in self._straw.tunnels()]

        return await self.worker.call(look)

    async def standings(self, of: Sequence[tuple[str, int]]) -> list[Standing]:
        """Return what the pod's balancer knows about endpoints, uid and port: of all ports or of that one."""

        def look() -> list[Standing]:
            balancer, now = self._straw.pod.balancer, self._straw.pod.worker.poller.clock()
            both = ((balancer.standing(uid, now), balancer.standing(uid, now, port)) for uid, port in of)
            return [max(each, key=lambda standing: (standing.ejected_s, standing.failures)) for each in both]

        return await self.worker.call(look)

    async def known(self) -> list[Known]:
        """Return all that the pod's balancer knows, which is that of the worker."""

        def look() -> list[Known]:
            return self._straw.pod.balancer.known(self._straw.pod.worker.poller.clock())

        return await self.worker.call(look)

    async def sockets(self) -> frozenset[int]:
        """Return the inodes of the listening sockets, and of the one that takes queries."""

        def look() -> frozenset[int]:
            return frozenset(os.fstat(fd).st_ino for fd in self._straw.descriptors())

        return await self.worker.call(look)

    async def reopen(self) -> None:
        """See Straw; `plaintext_fd` is another one afterwards."""
        await self.worker.call(self._straw.reopen)
        self.plaintext_fd = self._straw.plaintext_fd

    async def use(self, conf: ResolvConf | None) -> None:
        """Let the straw's DNS follow the pod's resolv.conf; where none was found, the last one holds."""
        if conf is not None:
            await self.worker.call(partial(self._straw.dns.use, conf))

    async def asker(self) -> Asker:
        """Return on whose behalf the straw's DNS looks names up."""
        return await self.worker.call(self._straw.dns.asker)

    async def when_lost(self, tell: Callable[[], object]) -> None:
        """Call `tell` whenever the kernel has taken a listener away, on the worker's thread."""

        def keep() -> None:
            self._straw.on_lost = tell

        await self.worker.call(keep)

    async def on_mesh(self, former: Mesh) -> None:
        """See Straw; in slices, between which the worker does its other work."""
        recheck = await self.worker.call(partial(self._straw.on_mesh, former))
        while await self.worker.call(recheck.advance):
            pass
        await self.worker.call(self._straw.pod.worker.poller.flush)

    async def drain(self) -> None:
        """See Straw."""
        await self.worker.call(self._straw.drain)

    async def close(self, error: str) -> None:
        """See Straw."""
        await self.worker.call(partial(self._straw.close, error))


def least_loaded(workers: Sequence[PodWorker], straws: Iterable[PlacedStraw]) -> PodWorker:
    """Return the worker with the fewest straws, of several such the first."""
    taken = [straw.worker.number for straw in straws]
    return min(workers, key=lambda worker: (taken.count(worker.number), worker.number))
