"""What the control socket shows: rows with stable keys, from the records that the data plane keeps."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.mesh import mesh, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from tests.support.wallclock import WallClock
from zproxy import __version__
from zproxy.identity.ca import LocalCa
from zproxy.identity.manager import CertificateManager
from zproxy.model.workload import Protocol
from zproxy.node.views import Views

CLIENT = "spiffe://cluster.local/ns/demo/sa/client"
SERVER = "spiffe://cluster.local/ns/demo/sa/server"


class Stage:
    """Views of a data plane whose pods are `enrolled`."""

    def __init__(self, plane: Plane, directory: Path) -> None:
        self.clock = WallClock(datetime.now(UTC))
        self.certificates = CertificateManager(LocalCa.open(directory, self.clock), self.clock)
        self.enrolled: dict[str, Any] = {}
        self.mesh = plane.mesh
        manager: Any = SimpleNamespace(
            pods=self.enrolled, rows=lambda: [{"pod": name} for name in self.enrolled]
        )
        self.views = Views(
            "node-a", plane.worker, manager, plane.connections, self.certificates, lambda: self.mesh
        )

    def enroll(self, name: str, *tunnels: Any) -> None:
        self.enrolled[name] = SimpleNamespace(name=name, straw=SimpleNamespace(tunnels=lambda: iter(tunnels)))


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


@pytest.fixture
def stage(plane: Plane, tmp_path: Path) -> Stage:
    return Stage(plane, tmp_path / "ca")


def test_every_command_of_the_cli_is_there_and_prints_as_json(stage: Stage) -> None:
    stage.enroll("demo/client")
    commands = stage.views.commands()
    assert list(commands) == ["status", "pods", "workloads", "certs", "connections", "tunnels"]
    for command in commands.values():
        assert json.loads(json.dumps(command())) == command()
    assert commands["pods"]() == [{"pod": "demo/client"}]


def test_status_counts_what_was_and_what_is(plane: Plane, stage: Stage) -> None:
    stage.enroll("demo/client")
    near, far = plane.pair()
    near.sendall(b"12345")
    assert plane.receive(far, 5) == b"12345"
    status = stage.views.status()
    assert (status["node"], status["version"], status["pid"]) == ("node-a", __version__, os.getpid())
    assert (status["pods"], status["connections_open"], status["connections_opened_total"]) == (1, 2, 2)
    assert (status["connections_closed_total"], status["bytes_sent_total"]) == (0, 0)
    near.close()
    far.close()
    plane.ended(2)
    status = stage.views.status()
    assert (status["connections_open"], status["connections_closed_total"]) == (0, 2)
    assert status["connections_failed_by_reason"] == {}
    assert (status["connections_failed_total"], status["bytes_sent_total"], status["bytes_recv_total"]) == (
        0,
        5,
        5,
    )


def test_workloads_are_all_of_the_mesh_sorted_with_those_enrolled_here(stage: Stage) -> None:
    stage.mesh = mesh(
        workload("demo/server", "10.0.0.2", "fd00::2", node="node-b"),
        workload("demo/client", "10.0.0.1", node="node-a"),
        workload("aaa/plain", "10.0.0.3", protocol=Protocol.TCP, status="Unhealthy"),
    )
    stage.enroll("demo/client")
    rows = stage.views.workloads()
    assert [(row["namespace"], row["name"]) for row in rows] == [
        ("aaa", "plain"),
        ("demo", "client"),
        ("demo", "server"),
    ]
    assert rows[1] == {
        "namespace": "demo",
        "name": "client",
        "address": ["10.0.0.1"],
        "node": "node-a",
        "protocol": "HBONE",
        "identity": CLIENT,
        "uid": "Kubernetes//Pod/demo/client",
        "status": "Healthy",
        "enrolled": True,
    }
    assert (rows[0]["protocol"], rows[0]["status"], rows[0]["enrolled"]) == ("TCP", "Unhealthy", False)
    assert rows[2]["address"] == ["10.0.0.2", "fd00::2"]


def test_certificates_have_their_dates_in_utc_and_none_before_the_first(stage: Stage) -> None:
    assert stage.views.certs() == []
    source = stage.certificates.source(stage.mesh.workloads[0].identity)
    leaf, root = stage.views.certs()
    assert (leaf["status"], leaf["valid"], leaf["not_after"], leaf["serial"]) == (
        "Initializing",
        False,
        "",
        "",
    )
    certificate = source.current()
    leaf, root = stage.views.certs()
    assert leaf == {
        "identity": CLIENT,
        "type": "Leaf",
        "status": "Available",
        "valid": True,
        "serial": f"{certificate.serial:x}",
        "not_after": certificate.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "not_before": certificate.not_before.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    assert (root["type"], root["valid"]) == ("Root", True)
    stage.clock.advance(timedelta(days=2))
    assert (stage.views.certs()[0]["valid"], stage.views.certs()[0]["status"]) == (
        False,
        "Unavailable: expired",
    )


def test_no_key_is_ever_shown(stage: Stage) -> None:
    source = stage.certificates.source(stage.mesh.workloads[0].identity)
    assert b"PRIVATE KEY" in source.current().credentials.private_key
    assert "PRIVATE" not in json.dumps([stage.views.certs(), stage.views.status()])


def test_a_connection_is_shown_by_both_its_pods(plane: Plane, stage: Stage) -> None:
    near, far = plane.pair(8080)
    near.sendall(b"abc")
    assert plane.receive(far, 3) == b"abc"
    rows = {row["direction"]: row for row in stage.views.connections()}
    assert set(rows) == {"outbound", "inbound"}
    assert (rows["outbound"]["pod"], rows["inbound"]["pod"]) == ("demo/client", "demo/server")
    for row in rows.values():
        assert (row["state"], row["error"], row["hbone_addr"]) == ("open", "", f"{SERVER_IP}:8080")
        assert (row["src_identity"], row["dst_identity"]) == (CLIENT, SERVER)
    assert (rows["outbound"]["bytes_sent"], rows["inbound"]["bytes_recv"]) == (3, 3)


def test_a_tunnel_is_shown_by_both_its_pods(plane: Plane, stage: Stage) -> None:
    near, far = plane.pair()
    near.sendall(b"abc")
    assert plane.receive(far, 3) == b"abc"
    stage.enroll("demo/client", *plane.client.pool.tunnels())
    stage.enroll("demo/server", *plane.server.tunnels)
    client, server = stage.views.tunnels()
    assert (client["pod"], client["role"], server["pod"], server["role"]) == (
        "demo/client",
        "client",
        "demo/server",
        "server",
    )
    assert (client["local"], client["remote"]) == (server["remote"], f"{SERVER_IP}:15008")
    assert client["local"].startswith(f"{CLIENT_IP}:")
    for row in (client, server):
        assert (row["src_identity"], row["dst_identity"]) == (CLIENT, SERVER)
        assert (row["state"], row["streams"], row["streams_total"], row["alpn"]) == ("open", 1, 1, "h2")
        assert row["tls"].startswith("TLS")
        assert 0 <= row["age_s"] < 60
        assert row["bytes_sent"] > 100
    assert client["bytes_recv"] <= server["bytes_sent"]
