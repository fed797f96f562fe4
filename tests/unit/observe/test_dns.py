"""DNS in numbers: ztunnel's families, bounded, and summed over workers."""

from collections.abc import Callable

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.mesh import workload
from tests.support.plane import Lines
from zproxy.observe.connections import Connections
from zproxy.observe.dns import BUCKETS, DNS_LABELS, KINDS, LIMIT, DnsCounts, Durations, dns_labels
from zproxy.observe.metrics import Family, families, merge, render

CLIENT = workload("demo/client", canonical_name="client", canonical_revision="v1")
ASKED = dns_labels("AAAA", "udp", CLIENT)
DURATION = "istio_dns_upstream_request_duration_seconds"


def shown(*workers: Connections) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return labels and value of each DNS sample by its name, read back by a parser that is not ours."""
    text = render(merge([families(each) for each in workers]))
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call] # the library's
        for sample in family.samples:
            if "_dns_" in sample.name:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def worker() -> Connections:
    return Connections(Lines(), 4, 4)


def test_labels_are_ztunnels() -> None:
    assert dict(zip(DNS_LABELS, ASKED, strict=True)) == {
        "request_query_type": "aaaa",
        "request_protocol": "udp",
        "source_canonical_service": "client",
        "source_canonical_revision": "v1",
    }


def test_what_a_pod_does_not_say_is_unknown() -> None:
    assert dns_labels("a", "tcp", workload("demo/client")) == ("a", "tcp", "unknown", "unknown")


@pytest.mark.parametrize("kind", ["TYPE65000", "AXFR", "", "\n", "unknown"])
def test_rare_types_share_their_labels(kind: str) -> None:
    assert dns_labels(kind, "udp", CLIENT)[0] == "other"


def test_every_known_type_has_labels_of_its_own() -> None:
    assert {dns_labels(kind.upper(), "udp", CLIENT)[0] for kind in KINDS} == KINDS


def test_every_family_is_shown_with_its_labels() -> None:
    one = worker()
    counts = one.totals.dns
    for _ in range(3):
        counts.asked(ASKED)
    for _ in range(2):
        counts.forwarded(ASKED)
    counts.failed(ASKED)
    counts.took(ASKED, 0.02)
    counts.drop("loop")
    labels = dict(zip(DNS_LABELS, ASKED, strict=True))
    found = shown(one)
    assert found["istio_dns_requests_total"] == [(labels, 3)]
    assert found["istio_dns_upstream_requests_total"] == [(labels, 2)]
    assert found["istio_dns_upstream_failures_total"] == [(labels, 1)]
    assert found["zproxy_dns_dropped_total"] == [({"reason": "loop"}, 1)]
    assert found[f"{DURATION}_count"] == [(labels, 1)]
    assert found[f"{DURATION}_sum"] == [(labels, 0.02)]


def test_nothing_is_shown_of_what_never_happened() -> None:
    assert shown(worker()) == {}


def test_buckets_hold_what_took_as_long_or_less() -> None:
    one = worker()
    for seconds in (0.0, 0.0005, 0.0006, 0.5, 5.0, 5.1, 60.0):
        one.totals.dns.took(ASKED, seconds)
    found = shown(one)
    assert [(labels["le"], count) for labels, count in found[f"{DURATION}_bucket"]] == [
        *(("0.0005", 2), ("0.001", 3), ("0.01", 3), ("0.1", 3), ("1.0", 4), ("5.0", 5), ("+Inf", 7)),
    ]
    assert found[f"{DURATION}_count"][0][1] == 7
    assert found[f"{DURATION}_sum"][0][1] == pytest.approx(70.6011)


def test_histograms_of_workers_are_summed_by_their_labels() -> None:
    workers = [worker(), worker(), worker()]
    for each in workers[:2]:
        each.totals.dns.took(ASKED, 0.02)
        each.totals.dns.asked(ASKED)
    workers[1].totals.dns.took(dns_labels("a", "tcp", CLIENT), 3.0)
    found = shown(*workers)
    assert [(labels["request_query_type"], count) for labels, count in found[f"{DURATION}_count"]] == [
        ("aaaa", 2), ("a", 1),
    ]  # fmt: skip
    assert [value for _, value in found[f"{DURATION}_sum"]] == [0.04, 3.0]
    assert [value for _, value in found["istio_dns_requests_total"]] == [2]


def test_merging_leaves_what_it_was_given_as_it_was() -> None:
    parts = [[Family("one", "help", (), [], durations=(((), spread(1.0)),))] for _ in range(2)]
    assert merge(parts) == merge(parts)
    assert parts[0][0].durations == (((), spread(1.0)),)


def test_figures_that_were_taken_change_no_more() -> None:
    one = worker()
    one.totals.dns.took(ASKED, 1.0)
    (before,) = [each for each in families(one) if each.durations]
    one.totals.dns.took(ASKED, 1.0)
    assert before.durations == ((ASKED, spread(1.0)),)


def spread(*seconds: float) -> Durations:
    made = Durations()
    for each in seconds:
        made.add(each)
    return made


def test_adding_histograms_changes_neither() -> None:
    one, other = spread(0.02), spread(0.02, 9.0)
    assert one + other == spread(0.02, 0.02, 9.0)
    assert (one, other) == (spread(0.02), spread(0.02, 9.0))
    assert len(one.counts) == len(BUCKETS) + 1


@pytest.mark.parametrize(
    ("count", "rows"),
    [
        (DnsCounts.asked, lambda counts: counts.requests),
        (DnsCounts.forwarded, lambda counts: counts.upstream_requests),
        (DnsCounts.failed, lambda counts: counts.upstream_failures),
        (
            lambda counts, labels: counts.took(labels, 1.0),
            lambda counts: {labels: sum(each.counts) for labels, each in counts.durations.items()},
        ),
    ],
    ids=["asked", "forwarded", "failed", "took"],
)
def test_label_sets_are_bounded(
    count: Callable[[DnsCounts, tuple[str, ...]], None], rows: Callable[[DnsCounts], dict[object, int]]
) -> None:
    counts = DnsCounts()
    for number in range(LIMIT + 5):
        count(counts, ("a", "udp", f"service-{number}", "v1"))
    count(counts, ("a", "udp", "service-0", "v1"))
    found = rows(counts)
    assert len(found) == LIMIT + 1
    assert found["a", "udp", "unknown", "unknown"] == 5
    assert found["a", "udp", "service-0", "v1"] == 2
