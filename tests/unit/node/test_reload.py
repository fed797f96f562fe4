"""The mesh file, read again: all of it, or nothing."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.inline import InlineDriver
from tests.support.local_config import yaml_of
from tests.support.mesh import mesh, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from zproxy.node.reload import CurrentMesh
from zproxy.node.workers import PlacedStraw, PodWorker

CLIENT, SERVER = workload("demo/client", CLIENT_IP), workload("demo/server", SERVER_IP)


class Stage:
    """A plane whose pods see the mesh of a file."""

    def __init__(self, plane: Plane, path: Path) -> None:
        unused: Any = None
        self.plane, self.path = plane, path
        self.mesh = CurrentMesh(path, mesh(CLIENT, SERVER))
        plane.client.mesh = plane.server.mesh = self.mesh
        self._worker = PodWorker(InlineDriver(0, plane.worker), plane.connections, unused)
        self._straws = [
            PlacedStraw(self._worker, straw) for straw in (plane.client_straw, plane.server_straw)
        ]

    def reload(self, text: str) -> None:
        self.path.write_text(text)
        asyncio.run(self.mesh.reload(self._straws, [self._worker]))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with closing(Plane()) as plane:
        yield Stage(plane, tmp_path / "mesh.yaml")


def test_a_pod_that_left_takes_its_tunnel_with_it_and_its_counters_once_all_has_ended(stage: Stage) -> None:
    plane = stage.plane
    near, _ = plane.pair()
    stage.reload(yaml_of(CLIENT))
    assert stage.mesh().by_pod("demo/server") is None
    assert list(plane.client.pool.tunnels()) == []
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    plane.ended(2)
    stage.reload(yaml_of(CLIENT))
    assert len(plane.connections.series) == 0


def test_what_stays_goes_on(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    near, far = stage.plane.pair()
    stage.reload(yaml_of(CLIENT, SERVER, workload("demo/new", "10.0.0.9")))
    near.sendall(b"still there")
    assert stage.plane.receive(far, 11) == b"still there"
    assert stage.mesh().by_ip("10.0.0.9") is not None
    assert "read again and has 3 workloads" in caplog.text


@pytest.mark.parametrize("text", ["", "workloads: [", "workloads: []\npolicies: [{name: x}]\n"])
def test_a_bad_file_changes_nothing_and_says_so_in_one_line(
    stage: Stage, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    near, far = stage.plane.pair()
    before = stage.mesh()
    stage.reload(text)
    assert stage.mesh() is before
    near.sendall(b"still there")
    assert stage.plane.receive(far, 11) == b"still there"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage().startswith(f"the mesh stays as it was: {stage.path}")
    assert record.exc_info is None


def test_a_file_that_is_gone_changes_nothing(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    before = stage.mesh()
    stage.reload(yaml_of(CLIENT))
    stage.path.unlink()
    after = stage.mesh()
    asyncio.run(stage.mesh.reload([], []))
    assert stage.mesh() is after is not before
    assert "cannot be read" in caplog.text
