"""Counters per series: one for everybody whose labels are the same, and a bound on how many there are.

A connection costs a few integer additions, at its end. What is open is counted when somebody asks, from the
records themselves, so a counter and `zproxy connections` cannot disagree.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from zproxy.model.conn import Direction, Flag, flag_of
from zproxy.model.identity import SpiffeId
from zproxy.model.workload import NOWHERE, Workload

UNKNOWN: Final = "unknown"
LABELS: Final = (
    *("reporter", "source_workload", "source_canonical_service", "source_canonical_revision"),
    *("source_workload_namespace", "source_principal", "source_app", "source_version", "source_cluster"),
    *("destination_service", "destination_service_namespace", "destination_service_name"),
    *("destination_workload", "destination_canonical_service", "destination_canonical_revision"),
    *("destination_workload_namespace", "destination_principal", "destination_app", "destination_version"),
    *("destination_cluster", "request_protocol", "response_flags", "connection_security_policy"),
    *("source_region", "source_zone", "destination_region", "destination_zone"),
)
"""Istio's labels of TCP metrics, in ztunnel's order."""
SOURCE_AT: Final = LABELS.index("source_workload")
DESTINATION_AT: Final = LABELS.index("destination_workload")
FLAGS_AT: Final = LABELS.index("response_flags")
REPORTERS: Final = {Direction.OUTBOUND: "source", Direction.INBOUND: "destination"}

Labels = tuple[str, ...]
Key = tuple[str, str]
"""Namespace and name that labels give a workload; pods of one deployment share them."""


class Party(NamedTuple):
    """What labels are made of; made once per pair of peers, never per connection."""

    direction: Direction
    source: Workload | None
    destination: Workload | None
    source_identity: SpiffeId | None
    destination_identity: SpiffeId | None
    service: str
    """`namespace/hostname` of the destination's service, empty when it has none on that port."""


class Series:
    """Counts of ended connections; `request` bytes go from client to server whoever reports, as in Istio."""

    __slots__ = ("closed", "failed", "is_retired", "labels", "request_bytes", "response_bytes")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.closed = self.request_bytes = self.response_bytes = 0
        self.failed: dict[Flag, int] = {}
        self.is_retired = False
        """Not shown any more: whoever holds it asks the table for another."""

    def fail(self, reason: str) -> None:
        """Count a connection that ended with an error."""
        flag = flag_of(reason)
        self.failed[flag] = self.failed.get(flag, 0) + 1


class SeriesTable:
    """Holds at most `limit` series, and one more for everybody beyond them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._series: dict[Labels, Series] = {}
        self.overflow = {direction: Series(_overflow_labels(direction)) for direction in Direction}
        """Where the rest is counted, so that sums stay right: every label is unknown but the reporter."""

    def of(self, party: Party, in_use: Callable[[], Iterable[Series]]) -> Series:
        """Return the series of `party`; make room among those that nobody uses when there is none."""
        labels = labels_of(party)
        found = self._series.get(labels)
        if found is None:
            if len(self._series) >= self._limit:
                self.retire(lambda _: True, in_use())
            if len(self._series) >= self._limit:
                return self.overflow[party.direction]
            found = self._series[labels] = Series(labels)
        return found

    def retire(self, is_gone: Callable[[tuple[Key, Key]], bool], in_use: Iterable[Series]) -> None:
        """Drop the series whose workloads are gone and that no open connection uses."""
        used = set(in_use)
        for series in [s for s in self._series.values() if s not in used and is_gone(_keys_of(s.labels))]:
            series.is_retired = True
            del self._series[series.labels]

    def all(self) -> list[Series]:
        """Return every series."""
        return [*self._series.values(), *self.overflow.values()]

    def __len__(self) -> int:
        return len(self._series)


class TunnelCounts:
    """What became of one role's tunnels."""

    __slots__ = ("closed", "failed", "opened")

    def __init__(self) -> None:
        self.opened = self.closed = 0
        """Tunnels whose TLS came up and whose peer was accepted."""
        self.failed: dict[Flag, int] = {}
        """Those that a handshake ended before they carried a stream, and those whose peer broke HTTP/2."""

    def end(self, reason: str, *, was_open: bool) -> None:
        """Count the end of a tunnel; `reason` is empty when it ended as it should."""
        self.closed += was_open
        flag = flag_of(reason)
        if flag is Flag.H2_HANDSHAKE_FAILURE or (reason and not was_open):
            self.failed[flag] = self.failed.get(flag, 0) + 1


def labels_of(party: Party) -> Labels:
    """Return the values of LABELS; what is not known is `unknown`."""
    is_mtls = party.source_identity is not None and party.destination_identity is not None
    here, there = (w.locality if w is not None else NOWHERE for w in (party.source, party.destination))
    namespace, _, host = party.service.partition("/")
    values = (
        REPORTERS[party.direction],
        *workload_labels(party.source, party.source_identity),
        *(host, namespace, host.partition(".")[0]),
        *workload_labels(party.destination, party.destination_identity),
        *("tcp", Flag.NONE.value, "mutual_tls" if is_mtls else ""),
        *(here.region, here.zone, there.region, there.zone),
    )
    return tuple(value or UNKNOWN for value in values)


def workload_key(workload: Workload | None) -> Key:
    """Return what `SeriesTable.retire` knows a workload by."""
    return (UNKNOWN, UNKNOWN) if workload is None else (workload.namespace, _name(workload))


def _keys_of(labels: Labels) -> tuple[Key, Key]:
    namespaces = labels[SOURCE_AT + 3], labels[DESTINATION_AT + 3]
    return (namespaces[0], labels[SOURCE_AT]), (namespaces[1], labels[DESTINATION_AT])


def _name(workload: Workload) -> str:
    """Return the name of what made the pod; a pod that nothing made stands for itself."""
    return workload.workload_name or workload.name


def with_flag(labels: Labels, flag: Flag) -> Labels:
    """Return the labels of the same peers with another flag."""
    return (*labels[:FLAGS_AT], flag.value, *labels[FLAGS_AT + 1 :])


def workload_labels(workload: Workload | None, identity: SpiffeId | None) -> Labels:
    """Return name, canonical service and revision, namespace, principal, app, version and cluster."""
    principal = "" if identity is None else str(identity)
    if workload is None:
        return ("", "", "", "", principal, "", "", "")
    service, revision = workload.canonical_name, workload.canonical_revision
    return (
        *(_name(workload), service, revision, workload.namespace, principal),
        *(service, revision, workload.cluster_id),
    )


def _overflow_labels(direction: Direction) -> Labels:
    return labels_of(Party(direction, None, None, None, None, ""))
