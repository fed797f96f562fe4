"""The connections of a node: one record each, written when it is understood and ended exactly once.

The access log, the counters and `zproxy connections` all read this record, so they cannot disagree.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Protocol

from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.identity import SpiffeId
from zproxy.model.route import Route
from zproxy.model.workload import Workload
from zproxy.observe.balancing import BalancingCounts
from zproxy.observe.dns import DnsCounts
from zproxy.observe.log import quoted
from zproxy.observe.names import NameCounts
from zproxy.observe.series import Party, Series, SeriesTable, TunnelCounts, workload_key


class Peers:
    """Who talks to whom: resolved once per (source, destination) and shared by all their connections."""

    __slots__ = (
        "destination",
        "destination_identity",
        "destination_text",
        "is_outbound",
        "party",
        "series",
        "source",
        "source_identity",
        "source_text",
    )

    def __init__(self, party: Party) -> None:
        self.party = party
        self.is_outbound = party.direction is Direction.OUTBOUND
        self.source = party.source
        self.destination = party.destination
        self.source_identity = party.source_identity
        """Only where the hop is mTLS, like its counterpart."""
        self.destination_identity = party.destination_identity
        self.source_text = _fields("src", self.source, self.source_identity)
        self.destination_text = _service(party.service) + _fields(
            "dst", self.destination, self.destination_identity
        )
        self.series: Series | None = None
        """Where their connections are counted; looked up when the first one ends or is asked for."""


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
        "route",
        "src",
        "state",
        "tunnel",
        "wanted",
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
        self.wanted = dst
        """Outbound: what the app dialled. Inbound: the port of the app that it was admitted to."""
        self.route: Route | None = None
        """Outbound: what was decided, once it was."""
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

    __slots__ = (
        *("balancing", "bytes_recv", "bytes_sent", "closed", "dns", "early", "failed", "failures"),
        *("names", "opened", "policy_failures", "tunnels"),
    )

    def __init__(self) -> None:
        self.opened = self.closed = self.failed = self.bytes_sent = self.bytes_recv = 0
        self.failures: dict[tuple[Direction, str], int] = {}
        """By reason, a literal of this program; early ones among them."""
        self.early: dict[tuple[Direction, str], int] = {}
        """Those refused before their peers were known, which have no series; by reason."""
        self.policy_failures = Counter[tuple[str, str]]()
        """Refusals by a policy that could not be judged, by cause (missing, defect or empty) and policy."""
        self.tunnels = {role: TunnelCounts() for role in ("client", "server")}
        self.balancing = BalancingCounts()
        self.names = NameCounts()
        self.dns = DnsCounts()

    @property
    def reasons(self) -> Counter[str]:
        """Failed connections by reason, of both directions."""
        found = Counter[str]()
        for (_, reason), number in self.failures.items():
            found[reason] += number
        return found


class Connections:
    """The live connections of one worker and the last ended ones (bounded). Used from its thread only."""

    def __init__(
        self, sink: Sink, keep_ended: int, max_series: int, numbers: Iterator[int] | None = None
    ) -> None:
        """Take the connections' numbers from `numbers`, which the workers of a daemon share.

        An `itertools.count` will do: `next` on it is one step under the GIL.
        """
        self._sink = sink
        self.series = SeriesTable(max_series)
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
        totals.bytes_sent += connection.bytes_sent
        totals.bytes_recv += connection.bytes_recv
        self._count(connection)
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

    def series_of(self, peers: Peers) -> Series:
        """Return where the connections of `peers` are counted."""
        series = peers.series
        if series is None or series.is_retired:
            series = peers.series = self.series.of(peers.party, self._series_in_use)
        return series

    def on_mesh(self, workloads: Iterable[Workload]) -> None:
        """Drop the counters of workloads that the mesh, which is now `workloads`, has no more."""
        known = {workload_key(workload) for workload in workloads} | {workload_key(None)}
        self.series.retire(lambda keys: not known.issuperset(keys), self._series_in_use())

    def find(self, number: int) -> Connection | None:
        """Return the connection of this number, if it is open or ended lately."""
        found = self._live.get(number)
        return found or next((each for each in self._ended if each.id == number), None)

    def open_ones(self) -> Iterable[Connection]:
        """Return the connections that are open."""
        return self._live.values()

    def _series_in_use(self) -> Iterator[Series]:
        for connection in self._live.values():
            if connection.peers is not None and connection.peers.series is not None:
                yield connection.peers.series

    def _count(self, connection: Connection) -> None:
        peers = connection.peers
        if peers is not None:
            series = self.series_of(peers)
            series.closed += 1
            if peers.is_outbound:
                series.request_bytes += connection.bytes_sent
                series.response_bytes += connection.bytes_recv
            else:
                series.request_bytes += connection.bytes_recv
                series.response_bytes += connection.bytes_sent
        if connection.error:
            self._count_failure(connection, peers)

    def _count_failure(self, connection: Connection, peers: Peers | None) -> None:
        totals, key = self.totals, (connection.direction, connection.reason)
        totals.failed += 1
        totals.failures[key] = totals.failures.get(key, 0) + 1
        if peers is None:
            totals.early[key] = totals.early.get(key, 0) + 1
        else:
            self.series_of(peers).fail(connection.reason)

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


def _service(service: str) -> str:
    return f" dst.service={quoted(service.partition('/')[2])}" if service else ""
