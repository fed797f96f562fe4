"""What the control socket shows: rows with stable keys, from the records that the data plane keeps."""

import asyncio
import inspect
import itertools
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.inline import InlineDriver
from tests.support.mesh import mesh, service
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from tests.support.wallclock import WallClock
from zproxy import __version__
from zproxy.identity.ca import LocalCa
from zproxy.identity.manager import CertificateManager
from zproxy.model.addr import Endpoint
from zproxy.model.attach import Attach, ProbeMode
from zproxy.model.conn import Direction
from zproxy.model.policy import Authorization
from zproxy.node.pressure import Pressure
from zproxy.node.views import Views
from zproxy.node.workers import PlacedStraw, PodWorker
from zproxy.observe.connections import Connections
from zproxy.state.store import Mesh
from zproxy.steering.kubelet import ProbeChoice

CLIENT = "spiffe://cluster.local/ns/demo/sa/client"
SERVER = "spiffe://cluster.local/ns/demo/sa/server"
SRC, DST = Endpoint("10.0.0.1", 1000), Endpoint("10.0.0.2", 80)


class Stage:
    """Views of a data plane whose pods are `enrolled`."""

    def __init__(self, plane: Plane, directory: Path) -> None:
        self.clock = WallClock(datetime.now(UTC))
        self.certificates = CertificateManager(LocalCa.open(directory, self.clock), self.clock)
        self.enrolled: dict[str, Any] = {}
        self.mesh = plane.mesh
        self.behind: dict[str, str] = {}
        manager: Any = SimpleNamespace(
            node="node-a", pods=self.enrolled, rows=lambda: [{"pod": name} for name in self.enrolled]
        )
        self._straws = {"demo/client": plane.client_straw, "demo/server": plane.server_straw}
        self.other = Connections(plane.lines, 64, 64, itertools.count(100))
        """Those of the second worker, numbered so that they come later."""
        self.workers = [
            self._worker(0, plane, plane.connections),
            self._worker(1, plane, self.other),
        ]
        steering: Any = SimpleNamespace(
            is_external=False,
            attach_mode=Attach.BOTH,
            probes=ProbeChoice(ProbeMode.CGROUP, "it was given", Path("/sys/kubelet")),
        )
        current: Any = Now(self)
        self.views = Views(self.workers, manager, self.certificates, current, Pressure(), steering)

    def _worker(self, number: int, plane: Plane, connections: Connections) -> PodWorker:
        unused: Any = None
        return PodWorker(InlineDriver(number, plane.worker), connections, unused)

    def enroll(self, name: str, worker: int = 0) -> None:
        straw = PlacedStraw(self.workers[worker], self._straws[name])
        self.enrolled[name] = SimpleNamespace(name=name, straw=straw)


class Now:
    """Stands for a CurrentMesh: whatever the stage has."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __call__(self) -> Mesh:
        return self._stage.mesh

    @property
    def behind(self) -> dict[str, str]:
        return self._stage.behind


def answer(command: Callable[[], Any]) -> Any:
    """Return what a command answers, as the control socket gets it."""
    result = command()
    if not inspect.iscoroutine(result):
        return result

    async def wait() -> Any:
        return await result

    return asyncio.run(wait())


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
    assert list(commands) == [
        *(
            "status",
            "pods",
            "workloads",
            "services",
            "policies",
            "endpoints",
            "certs",
            "connections",
            "tunnels",
        )
    ]
    for command in commands.values():
        assert json.loads(json.dumps(answer(command))) == answer(command)
    assert commands["pods"]() == [{"pod": "demo/client"}]


def test_status_counts_what_was_and_what_is(plane: Plane, stage: Stage) -> None:
    stage.enroll("demo/client")
    near, far = plane.pair()
    near.sendall(b"12345")
    assert plane.receive(far, 5) == b"12345"
    status = answer(stage.views.status)
    assert (status["node"], status["version"], status["pid"]) == ("node-a", __version__, os.getpid())
    assert (status["pods"], status["connections_open"], status["connections_opened_total"]) == (1, 2, 2)
    assert (status["connections_closed_total"], status["bytes_sent_total"]) == (0, 0)
    near.close()
    far.close()
    plane.ended(2)
    status = answer(stage.views.status)
    assert (status["attach"], status["probe_mode"]) == ("both", "cgroup")
    assert (status["kubelet_cgroup"], status["probe_why"]) == ("/sys/kubelet", "it was given")
    assert (status["connections_open"], status["connections_closed_total"]) == (0, 2)
    assert status["connections_failed_by_reason"] == {}
    assert (status["connections_failed_total"], status["bytes_sent_total"], status["bytes_recv_total"]) == (
        0,
        5,
        5,
    )


def test_endpoints_are_those_that_the_balancers_of_the_pods_workers_know(plane: Plane, stage: Stage) -> None:
    assert answer(stage.views.endpoints) == []
    stage.enroll("demo/client")
    stage.enroll("demo/server", 1)
    server = stage.mesh.workloads[1]
    for at in (1.0, 2.0, 3.0):
        plane.client.balancer.failed(server.uid, at + plane.worker.poller.clock(), 8080)
    plane.client.balancer.took(server.uid)
    plane.server.balancer.took(server.uid)
    found = answer(stage.views.endpoints)
    assert [(row["endpoint"], row["worker"], row["port"], row["connections"]) for row in found] == [
        ("demo/server", 0, 8080, 1),
        ("demo/server", 0, None, 1),
        ("demo/server", 1, None, 1),
    ]
    assert [(row["failures"], row["ejected_s"] > 0) for row in found] == [(3, True), (0, False), (0, False)]


def test_who_stumbled_over_the_mesh_is_in_the_status(stage: Stage) -> None:
    assert answer(stage.views.status)["mesh_behind"] == {}
    stage.behind["demo/client"] = "RuntimeError: a mistake"
    assert answer(stage.views.status)["mesh_behind"] == {"demo/client": "RuntimeError: a mistake"}


def test_the_mesh_is_shown_as_it_is_at_that_moment(stage: Stage) -> None:
    stage.enroll("demo/client")
    enrolled = {row["name"]: row["enrolled"] for row in stage.views.workloads()}
    assert enrolled == {"client": True, "server": False}
    assert (stage.views.services(), stage.views.policies()) == ([], [])
    stage.mesh = mesh(service("demo/web.test"), Authorization("deny", "demo"))
    assert stage.views.workloads() == []
    assert [row["hostname"] for row in stage.views.services()] == ["web.test"]
    assert [row["name"] for row in stage.views.policies()] == ["deny"]


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
    assert "PRIVATE" not in json.dumps([stage.views.certs(), answer(stage.views.status)])


def test_a_connection_is_shown_by_both_its_pods(plane: Plane, stage: Stage) -> None:
    near, far = plane.pair(8080)
    near.sendall(b"abc")
    assert plane.receive(far, 3) == b"abc"
    rows = {row["direction"]: row for row in answer(stage.views.connections)}
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
    stage.enroll("demo/client")
    stage.enroll("demo/server", worker=1)
    client, server = answer(stage.views.tunnels)
    assert (client["worker"], server["worker"]) == (0, 1)
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


def test_the_figures_of_all_workers_are_added_and_each_is_shown(plane: Plane, stage: Stage) -> None:
    stage.enroll("demo/client")
    stage.enroll("demo/server", worker=1)
    plane.pair()
    one, two = (stage.other.open("demo/server", Direction.INBOUND, SRC, DST, now=1.0) for _ in range(2))
    one.bytes_sent, two.bytes_recv = 3, 4
    stage.other.end(one, 2.0)
    stage.other.end(two, 2.0, "broke", "RESET")
    status = answer(stage.views.status)
    assert (status["connections_open"], status["connections_opened_total"]) == (2, 4)
    assert (status["connections_closed_total"], status["connections_failed_total"]) == (2, 1)
    assert (status["bytes_sent_total"], status["bytes_recv_total"]) == (3, 4)
    assert status["workers"] == [
        {"worker": 0, "pods": 1, "connections_open": 2},
        {"worker": 1, "pods": 1, "connections_open": 0},
    ]


def test_connections_of_all_workers_are_one_list_ended_ones_first(plane: Plane, stage: Stage) -> None:
    plane.pair()
    ended = stage.other.open("demo/server", Direction.INBOUND, SRC, DST, now=1.0)
    stage.other.open("demo/server", Direction.INBOUND, SRC, DST, now=1.0)
    stage.other.end(ended, 2.0)
    rows = answer(stage.views.connections)
    assert [(row["id"], row["state"]) for row in rows] == [
        (100, "closed"), (1, "open"), (2, "open"), (101, "open"),
    ]  # fmt: skip


def test_status_has_the_figures_of_what_is_on(stage: Stage) -> None:
    assert "zds" not in asyncio.run(stage.views.status())
    stage.views.features["zds"] = lambda: {"ready": True}
    assert asyncio.run(stage.views.status())["zds"] == {"ready": True}
