"""Which pods are enrolled at their birth: those that the mesh has with HBONE on this node."""

from typing import Any

import pytest

from tests.support.mesh import mesh, workload
from zproxy.model.workload import NetworkMode, Protocol
from zproxy.node.wish import Wish, wish

IPS = ("10.1.0.5", "fd00::5")


def decided(ips: tuple[str, ...] = (), **fields: Any) -> Wish:
    known = workload("demo/client", *IPS, **({"node": "node-a"} | fields))
    return wish(mesh(known), "node-a", "demo/client", ips)


def test_hbone_on_this_node_is_wanted() -> None:
    assert decided() == decided(IPS) == Wish(True, "demo/client has protocol HBONE in the mesh")


def test_more_addresses_than_the_mesh_has_are_fine() -> None:
    assert decided((*IPS, "10.9.9.9")) == decided()


@pytest.mark.parametrize("ips", [("10.1.0.6",), ("10.1.0.5",)])
def test_other_addresses_are_an_earlier_pods(ips: tuple[str, ...]) -> None:
    assert decided(ips) == Wish(True, "the mesh has demo/client under other addresses", is_early=True)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"protocol": Protocol.TCP}, "demo/client has protocol TCP in the mesh"),
        ({"network_mode": NetworkMode.HOST_NETWORK}, "demo/client is on its node's network"),
    ],
)
def test_what_the_mesh_does_not_want_is_left_alone(fields: dict[str, Any], reason: str) -> None:
    assert decided(**fields) == Wish(False, reason)


@pytest.mark.parametrize(("node", "where"), [("node-b", "node-b"), ("", "no node")])
def test_one_on_another_node_may_have_moved(node: str, where: str) -> None:
    reason = f"the mesh has demo/client on {where}, not on node-a"
    assert decided(node=node) == Wish(False, reason, is_early=True)


def test_one_that_the_mesh_does_not_know_may_come() -> None:
    assert wish(mesh(), "node-a", "demo/x") == Wish(False, "the mesh has no workload demo/x", is_early=True)
