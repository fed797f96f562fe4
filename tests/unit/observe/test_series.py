"""Series: their labels, their bound, and what becomes of those of peers that are gone."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.support.mesh import workload
from zproxy.model.conn import Direction, Flag
from zproxy.model.workload import Locality
from zproxy.observe.series import (
    LABELS,
    Party,
    Series,
    SeriesTable,
    TunnelCounts,
    labels_of,
    with_flag,
    workload_key,
)

CLIENT = workload(
    "demo/client-1", "10.0.0.1", workload_name="client", canonical_name="shop", canonical_revision="v1"
)
SERVER = workload("demo/web-1", "10.0.0.2", locality=Locality("r1", "z1"), cluster_id="east")


def party(number: int = 0, direction: Direction = Direction.OUTBOUND) -> Party:
    other = workload(f"demo/p{number}", f"10.1.{number >> 8}.{number & 255}")
    return Party(direction, CLIENT, other, None, None, "")


def nobody() -> Iterable[Series]:
    return ()


def test_every_label_has_its_value_in_ztunnels_order() -> None:
    labels = labels_of(
        Party(
            Direction.OUTBOUND,
            CLIENT,
            SERVER,
            CLIENT.identity,
            SERVER.identity,
            "demo/web.demo.svc.cluster.local",
        )
    )
    assert list(zip(LABELS, labels, strict=True)) == [
        ("reporter", "source"),
        ("source_workload", "client"),
        ("source_canonical_service", "shop"),
        ("source_canonical_revision", "v1"),
        ("source_workload_namespace", "demo"),
        ("source_principal", "spiffe://cluster.local/ns/demo/sa/client-1"),
        ("source_app", "shop"),
        ("source_version", "v1"),
        ("source_cluster", "Kubernetes"),
        ("destination_service", "web.demo.svc.cluster.local"),
        ("destination_service_namespace", "demo"),
        ("destination_service_name", "web"),
        ("destination_workload", "web-1"),
        ("destination_canonical_service", "unknown"),
        ("destination_canonical_revision", "unknown"),
        ("destination_workload_namespace", "demo"),
        ("destination_principal", "spiffe://cluster.local/ns/demo/sa/web-1"),
        ("destination_app", "unknown"),
        ("destination_version", "unknown"),
        ("destination_cluster", "east"),
        ("request_protocol", "tcp"),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
        ("source_region", "unknown"),
        ("source_zone", "unknown"),
        ("destination_region", "r1"),
        ("destination_zone", "z1"),
    ]


def test_a_plain_hop_is_of_unknown_security_and_nobody_is_unknown() -> None:
    labels = dict(zip(LABELS, labels_of(Party(Direction.INBOUND, None, SERVER, None, None, "")), strict=True))
    assert (labels["reporter"], labels["connection_security_policy"]) == ("destination", "unknown")
    assert {value for label, value in labels.items() if label.startswith("source_")} == {"unknown"}


def test_a_flag_changes_its_label_and_no_other() -> None:
    labels = labels_of(party())
    flagged = with_flag(labels, Flag.DENY)
    changed = [name for name, old, new in zip(LABELS, labels, flagged, strict=True) if old != new]
    assert changed == ["response_flags"]


def test_pods_of_one_deployment_share_a_series() -> None:
    table = SeriesTable(8)
    other = workload("demo/client-2", "10.0.0.9", service_account="client-1", workload_name="client",
                     canonical_name="shop", canonical_revision="v1")  # fmt: skip
    one = table.of(Party(Direction.OUTBOUND, CLIENT, SERVER, None, None, ""), nobody)
    assert table.of(Party(Direction.OUTBOUND, other, SERVER, None, None, ""), nobody) is one


def test_idle_series_make_room_and_are_not_used_again() -> None:
    table = SeriesTable(3)
    used, *idle = [table.of(party(number), nobody) for number in range(3)]
    fresh = table.of(party(3), lambda: [used])
    assert [series.is_retired for series in (used, *idle, fresh)] == [False, True, True, False]
    assert len(table) == 2
    assert table.of(party(1), nobody) is not idle[0]


@pytest.mark.parametrize("direction", list(Direction))
def test_beyond_the_bound_everybody_is_counted_together(direction: Direction) -> None:
    table = SeriesTable(2)
    busy = [table.of(party(number, direction), nobody) for number in range(2)]
    rest = [table.of(party(number, direction), lambda: busy) for number in range(2, 50)]
    assert set(rest) == {table.overflow[direction]}
    assert len(table) == 2
    assert set(rest[0].labels) == {
        "source" if direction is Direction.OUTBOUND else "destination",
        "tcp",
        "-",
        "unknown",
    }


def test_series_of_workloads_that_are_gone_go_unless_somebody_uses_them() -> None:
    table = SeriesTable(8)
    kept, used, gone = (table.of(party(number), nobody) for number in range(3))
    there = {workload_key(CLIENT), workload_key(party(0).destination), workload_key(None)}
    table.retire(lambda keys: not there.issuperset(keys), [used])
    assert [series.is_retired for series in (kept, used, gone)] == [False, False, True]


@pytest.mark.parametrize(
    ("end", "figures"),
    [
        (lambda counts: counts.end("", was_open=True), (1, {})),
        (lambda counts: counts.end("TUNNEL_CLOSED", was_open=True), (1, {})),
        (
            lambda counts: counts.end("H2_HANDSHAKE_FAILURE", was_open=True),
            (1, {Flag.H2_HANDSHAKE_FAILURE: 1}),
        ),
        (lambda counts: counts.end("TLS_FAILURE", was_open=False), (0, {Flag.TLS_FAILURE: 1})),
        (lambda counts: counts.end("NETWORK_POLICY", was_open=False), (0, {Flag.NETWORK_POLICY: 1})),
        (lambda counts: counts.end("", was_open=False), (0, {})),
    ],
)
def test_a_tunnel_that_never_opened_failed(end: Callable[[TunnelCounts], Any], figures: Any) -> None:
    counts = TunnelCounts()
    end(counts)
    assert (counts.closed, counts.failed) == figures
