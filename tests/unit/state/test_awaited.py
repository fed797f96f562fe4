"""What stands for a record that is still to come, and which record is the one."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.mesh import mesh, workload
from zproxy.model.workload import Protocol, Workload
from zproxy.state.awaited import awaited, record_of

GIVEN = Workload("uid-0", "client", "demo", "client", node="node-a", protocol=Protocol.HBONE)
IPS = ("10.0.0.1", "fd00::1")


def record(**fields: Any) -> Workload:
    return replace(workload("demo/client", "10.0.0.1", node="node-a"), **fields)


def test_it_is_what_was_told_with_the_addresses_that_were_found() -> None:
    made = awaited(GIVEN, IPS, mesh())
    assert made == replace(GIVEN, workload_ips=IPS, is_awaited=True)
    assert record_of(mesh(), made) is None


def test_the_record_is_found_when_it_comes() -> None:
    found = record()
    assert record_of(mesh(found), awaited(GIVEN, IPS, mesh())) is found


def test_one_that_peers_reach_in_the_clear_is_the_record_too() -> None:
    """istiod says HBONE once istio-cni has marked the pod, and so after it was handed over."""
    found = record(protocol=Protocol.TCP)
    assert record_of(mesh(found), awaited(GIVEN, IPS, mesh())) is found


@pytest.mark.parametrize(
    "fields",
    [
        {"workload_ips": ("10.0.0.9",)},
        {"workload_ips": ()},
        {"service_account": "other"},
        {"node": "node-b"},
        {"trust_domain": "elsewhere"},
    ],
)
def test_the_record_of_somebody_else_is_not_the_one(fields: dict[str, Any]) -> None:
    assert record_of(mesh(record(**fields)), awaited(GIVEN, IPS, mesh())) is None


def test_the_trust_domain_is_that_of_the_record_where_there_is_one() -> None:
    there = mesh(record(trust_domain="corp.example"))
    made = awaited(GIVEN, IPS, there)
    assert made.trust_domain == "corp.example"
    assert record_of(there, made) is not None


def test_the_trust_domain_of_somebody_else_is_not_taken() -> None:
    there = mesh(record(trust_domain="corp.example", service_account="other"))
    assert awaited(GIVEN, IPS, there).trust_domain == "cluster.local"
