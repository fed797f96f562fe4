"""Metrics in OpenMetrics text, made when somebody asks: Istio's TCP families, and zproxy's own beside them.

The figures of a worker are taken at one moment on its own thread, which is short; the text is made from the
sums elsewhere, since that takes longer. Series are bounded (zproxy.observe.series), and so is the answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from zproxy.model.conn import Direction, flag_of
from zproxy.observe.connections import Connections, Totals
from zproxy.observe.dns import BUCKETS, DNS_LABELS, DnsCounts, Durations
from zproxy.observe.log import LineWriter
from zproxy.observe.names import NAME_LABELS
from zproxy.observe.series import LABELS, REPORTERS, Labels, Series, with_flag

if TYPE_CHECKING:
    from prometheus_client.core import Metric

OWN: Final = "zproxy's own, may change: "
"""Begins the help of what no other mesh proxy promises."""
NOTHING: Final = (0, 0, 0)
BOUNDS: Final = (*(str(bound) for bound in BUCKETS), "+Inf")
"""Of histograms, as OpenMetrics writes them."""

Figure = TypeVar("Figure", int, Durations)


class Family(NamedTuple):
    """One family as it was at one moment."""

    name: str
    """Without `_total`, which OpenMetrics adds to counters."""
    help: str
    labels: tuple[str, ...]
    rows: list[tuple[Labels, int]]
    is_gauge: bool = False
    durations: tuple[tuple[Labels, Durations], ...] = ()
    """In place of `rows` where the family is a histogram; of values that change no more."""


Read = Callable[[], Awaitable[list[Family]]]
"""Takes the figures of one part of the daemon."""


class Tally(NamedTuple):
    """Figures of one series."""

    opened: int
    closed: int
    request_bytes: int
    response_bytes: int


class Metrics:
    """What `zproxy metrics` shows of one node: the sums over its workers, of which each is asked."""

    def __init__(self, reads: Sequence[Read], writer: LineWriter) -> None:
        """Ask each of `reads` for the families of one worker, which is to answer from its own thread."""
        self._reads = reads
        self._writer = writer

    async def text(self) -> str:
        """Return all families that have a sample, in OpenMetrics text."""
        parts = await asyncio.gather(*(read() for read in self._reads))
        lost: list[tuple[Labels, int]] = [((), self._writer.dropped)]
        own = Family("zproxy_log_lines_dropped", f"{OWN}log lines that a slow or closed sink lost", (), lost)
        return await asyncio.to_thread(lambda: render([*merge(parts), own]))


def families(connections: Connections) -> list[Family]:
    """Return the families of one worker's connections as they are now; on that worker's thread only."""
    totals = connections.totals
    return [
        *_traffic(connections),
        *_failures(totals),
        *_tunnels(totals),
        *_balancing(totals),
        *_dns(totals.dns),
    ]


def merge(parts: Iterable[Iterable[Family]]) -> list[Family]:
    """Return families whose rows are the sums over `parts`: rows of the same labels become one."""
    alike: dict[str, list[Family]] = {}
    for family in chain.from_iterable(parts):
        alike.setdefault(family.name, []).append(family)
    return [
        families[0]._replace(
            rows=_summed(chain.from_iterable(family.rows for family in families)),
            durations=tuple(_summed(chain.from_iterable(family.durations for family in families))),
        )
        for families in alike.values()
    ]


def _summed(rows: Iterable[tuple[Labels, Figure]]) -> list[tuple[Labels, Figure]]:
    sums: dict[Labels, Figure] = {}
    for labels, value in rows:
        sums[labels] = sums[labels] + value if labels in sums else value
    return list(sums.items())


def _traffic(connections: Connections) -> Iterator[Family]:
    tallies = _tallies(connections)
    rows = [(labels, tally) for labels, tally in tallies if tally.opened]
    for name, text, at in (
        ("connections_opened", "TCP connections opened", 0),
        ("connections_closed", "TCP connections closed", 1),
        ("received_bytes", "bytes received from clients, by either reporter", 2),
        ("sent_bytes", "bytes sent to clients, by either reporter", 3),
    ):
        shown = [(labels, tally[at]) for labels, tally in rows]
        yield Family(f"istio_tcp_{name}", text, LABELS, shown)
    failed = [
        (with_flag(series.labels, flag), count)
        for series in connections.series.all()
        for flag, count in series.failed.items()
    ]
    yield Family("istio_tcp_connections_failed", "TCP connections failed (unstable)", LABELS, failed)


def _tallies(connections: Connections) -> list[tuple[Labels, Tally]]:
    """Return what ended and what is open, together: bytes count while a connection lives."""
    live: dict[Series, list[int]] = {}
    for connection in connections.open_ones():
        peers = connection.peers
        if peers is None:
            continue
        ways = live.setdefault(connections.series_of(peers), [0, 0, 0])
        ways[0] += 1
        ways[1] += connection.bytes_sent if peers.is_outbound else connection.bytes_recv
        ways[2] += connection.bytes_recv if peers.is_outbound else connection.bytes_sent
    return [
        (
            series.labels,
            Tally(
                series.closed + count,
                series.closed,
                series.request_bytes + request,
                series.response_bytes + response,
            ),
        )
        for series in connections.series.all()
        for count, request, response in (live.get(series, NOTHING),)
    ]


def _failures(totals: Totals) -> Iterator[Family]:
    yield Family(
        "zproxy_connection_failures",
        f"{OWN}connections that failed or were refused, early or late, by what went wrong",
        ("reporter", "response_flags", "reason"),
        [((*_who(key), key[1]), count) for key, count in totals.failures.items()],
    )
    yield Family(
        "zproxy_early_denials",
        f"{OWN}connections and tunnels refused before their peers were known",
        ("reporter", "response_flags", "reason"),
        [((*_who(key), key[1]), count) for key, count in totals.early.items()],
    )
    yield Family(
        "zproxy_policy_failures",
        f"{OWN}connections refused because a policy is missing, not understood (defect) or an empty DENY",
        ("cause", "policy"),
        list(totals.policy_failures.items()),
    )


def _tunnels(totals: Totals) -> Iterator[Family]:
    roles = totals.tunnels
    yield Family(
        "zproxy_tunnels_opened",
        f"{OWN}HBONE tunnels whose TLS came up and whose peer was accepted",
        ("role",),
        [((role,), counts.opened) for role, counts in roles.items()],
    )
    yield Family(
        "zproxy_tunnels_open",
        f"{OWN}HBONE tunnels that are open",
        ("role",),
        [((role,), counts.opened - counts.closed) for role, counts in roles.items()],
        is_gauge=True,
    )
    yield Family(
        "zproxy_tunnel_failures",
        f"{OWN}HBONE tunnels that failed before they could carry a stream, or whose peer broke HTTP/2",
        ("role", "response_flags"),
        [
            ((role, flag.value), count)
            for role, counts in roles.items()
            for flag, count in counts.failed.items()
        ],
    )


def _balancing(totals: Totals) -> Iterator[Family]:
    counts = totals.balancing
    yield Family(
        "istio_on_demand_dns",
        "connections to workloads that are known by their host names only (unstable)",
        NAME_LABELS,
        list(totals.names.rows.items()),
    )
    yield Family(
        "zproxy_endpoint_ejections",
        f"{OWN}times that an endpoint was left out for a while because it could not be reached",
        (),
        [((), counts.ejections)] if counts.ejections else [],
    )
    yield Family(
        "zproxy_connect_retries",
        f"{OWN}connections that were given another endpoint because the first could not be reached",
        (),
        [((), counts.retries)] if counts.retries else [],
    )


def _dns(counts: DnsCounts) -> Iterator[Family]:
    for name, text, rows in (
        ("requests", "DNS queries (unstable)", counts.requests),
        (
            "upstream_requests",
            "DNS queries that went to the pod's own servers (unstable)",
            counts.upstream_requests,
        ),
        ("upstream_failures", "DNS queries that none of them answered (unstable)", counts.upstream_failures),
    ):
        yield Family(f"istio_dns_{name}", text, DNS_LABELS, list(rows.items()))
    yield Family(
        "istio_dns_upstream_request_duration_seconds",
        "time until the pod's own server answered (unstable)",
        DNS_LABELS,
        [],
        durations=tuple((labels, each.copy()) for labels, each in counts.durations.items()),
    )
    yield Family(
        "zproxy_dns_dropped",
        f"{OWN}DNS messages that were not answered, or not believed",
        ("reason",),
        [((reason,), count) for reason, count in counts.dropped.items()],
    )


def render(shown: Iterable[Family]) -> str:
    """Return OpenMetrics text; families without a sample are left out."""
    from prometheus_client.core import Metric
    from prometheus_client.openmetrics.exposition import generate_latest
    from prometheus_client.registry import Collector, CollectorRegistry

    class Snapshot(Collector):
        def collect(self) -> Iterator[Metric]:
            return (_metric(family) for family in shown if family.rows or family.durations)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot())
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call] # the library's only one
    return text.decode()


def _metric(family: Family) -> "Metric":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if family.durations:
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, durations in family.durations:
            buckets = list(zip(BOUNDS, accumulate(durations.counts), strict=True))
            histogram.add_metric(labels, buckets, durations.total_s)
        return histogram
    kind = GaugeMetricFamily if family.is_gauge else CounterMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in family.rows:
        metric.add_metric(labels, value)
    return metric


def _who(key: tuple[Direction, str]) -> tuple[str, str]:
    direction, reason = key
    return REPORTERS[direction], flag_of(reason).value
