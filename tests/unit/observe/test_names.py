"""Who asked for which host name, in ztunnel's words."""

from tests.support.mesh import workload
from tests.support.plane import Lines
from zproxy.observe.connections import Connections
from zproxy.observe.metrics import families
from zproxy.observe.names import LIMIT, NAME_LABELS, NameCounts

CLIENT = workload("demo/client", canonical_name="client", canonical_revision="v1", workload_name="client")


def test_each_connection_is_counted_with_ztunnels_labels() -> None:
    connections = Connections(Lines(), 4, 4)
    for _ in range(2):
        connections.totals.names.count(CLIENT, CLIENT.identity, "db.example.com")
    (family,) = [each for each in families(connections) if each.name == "istio_on_demand_dns"]
    ((labels, count),) = family.rows
    assert count == 2
    assert dict(zip(family.labels, labels, strict=True)) == {
        "source_workload": "client",
        "source_canonical_service": "client",
        "source_canonical_revision": "v1",
        "source_workload_namespace": "demo",
        "source_principal": "spiffe://cluster.local/ns/demo/sa/client",
        "source_app": "client",
        "source_version": "v1",
        "source_cluster": "Kubernetes",
        "hostname": "db.example.com",
    }


def test_label_sets_are_bounded() -> None:
    counts = NameCounts()
    for number in range(LIMIT + 5):
        counts.count(CLIENT, CLIENT.identity, f"n{number}")
    assert len(counts.rows) == LIMIT + 1
    assert counts.rows[("unknown",) * len(NAME_LABELS)] == 5
