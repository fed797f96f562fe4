"""The mesh file, read again: all of it, or nothing."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.inline import InlineDriver
from tests.support.local_config import yaml_of
from tests.support.mesh import mesh, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from zproxy.errors import WorkerFailed
from zproxy.model.conn import Direction
from zproxy.model.policy import Action, Authorization, PolicyScope
from zproxy.model.service import GatewayAddress, NetworkAddress
from zproxy.model.settings import Compat
from zproxy.net.tasks import spawn
from zproxy.node.reload import NAMED, CurrentMesh
from zproxy.node.workers import PlacedStraw, PodWorker
from zproxy.proxy.recheck import Recheck
from zproxy.sources import file
from zproxy.state.policy import authorize
from zproxy.state.store import Mesh, Records

CLIENT, SERVER = workload("demo/client", CLIENT_IP), workload("demo/server", SERVER_IP)


class Stage:
    """A plane whose pods see the mesh of a file."""

    def __init__(self, plane: Plane, path: Path) -> None:
        unused: Any = None
        self.plane, self.path = plane, path
        self.mesh = CurrentMesh(path, mesh(CLIENT, SERVER), None)
        plane.current_mesh = self.mesh
        self.listed_in: list[Mesh] = []
        """The meshes that held when straws were asked for."""
        self._worker = PodWorker(InlineDriver(0, plane.worker), plane.connections, unused)
        self._straws = [
            PlacedStraw(self._worker, straw) for straw in (plane.client_straw, plane.server_straw)
        ]

    async def _placed(self) -> list[PlacedStraw]:
        self.listed_in.append(self.mesh())
        return self._straws

    def reload(self, text: str) -> None:
        self.path.write_text(text)
        asyncio.run(self.mesh.reload(self._placed, [self._worker]))


async def nobody() -> list[PlacedStraw]:
    return []


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
    assert "has 3 workloads, 0 services and 0 policies; 1 workloads new or other" in caplog.text


def test_a_file_that_says_the_same_keeps_the_snapshot(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = stage.mesh()
    stage.reload(yaml_of(CLIENT, SERVER))
    assert stage.mesh() is before
    assert "nothing in it has changed" in caplog.text


def test_records_that_did_not_change_stay_the_same_ones(stage: Stage) -> None:
    before = stage.mesh().by_pod("demo/client")
    stage.reload(yaml_of(CLIENT, workload("demo/new", "10.0.0.9")))
    assert stage.mesh().by_pod("demo/client") is before


def test_straws_are_listed_when_the_new_mesh_holds_so_that_none_escapes_it(stage: Stage) -> None:
    stage.reload(yaml_of(CLIENT))
    assert stage.listed_in == [stage.mesh()]


DENY = Authorization("deny", "demo", action=Action.DENY, rules=((),))
DENIED = "connection closed due to policy change: explicitly denied by: demo/deny"


def test_a_policy_that_denies_ends_open_connections_and_says_so(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plane = stage.plane
    plane.decide = partial(authorize, Compat.ZPROXY)
    near, _ = plane.pair()
    stage.reload(yaml_of(CLIENT, SERVER, DENY))
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    inbound = next(each for each in plane.ended(2) if each.direction is Direction.INBOUND)
    assert (inbound.error, inbound.reason) == (DENIED, "DENY")
    assert "1 connections of demo/server closed because they are no longer allowed" in caplog.text


def test_a_policy_that_is_attached_later_counts_for_what_is_open(stage: Stage) -> None:
    plane = stage.plane
    plane.decide = partial(authorize, Compat.ZPROXY)
    selecting = replace(DENY, scope=PolicyScope.WORKLOAD_SELECTOR)
    stage.reload(yaml_of(CLIENT, SERVER, selecting))
    near, _ = plane.pair()
    stage.reload(yaml_of(CLIENT, replace(SERVER, authorization_policies=("demo/deny",)), selecting))
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)


def test_a_policy_that_still_allows_lets_connections_go_on(stage: Stage) -> None:
    plane = stage.plane
    plane.decide = partial(authorize, Compat.ZPROXY)
    near, far = plane.pair()
    stage.reload(yaml_of(CLIENT, SERVER, Authorization("allow", "demo", rules=((),))))
    near.sendall(b"still there")
    assert plane.receive(far, 11) == b"still there"


def test_a_waypoint_that_must_be_taken_now_ends_what_went_past_it(stage: Stage) -> None:
    plane = stage.plane
    near, _ = plane.pair()
    waypoint = workload("demo/waypoint", "127.0.0.3")
    behind = replace(SERVER, waypoint=GatewayAddress(NetworkAddress("", "127.0.0.3")))
    stage.reload(yaml_of(CLIENT, behind, waypoint))
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    outbound = next(each for each in plane.ended(1) if each.direction is Direction.OUTBOUND)
    assert outbound.error == (
        "connection closed due to policy change: "
        "127.0.0.2:8080 is reached through the waypoint demo/waypoint now"
    )


def test_many_connections_are_looked_at_in_slices(stage: Stage) -> None:
    plane = stage.plane
    made = [plane.pair(8000 + number) for number in range(5)]
    recheck = Recheck(plane.server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zproxy.proxy.recheck.SLICE_S", 0)
        assert [recheck.advance() for _ in range(6)] == [True] * 5 + [False]
    assert len(made) == 5


def test_a_changed_file_is_noticed_by_itself_once_it_stays_so(stage: Stage) -> None:
    async def noticed() -> None:
        is_old = asyncio.Event()
        watching = spawn(stage.mesh.watch(is_old), "watch")
        stage.path.write_text(yaml_of(CLIENT))
        async with asyncio.timeout(10):
            await is_old.wait()
        await stage.mesh.reload(nobody, [])
        is_old.clear()
        link = stage.path.with_suffix(".new")
        link.write_text(yaml_of(CLIENT, SERVER))
        link.rename(stage.path)
        async with asyncio.timeout(10):
            await is_old.wait()
        watching.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zproxy.node.reload.LOOK_S", 0.01)
        asyncio.run(noticed())
    assert [each.pod for each in stage.mesh().workloads] == ["demo/client"]


def test_references_that_lead_nowhere_are_told_once_and_not_all_of_many(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "zproxy")
    text = yaml_of(CLIENT, replace(SERVER, authorization_policies=("demo/gone",)))
    stage.reload(text)
    stage.reload(text)
    (warning,) = caplog.messages
    assert warning == f"{stage.path}: the workload demo/server names the policy demo/gone, and there is none"
    caplog.clear()
    many = tuple(f"demo/gone-{number}" for number in range(NAMED + 5))
    stage.reload(yaml_of(CLIENT, replace(SERVER, authorization_policies=many)))
    assert len(caplog.messages) == NAMED + 1
    assert caplog.messages[-1] == f"{stage.path}: 5 more references lead nowhere"


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
    asyncio.run(stage.mesh.reload(nobody, []))
    assert stage.mesh() is after is not before
    assert "cannot be read" in caplog.text


def fail(_: Mesh) -> Recheck:
    raise RuntimeError("a mistake")


def test_a_pod_that_stumbles_keeps_no_other_from_the_new_mesh_and_is_told(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = stage.plane
    plane.decide = partial(authorize, Compat.ZPROXY)
    near, _ = plane.pair()
    with monkeypatch.context() as patched:
        patched.setattr(plane.client_straw, "on_mesh", fail)
        stage.reload(yaml_of(CLIENT, SERVER, DENY))
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert stage.mesh.behind == {"demo/client": "RuntimeError: a mistake"}
    assert "demo/client stumbled over the new mesh" in caplog.text


def test_a_pod_that_stumbled_is_tried_again_even_if_the_file_says_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = stage.plane
    plane.decide = partial(authorize, Compat.ZPROXY)
    near, _ = plane.pair()
    with monkeypatch.context() as patched:
        patched.setattr(plane.server_straw, "on_mesh", fail)
        stage.reload(yaml_of(CLIENT, SERVER, DENY))
    assert list(stage.mesh.behind) == ["demo/server"]
    stage.reload(yaml_of(CLIENT, SERVER, DENY))
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert stage.mesh.behind == {}


def test_a_worker_that_stumbles_keeps_no_other_from_the_new_mesh(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def worker(number: int) -> Any:
        async def on_mesh(_: Any) -> None:
            told.append(number)
            if number == 0:
                raise RuntimeError("a mistake")

        return SimpleNamespace(number=number, on_mesh=on_mesh)

    stage.path.write_text(yaml_of(CLIENT))
    asyncio.run(stage.mesh.reload(nobody, [worker(0), worker(1)]))
    assert told == [0, 1]
    assert stage.mesh.behind == {"worker 0": "RuntimeError: a mistake"}


def test_a_worker_that_is_lost_ends_the_daemon(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: Mesh) -> Recheck:
        raise WorkerFailed("worker 0 hangs")

    monkeypatch.setattr(stage.plane.client_straw, "on_mesh", lost)
    with pytest.raises(WorkerFailed):
        stage.reload(yaml_of(CLIENT))


def test_a_reader_that_stumbles_changes_nothing_and_the_next_file_is_read(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError("too deep")

    before = stage.mesh()
    with monkeypatch.context() as patched:
        patched.setattr(file, "read", broken)
        stage.reload(yaml_of(CLIENT))
    assert stage.mesh() is before
    assert "the mesh stays as it was" in caplog.text
    stage.reload(yaml_of(CLIENT))
    assert len(stage.mesh().workloads) == 1


NEW = workload("demo/new", "10.0.0.9")


def test_another_source_stands_beside_the_file_whose_records_come_first(stage: Stage) -> None:
    other = replace(SERVER, service_account="other")
    stage.mesh.other = lambda: lambda _: Records([other, NEW])
    stage.reload(yaml_of(CLIENT, SERVER))
    assert [each.pod for each in stage.mesh().workloads] == ["demo/client", "demo/server", "demo/new"]
    assert stage.mesh().by_pod("demo/server") == SERVER


def test_without_a_file_another_source_is_the_mesh(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    current = CurrentMesh(None, mesh())
    current.other = lambda: lambda _: Records([replace(NEW, services=("demo/gone",))])
    for _ in range(3):
        asyncio.run(current.reload(nobody, []))
    assert [each.pod for each in current().workloads] == ["demo/new"]
    assert caplog.text.count("the mesh was read again") == 1, "what changes nothing is not worth a line"
    assert "the mesh: the workload demo/new names the service demo/gone, and there is none" in caplog.text
    asyncio.run(asyncio.wait_for(current.watch(asyncio.Event()), 1))
