"""What is counted of a pod's DNS: by the kernel, by the daemon, and by the resolvers that were asked."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.nodes import Node, wait_for
from zproxy.steering import decoded

Key = tuple[str, str]
"""Type and protocol of a query."""
What = tuple[str, str, str]
"""Name, type and protocol."""
SETTLED_S = 1.0


@dataclass(frozen=True)
class Books:
    """What the kernel and the daemon have counted."""

    captured: int = 0
    """UDP queries, and UDP sockets that were connected: of the pod's `zp_podstat`."""
    requests: Counter[Key] = field(default_factory=Counter)
    upstream: Counter[Key] = field(default_factory=Counter)
    failures: Counter[Key] = field(default_factory=Counter)
    timed: int = 0
    """Answers of resolvers whose time was taken."""
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason."""

    def since(self, before: "Books") -> "Books":
        """Return what has come to it since."""
        return Books(
            self.captured - before.captured,
            self.requests - before.requests,
            self.upstream - before.upstream,
            self.failures - before.failures,
            self.timed - before.timed,
            self.dropped - before.dropped,
        )


def read(node: Node, pod: str) -> Books:
    """Return what is counted of a pod now, and by its daemon, which is to have no other pod with DNS."""
    text = node.client.call("metrics")
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call] # the library's
    samples = [sample for family in families for sample in family.samples]

    def by(name: str, *labels: str) -> list[tuple[tuple[str, ...], int]]:
        found = (sample for sample in samples if sample.name == name)
        return [(tuple(each.labels[label] for label in labels), int(each.value)) for each in found]

    def by_query(name: str) -> Counter[Key]:
        total: Counter[Key] = Counter()
        for (kind, protocol), value in by(name, "request_query_type", "request_protocol"):
            total[kind.upper(), protocol] += value  # ztunnel, and so we, write them small
        return total

    with decoded.opened(node.name) as maps:
        (row,) = (row for row in decoded.pods(maps) if row["pod"] == pod)
    return Books(
        row["counters"]["dns"],
        by_query("istio_dns_requests_total"),
        by_query("istio_dns_upstream_requests_total"),
        by_query("istio_dns_upstream_failures_total"),
        by_query("istio_dns_upstream_request_duration_seconds_count").total(),
        Counter({reason: value for (reason,), value in by("zproxy_dns_dropped_total", "reason")}),
    )


class Ledger:
    """What one test causes: made before it, and asked afterwards."""

    def __init__(self, look: Callable[[], Books], whats: Callable[[], dict[str, list[What]]]) -> None:
        self._look = look
        self._whats = whats
        self._before = look()

    def grown(self) -> Books:
        """Return what was counted since it was made."""
        return self._look().since(self._before)

    def shows(self, expected: Books) -> None:
        """Check all of it; the daemon may count a moment after its answer."""
        with suppress(AssertionError):
            wait_for(lambda: self.grown() == expected, "the books agree", SETTLED_S)
        grown = self.grown()
        assert grown == expected, f"{grown}, and not {expected}"

    def agrees(
        self, captured: int, requests: Mapping[Key, int], asked: Mapping[str, Sequence[What]] | None = None
    ) -> None:
        """Check it where nothing went wrong: of `requests`, `asked` is what each resolver got."""
        asked = {ip: sorted(whats) for ip, whats in (asked or {}).items()}
        upstream = Counter((kind, protocol) for whats in asked.values() for _, kind, protocol in whats)
        self.shows(Books(captured, Counter(requests), upstream, Counter(), upstream.total(), Counter()))
        whats = self._whats()
        assert whats == asked, f"{whats}, and not {asked}"
