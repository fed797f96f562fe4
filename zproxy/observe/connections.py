"""The connections of a node: one record each, written when it is understood and ended exactly once.

The access log, the counters and `zproxy connections` all read this record, so they cannot disagree.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Protocol

from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.identity import SpiffeId
from zproxy.model.workload import Workload
from zproxy.observe.log import quoted


class Peers:
    """Who talks to whom: resolved once per (source, destination) and shared by all their connections."""

    __slots__ = (
        "destination",
        "destination_identity",
        "destination_text",
        "source",
        "source_identity",
        "source_text",
    )

    def __init__(
        self,
        source: Workload | None,
        destination: Workload | None,
        source_identity: SpiffeId | None,
        destination_identity: SpiffeId | None,
    ) -> None:
        self.source = source
        self.destination = destination
        self.source_identity = source_identity
        """Only where the hop is mTLS, like its counterpart."""
        self.destination_identity = destination_identity
        self.source_text = _fields("src", source, source_identity)
        self.destination_text = _service(destination) + _fields("dst", destination, destination_identity)


class Connection:
    """One app connection as one zproxy sees it. ALWAYS ended through `Connections.end`, and only once."""

    __slots__ = (
        "bytes_recv",
        "bytes_sent",
        "direction",
        "dst",
        "duration_s",
        "error",
        "hbone_addr",
        "id",
        "opened",
        "peers",
        "pod",
        "reason",
        "src",
        "state",
        "tunnel",
    )

    def __init__(self, number: int, pod: str, direction: Direction, src: Endpoint, dst: Endpoint) -> None:
        self.id = number
        self.pod = pod
        """`namespace/name` of the pod whose straw carries it."""
        self.direction = direction
        self.src = src
        self.dst = dst
        """The address dialled on the network: port 15008 when the hop is HBONE."""
        self.hbone_addr = ""
        """What the app asked for, the CONNECT authority; empty on plain hops."""
        self.peers: Peers | None = None
        """None until both ends are known; a connection that ends before was denied early."""
        self.tunnel = 0
        self.opened = 0.0
        self.duration_s = 0.0
        self.bytes_sent = 0
        """From the pod's app to the network."""
        self.bytes_recv = 0
        self.state = "open"
        self.reason = ""
        """Short label of what went wrong; empty when nothing did."""
        self.error = ""

    @property
    def bytes_moved(self) -> int:
        """Both ways."""
        return self.bytes_sent + self.bytes_recv


class Sink(Protocol):
    """Whoever wants to know about ended connections."""

    def ended(self, connection: Connection, now: float) -> None:
        """`connection` ended at `now` (monotonic)."""


class Totals:
    """Counters since start."""

    __slots__ = ("bytes_recv", "bytes_sent", "closed", "failed", "opened", "reasons")

    def __init__(self) -> None:
        self.reasons: dict[str, int] = {}
        """Failed connections by label; the labels are literals of this program, so they are few."""
        self.opened = self.closed = self.failed = self.bytes_sent = self.bytes_recv = 0


class Connections:
    """The live connections of one worker and the last ended ones (bounded). Used from its thread only."""

    def __init__(self, sink: Sink, keep_ended: int, numbers: Iterator[int] | None = None) -> None:
        """Take the connections' numbers from `numbers`, which the workers of a daemon share.

        An `itertools.count` will do: `next` on it is one step under the GIL.
        """
        self._sink = sink
        self._live: dict[int, Connection] = {}
        self._ended: deque[Connection] = deque(maxlen=keep_ended)
        self._numbers = count(1) if numbers is None else numbers
        self.totals = Totals()
        self._on_idle: Callable[[], object] | None = None

    def open(self, pod: str, direction: Direction, src: Endpoint, dst: Endpoint, now: float) -> Connection:
        """Begin the record of a connection accepted at `now`."""
        connection = Connection(next(self._numbers), pod, direction, src, dst)
        connection.opened = now
        self._live[connection.id] = connection
        self.totals.opened += 1
        return connection

    def end(self, connection: Connection, now: float, error: str = "", reason: str = "") -> None:
        """End the record, successfully when `error` is empty; later calls do nothing."""
        if self._live.pop(connection.id, None) is None:
            return
        connection.duration_s = now - connection.opened
        connection.error, connection.reason = error, reason
        connection.state = "failed" if error else "closed"
        totals = self.totals
        totals.closed += 1
        if error:
            totals.failed += 1
            totals.reasons[reason] = totals.reasons.get(reason, 0) + 1
        totals.bytes_sent += connection.bytes_sent
        totals.bytes_recv += connection.bytes_recv
        self._ended.append(connection)
        self._sink.ended(connection, now)
        if self._on_idle is not None and not self._live:
            on_idle, self._on_idle = self._on_idle, None
            on_idle()

    def when_idle(self, on_idle: Callable[[], object]) -> None:
        """Call `on_idle` once, as soon as no connection is open; for one waiter."""
        if self._live:
            self._on_idle = on_idle
        else:
            on_idle()

    def live(self) -> int:
        """Return how many are open."""
        return len(self._live)

    def rows(self, now: float) -> Iterator[dict[str, object]]:
        """Yield every known connection, ended ones first, as a row for people and machines."""
        for connection in (*self._ended, *self._live.values()):
            yield row(connection, now)


def row(connection: Connection, now: float) -> dict[str, object]:
    """Return one connection as `zproxy connections` shows it; the keys are stable."""
    duration = connection.duration_s if connection.state != "open" else now - connection.opened
    peers = connection.peers
    return {
        "id": connection.id,
        "pod": connection.pod,
        "direction": connection.direction.value,
        "state": connection.state,
        "src": str(connection.src),
        "dst": str(connection.dst),
        "hbone_addr": connection.hbone_addr,
        "src_identity": _text(peers.source_identity) if peers else "",
        "dst_identity": _text(peers.destination_identity) if peers else "",
        "bytes_sent": connection.bytes_sent,
        "bytes_recv": connection.bytes_recv,
        "duration_ms": int(duration * 1000),
        "tunnel": connection.tunnel,
        "reason": connection.reason,
        "error": connection.error,
    }


def _text(identity: SpiffeId | None) -> str:
    return "" if identity is None else str(identity)


def _fields(side: str, workload: Workload | None, identity: SpiffeId | None) -> str:
    text = ""
    if workload is not None:
        text += f" {side}.workload={quoted(workload.name)} {side}.namespace={quoted(workload.namespace)}"
    if identity is not None:
        text += f" {side}.identity={quoted(str(identity))}"
    if workload is not None:
        text += f" {side}.cluster={quoted(workload.cluster_id)}"
    return text


def _service(workload: Workload | None) -> str:
    if workload is None or not workload.services:
        return ""
    return f" dst.service={quoted(workload.services[0].partition('/')[2])}"
