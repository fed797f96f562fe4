"""`zproxy workloads`: one mesh, as all daemons of this machine see it."""

import json
from collections.abc import Callable
from typing import Any

from click.testing import Result

from tests.cli.conftest import StartDaemons


def row(name: str, *, enrolled: bool) -> dict[str, Any]:
    return {
        "namespace": "demo",
        "name": name,
        "address": ["10.244.1.5"],
        "node": "node-a",
        "waypoint": "waypoint",
        "protocol": "HBONE",
        "identity": f"spiffe://cluster.local/ns/demo/sa/{name}",
        "uid": f"uid-{name}",
        "status": "Healthy",
        "enrolled": enrolled,
    }


def test_a_workload_that_several_daemons_know_is_listed_once(
    start: StartDaemons, zp: Callable[..., Result]
) -> None:
    start(
        node_a={"workloads": [row("client", enrolled=True), row("server", enrolled=False)]},
        node_b={"workloads": [row("client", enrolled=False), row("server", enrolled=True)]},
    )
    rows = json.loads(zp("workloads", "-o", "json").stdout)
    assert [(each["name"], each["enrolled"]) for each in rows] == [("client", True), ("server", True)]


def test_a_workload_of_no_daemon_here_is_not_enrolled(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"workloads": [row("far", enrolled=False)]})
    header, line = zp("workloads").stdout.splitlines()
    assert header.split()[-1] == "ENROLLED"
    assert line.split() == ["demo", "far", "10.244.1.5", "node-a", "waypoint", "HBONE", "no"]


def test_an_empty_mesh_is_a_sentence(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"workloads": []})
    assert zp("workloads").stderr == "The mesh has no workloads.\n"
