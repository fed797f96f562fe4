"""Workloads."""

import dataclasses

import pytest

from tests.support.mesh import workload
from zproxy.model.identity import SpiffeId
from zproxy.model.workload import ServicePort, Status, Workload


def test_a_workload_knows_its_identity_and_pod() -> None:
    item = Workload(uid="u", name="client-1", namespace="demo", service_account="client", trust_domain="td")
    assert item.identity == SpiffeId("td", "demo", "client")
    assert item.pod == "demo/client-1"


def test_defaults_are_those_of_the_local_configuration() -> None:
    item = Workload(uid="u", name="n", namespace="ns")
    assert str(item.identity) == "spiffe://cluster.local/ns/ns/sa/default"
    assert (item.protocol.value, item.cluster_id, item.status, item.workload_type) == (
        "TCP",
        "Kubernetes",
        Status.HEALTHY,
        "pod",
    )


def test_a_workload_never_changes() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        workload("demo/a").name = "b"  # type: ignore[misc]  # that it is refused is the point


def test_the_first_service_behind_a_port_is_named() -> None:
    ports = (
        ServicePort("demo/metrics.example.com", 80, 9090),
        ServicePort("demo/one.example.com", 80, 8080),
        ServicePort("demo/two.example.com", 8080, 8080),
    )
    item = workload("demo/a", service_ports=ports)
    assert item.service_on(8080) == "demo/one.example.com"
    assert item.service_on(80) is None
