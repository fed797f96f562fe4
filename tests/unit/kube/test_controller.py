"""The controller: whatever happens to pods and labels, enrolment and annotations follow."""

import asyncio
import logging
from typing import Any

import pytest

from tests.support.informed import until
from tests.support.kube_world import World
from tests.support.kubeobjects import kube_namespace, kube_pod
from zproxy.kube import controller as module
from zproxy.kube.controller import Controller, Found
from zproxy.net.tasks import spawn

AMBIENT = kube_namespace("demo", "ambient")


@pytest.fixture
def world() -> World:
    made = World()
    made.put(AMBIENT, kube_pod("demo/web", "10.0.0.1", uid="u1"))
    made.sandboxes["u1"] = Found(pid=41)
    return made


def controller_of(world: World) -> Controller:
    cluster: Any = world
    api: Any = world
    return Controller(cluster, api, world, world.find)


def reconcile(controller: Controller, times: int = 1, *, verify: bool = False) -> bool:
    return [asyncio.run(controller.reconcile(verify=verify)) for _ in range(times)][-1]


def test_a_labelled_pod_is_enrolled_and_annotated_and_that_is_all(world: World) -> None:
    controller = controller_of(world)
    assert reconcile(controller, 3)
    assert world.enrolled == {"demo/web": (Found(pid=41), True)}
    assert world.annotation("demo/web") == "enabled"
    assert world.calls == ["enroll demo/web", "patch demo/web"]


def test_a_label_that_is_taken_away_takes_the_pod_out_and_then_its_annotation(world: World) -> None:
    controller = controller_of(world)
    reconcile(controller)
    world.put(kube_namespace("demo"))
    assert reconcile(controller)
    assert world.enrolled == {}
    assert world.annotation("demo/web") is None
    assert world.calls[2:] == ["unenroll demo/web", "patch demo/web"]


def test_pods_of_other_nodes_are_their_affair(world: World) -> None:
    world.put(kube_pod("demo/web", "10.0.0.1", uid="u1", node="node-b"))
    assert reconcile(controller_of(world))
    assert world.calls == []


def test_a_pod_without_a_process_is_waited_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    found = world.sandboxes.pop("u1")
    controller = controller_of(world)
    assert not reconcile(controller, 3)
    assert caplog.text.count("is not found yet") == 1, "said once"
    world.sandboxes["u1"] = found
    assert reconcile(controller)
    assert "demo/web" in world.enrolled


def test_a_refusal_is_said_once_and_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.refusals["demo/web"] = "not today"
    controller = controller_of(world)
    assert not reconcile(controller, 3)
    assert caplog.text.count("not today") == 1
    assert world.annotation("demo/web") is None, "nobody may be told to use HBONE"
    del world.refusals["demo/web"]
    assert reconcile(controller)
    world.refusals["demo/web"] = "not today"
    world.put(kube_namespace("demo"))
    assert not reconcile(controller)
    assert caplog.text.count("not today") == 2
    assert world.annotation("demo/web") == "enabled", "it is still enrolled"


def test_one_pod_does_not_keep_another_from_it(world: World) -> None:
    world.put(kube_pod("demo/api", "10.0.0.2", uid="u2"))
    world.sandboxes["u2"] = Found(netns="/run/netns/api", cgroup="/kubepods/podu2")
    world.refusals["demo/web"] = "not today"
    assert not reconcile(controller_of(world))
    assert world.enrolled == {"demo/api": (Found(netns="/run/netns/api", cgroup="/kubepods/podu2"), True)}
    assert world.annotation("demo/api") == "enabled"


def test_another_pod_of_the_same_name_is_enrolled_in_its_place(world: World) -> None:
    controller = controller_of(world)
    reconcile(controller)
    world.put(kube_pod("demo/web", "10.0.0.9", uid="u9"))
    world.sandboxes = {"u9": Found(pid=99)}
    assert reconcile(controller)
    assert world.enrolled["demo/web"] == (Found(pid=99), True)
    assert world.annotation("demo/web") == "enabled"


def test_a_pod_that_is_deleted_is_unenrolled(world: World) -> None:
    controller = controller_of(world)
    reconcile(controller)
    del world.pods["demo/web"]
    assert reconcile(controller, 2)
    assert world.enrolled == {}
    assert controller._ours == {}


def test_what_was_enrolled_by_hand_or_before_a_restart(world: World) -> None:
    world.put(kube_pod("plain/by-hand", "10.0.0.3", uid="u3"))
    world.enrolled = {"demo/web": (Found(pid=41), True), "plain/by-hand": (Found(pid=43), True)}
    assert reconcile(controller_of(world), 2)
    assert set(world.enrolled) == {"demo/web", "plain/by-hand"}
    assert world.annotation("plain/by-hand") is None


def test_a_label_that_went_while_no_daemon_was_there(world: World) -> None:
    reconcile(controller_of(world))
    world.put(kube_namespace("demo"))
    assert reconcile(controller_of(world))
    assert world.enrolled == {}
    assert world.annotation("demo/web") is None


def test_dns_follows_its_annotation(world: World) -> None:
    controller = controller_of(world)
    reconcile(controller)
    world.pods["demo/web"]["metadata"]["annotations"]["ambient.istio.io/dns-capture"] = "false"
    assert reconcile(controller)
    assert world.enrolled["demo/web"] == (Found(pid=41), False)


def test_a_bypass_is_not_followed_and_that_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    annotations = {"ambient.istio.io/bypass-inbound-capture": "true"}
    world.put(kube_pod("demo/web", "10.0.0.1", uid="u1", annotations=annotations))
    controller = controller_of(world)
    reconcile(controller, 2, verify=True)
    assert "demo/web" in world.enrolled
    assert caplog.text.count("bypass-inbound-capture is not followed") == 1


def test_while_the_api_server_is_away_pods_are_enrolled_all_the_same(world: World) -> None:
    world.away = True
    controller = controller_of(world)
    assert not reconcile(controller, 2)
    assert "demo/web" in world.enrolled
    world.away = False
    assert reconcile(controller)
    assert world.annotation("demo/web") == "enabled"


def test_an_annotation_that_somebody_removed_is_written_again(world: World) -> None:
    controller = controller_of(world)
    reconcile(controller)
    del world.pods["demo/web"]["metadata"]["annotations"]["ambient.istio.io/redirection"]
    assert reconcile(controller)
    assert world.annotation("demo/web") == "enabled"


def test_a_pod_that_went_before_its_annotation_is_no_fault(world: World) -> None:
    snapshot = world.snapshot()
    del world.pods["demo/web"]
    world.snapshot = lambda: snapshot  # type: ignore[method-assign] # the watch is late
    assert reconcile(controller_of(world))


def test_verification_finds_a_new_sandbox_and_spares_what_has_no_process(world: World) -> None:
    controller = controller_of(world)
    reconcile(controller)
    world.sandboxes["u1"] = Found(pid=42)
    assert reconcile(controller)
    assert world.enrolled["demo/web"] == (Found(pid=41), True)
    assert reconcile(controller, verify=True)
    assert world.enrolled["demo/web"] == (Found(pid=42), True)
    world.sandboxes.clear()
    assert reconcile(controller, verify=True)
    assert "demo/web" in world.enrolled


def test_it_runs_when_it_is_told_and_survives_its_own_mistakes(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(module, "RESYNC_S", 3600.0)
    stumbles = iter([True])
    present = world.present

    def stumbling() -> set[str]:
        if next(stumbles, False):
            raise RuntimeError("a mistake")
        return present()

    world.present = stumbling  # type: ignore[method-assign]
    world.is_synced = False

    async def go() -> None:
        controller = controller_of(world)
        task = spawn(controller.run(), "controller")
        await asyncio.sleep(0)
        assert world.calls == [], "before everything is heard nothing is wanted and nothing unwanted"
        world.is_synced = True
        controller.look()
        await until(lambda: "a mistake" in caplog.text)
        controller.look()
        await until(lambda: world.annotation("demo/web") == "enabled")
        world.put(kube_namespace("demo"))
        controller.look()
        await until(lambda: world.annotation("demo/web") is None)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())
