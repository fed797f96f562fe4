"""DNS of pods in numbers: ztunnel's counters by who asked and for which type, and what was not answered."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from zproxy.model.workload import Workload
from zproxy.observe.series import UNKNOWN, Labels

LIMIT: Final = 1024
"""Label sets of each family; what comes after is counted with its type and protocol and no source."""
DNS_LABELS: Final = (
    *("request_query_type", "request_protocol"),
    *("source_canonical_service", "source_canonical_revision"),
)
BUCKETS: Final = (0.0005, 0.001, 0.01, 0.1, 1.0, 5.0)
"""Upper bounds in seconds, ztunnel's; there is one more bucket, for what took longer."""
OTHER: Final = "other"
KINDS: Final = frozenset(
    (
        *("a", "aaaa", "any", "caa", "cname", "ds", "https", "mx", "naptr", "ns", "ptr", "soa", "srv"),
        *("svcb", "txt"),
    )
)
"""Query types with labels of their own: a pod may ask for any of 65,536, and each would be a series."""


@dataclass(slots=True)
class Durations:
    """A histogram: how many took how long, and how long all took together."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """For each bucket what it has and the ones before it have not."""
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total_s += seconds

    def __add__(self, other: "Durations") -> "Durations":
        """Return a histogram of both; neither changes."""
        counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        return Durations(counts, self.total_s + other.total_s)

    def copy(self) -> "Durations":
        """Return what it is now, which changes no more."""
        return Durations(list(self.counts), self.total_s)


class DnsCounts:
    """Counters since start, of one worker. Labels are those that `dns_labels` made."""

    __slots__ = ("dropped", "durations", "requests", "upstream_failures", "upstream_requests")

    def __init__(self) -> None:
        self.requests: dict[Labels, int] = {}
        self.upstream_requests: dict[Labels, int] = {}
        """Those that were not the mesh's to answer, and went to the pod's own servers."""
        self.upstream_failures: dict[Labels, int] = {}
        """Those of these that had no answer."""
        self.durations: dict[Labels, Durations] = {}
        """How long those took that had one."""
        self.dropped: dict[str, int] = {}
        """Messages that were not answered, by reason, a literal of this program."""

    def asked(self, labels: Labels) -> None:
        """Count a query."""
        _count(self.requests, labels)

    def forwarded(self, labels: Labels) -> None:
        """Count a query that went to one of the pod's servers."""
        _count(self.upstream_requests, labels)

    def failed(self, labels: Labels) -> None:
        """Count a query that none of them answered."""
        _count(self.upstream_failures, labels)

    def took(self, labels: Labels, seconds: float) -> None:
        """Count how long an answer was waited for."""
        labels = _bounded(self.durations, labels)
        if labels not in self.durations:
            self.durations[labels] = Durations()
        self.durations[labels].add(seconds)

    def drop(self, reason: str) -> None:
        """Count a message that is not answered."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def dns_labels(kind: str, protocol: str, source: Workload) -> Labels:
    """Return the values of DNS_LABELS, in lower case as ztunnel has them.

    `kind` is the type asked for by its name, `protocol` udp or tcp, `source` the pod that asks.
    """
    kind = kind.lower()
    return (
        kind if kind in KINDS else OTHER,
        protocol,
        source.canonical_name or UNKNOWN,
        source.canonical_revision or UNKNOWN,
    )


def _count(rows: dict[Labels, int], labels: Labels) -> None:
    labels = _bounded(rows, labels)
    rows[labels] = rows.get(labels, 0) + 1


def _bounded(rows: Mapping[Labels, object], labels: Labels) -> Labels:
    if labels in rows or len(rows) < LIMIT:
        return labels
    return (*labels[:2], UNKNOWN, UNKNOWN)
