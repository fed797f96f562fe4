"""The mesh snapshot: lookups, and no duplicates."""

import dataclasses

import pytest

from tests.support.mesh import mesh, workload
from zproxy.model.workload import Workload
from zproxy.state.store import DuplicateWorkloadError, Mesh

CLIENT = workload("demo/client", "10.244.1.5", "fd00:244:1::5")
SERVER = workload("demo/server", "10.244.2.5")


def test_a_workload_is_found_by_each_of_its_addresses() -> None:
    known = mesh(CLIENT, SERVER)
    assert known.by_ip("10.244.1.5") is CLIENT
    assert known.by_ip("fd00:244:1::5") is CLIENT
    assert known.by_ip("10.244.2.5") is SERVER
    assert known.by_ip("10.244.2.6") is None


def test_a_workload_is_found_by_pod_name() -> None:
    known = mesh(CLIENT, SERVER)
    assert known.by_pod("demo/server") is SERVER
    assert known.by_pod("other/server") is None


def test_workloads_keep_their_order() -> None:
    assert mesh(SERVER, CLIENT).workloads == (SERVER, CLIENT)


def test_an_empty_mesh_knows_nobody() -> None:
    assert Mesh.of([]).by_ip("10.0.0.1") is None


def test_one_address_may_exist_on_two_networks() -> None:
    here, there = (workload(f"demo/{n}", "10.0.0.1", network=n) for n in ("net1", "net2"))
    known = mesh(here, there)
    assert known.by_ip("10.0.0.1", "net1") is here
    assert known.by_ip("10.0.0.1", "net2") is there
    assert known.by_ip("10.0.0.1") is None


@pytest.mark.parametrize(
    ("second", "field", "value"),
    [
        (workload("demo/other", "10.9.9.9", uid=CLIENT.uid), "uid", CLIENT.uid),
        (workload("demo/client", "10.9.9.9", uid="another"), "name", "demo/client"),
        (workload("demo/other", "10.9.9.9", "fd00:244:1::5"), "workload_ips", "fd00:244:1::5"),
    ],
    ids=["uid", "pod name", "address"],
)
def test_duplicates_are_refused_with_their_positions(second: Workload, field: str, value: str) -> None:
    with pytest.raises(DuplicateWorkloadError) as caught:
        Mesh.of([SERVER, CLIENT, second])
    error = caught.value
    assert (error.earlier, error.index, error.field, error.value) == (1, 2, field, value)
    assert value in str(error)


def test_a_snapshot_never_changes() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        mesh(CLIENT).workloads = ()  # type: ignore[misc]  # that it is refused is the point


def test_repr_is_short() -> None:
    assert repr(mesh(CLIENT, SERVER)) == "Mesh(2 workloads)"
