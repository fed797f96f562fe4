"""Pods of a runtime that end are forgotten when their namespace is gone, and taken again in a new sandbox."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from tests.support.runtime import FakeManager, FakeRuntime, sandbox
from zproxy.cri.sandbox import PodSandbox
from zproxy.errors import EnrollError, RuntimeFailed
from zproxy.node import runtime_watch
from zproxy.node.manager import Manager
from zproxy.node.records import Origin
from zproxy.node.runtime import RuntimePods
from zproxy.node.runtime_watch import RuntimeWatch

HERE = "/proc/self/ns/net"
WEB = sandbox("shop/web", "first", netns=HERE)
ENDED = sandbox("shop/web", "first", netns=HERE, is_ready=False)
AGAIN = sandbox("shop/web", "second", netns=HERE)


class Stage:
    """A watch over a runtime; `collect` loses the pods that are in `unreachable`."""

    def __init__(self, *listed: PodSandbox, has_events: bool = True) -> None:
        self.manager = FakeManager()
        self.runtime = FakeRuntime(*listed, has_events=has_events)
        manager = cast("Manager", self.manager)
        self.pods = RuntimePods(manager, lambda _: self.runtime, "/run/fake.sock")
        self.unreachable: set[str] = set()
        self.collections = 0
        self.watch = RuntimeWatch(self.pods, manager, self._collect)

    async def _collect(self) -> None:
        self.collections += 1
        for pod in self.unreachable & self.manager.pods.keys():
            self.manager.lose(pod)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something that the watch does; fail after five seconds."""

        async def look() -> None:
            while not condition():  # noqa: ASYNC110 - what is waited for is in other hands
                await asyncio.sleep(0.001)

        await asyncio.wait_for(look(), 5)

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        """Run the watch for as long as `story` takes."""

        async def both() -> None:
            watching = asyncio.ensure_future(self.watch.run())
            try:
                await story()
                assert not watching.done()
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

        asyncio.run(both())

    async def enroll(self) -> None:
        await self.pods.enroll("shop/web")
        await self.until(lambda: self.runtime.looks > 1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_watch, "POLL_S", 0.01)
    monkeypatch.setattr(runtime_watch, "SETTLE_S", 0.0)


@contextmanager
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let only events lead to a look: no other happens within this test."""
    monkeypatch.setattr(runtime_watch, "CALM_S", 0.0)
    monkeypatch.setattr(runtime_watch, "POLL_S", 60.0)
    yield


def test_nobody_is_asked_while_no_pod_of_a_runtime_is_enrolled() -> None:
    stage = Stage(WEB)

    async def story() -> None:
        await stage.manager.enroll("demo/client", "client")
        for _ in range(50):
            await asyncio.sleep(0)
        assert stage.runtime.looks == stage.runtime.streams == 0

    stage.play(story)


def test_a_pod_that_goes_on_is_left_alone() -> None:
    stage = Stage(WEB)

    async def story() -> None:
        await stage.enroll()
        await stage.until(lambda: stage.runtime.looks > 5)
        assert stage.collections == 0

    stage.play(story)


@pytest.mark.parametrize("has_events", [True, False])
@pytest.mark.parametrize("after", [[ENDED], []], ids=["ended", "removed"])
def test_a_pod_that_ends_is_forgotten_once_its_namespace_is_gone(
    has_events: bool, after: list[PodSandbox]
) -> None:
    stage = Stage(WEB, has_events=has_events)

    async def story() -> None:
        await stage.enroll()
        stage.runtime.listed = after
        await stage.until(lambda: stage.collections > 2)
        assert "shop/web" in stage.manager.pods, "somebody may still be in it"
        stage.unreachable.add("shop/web")
        await stage.until(lambda: not stage.manager.pods)

    stage.play(story)


def test_an_event_leads_to_a_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(WEB)

    async def story() -> None:
        await stage.pods.enroll("shop/web")
        await stage.until(lambda: stage.runtime.looks == 2)
        stage.runtime.listed = []
        stage.unreachable.add("shop/web")
        stage.runtime.tell()
        await stage.until(lambda: not stage.manager.pods)

    with patient(monkeypatch):
        stage.play(story)


def test_a_stream_that_breaks_is_opened_again() -> None:
    stage = Stage(WEB)

    async def story() -> None:
        await stage.enroll()
        await stage.until(lambda: stage.runtime.streams == 1)
        stage.runtime.tell(RuntimeFailed("broken"))
        await stage.until(lambda: stage.runtime.streams == 2)

    stage.play(story)


def test_a_runtime_without_events_is_not_asked_for_them_again() -> None:
    stage = Stage(WEB, has_events=False)

    async def story() -> None:
        await stage.enroll()
        await stage.until(lambda: stage.runtime.looks > 5)
        assert stage.runtime.streams == 1

    stage.play(story)


def test_the_same_pod_in_a_new_sandbox_is_enrolled_again() -> None:
    stage = Stage(WEB)

    async def story() -> None:
        await stage.enroll()
        stage.unreachable.add("shop/web")
        stage.runtime.listed = [ENDED]
        await stage.until(lambda: not stage.manager.pods)
        stage.unreachable.clear()
        stage.runtime.listed = [ENDED, AGAIN]
        await stage.until(lambda: "shop/web" in stage.manager.pods)
        told = stage.manager.calls[-1]
        assert told["origin"] == Origin("uid-web", "second")
        assert told["service_account"] == "web"
        assert told["options"]["dns"] is False

    stage.play(story)


def test_another_pod_of_the_same_name_is_not() -> None:
    stage = Stage(WEB)

    async def story() -> None:
        await stage.enroll()
        stage.unreachable.add("shop/web")
        stage.runtime.listed = [sandbox("shop/web", "other", uid="another", netns=HERE)]
        await stage.until(lambda: not stage.manager.pods)
        looks = stage.runtime.looks
        await stage.until(lambda: stage.runtime.looks > looks + 3)
        assert len(stage.manager.calls) == 1

    stage.play(story)


def test_what_keeps_a_pod_from_being_taken_again_is_said_once_and_tried_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage(WEB)

    async def story() -> None:
        await stage.enroll()
        stage.unreachable.add("shop/web")
        stage.manager.failures["shop/web"] = EnrollError("other addresses")
        stage.runtime.listed = [AGAIN]
        await stage.until(lambda: not stage.manager.pods)
        looks = stage.runtime.looks
        await stage.until(lambda: stage.runtime.looks > looks + 3)
        stage.unreachable.clear()
        stage.manager.failures.clear()
        await stage.until(lambda: stage.manager.pods)

    stage.play(story)
    assert sum("other addresses" in record.message for record in caplog.records) == 1


def test_a_pod_that_does_not_come_back_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_watch, "AWAIT_S", 0.0)
    other = sandbox("shop/other", netns=HERE)
    stage = Stage(WEB, other)

    async def story() -> None:
        await stage.enroll()
        await stage.pods.enroll("shop/other")
        stage.unreachable.add("shop/web")
        stage.runtime.listed = [other]
        await stage.until(lambda: "shop/web" not in stage.manager.pods)
        looks = stage.runtime.looks
        await stage.until(lambda: stage.runtime.looks > looks + 1)
        stage.runtime.listed = [other, AGAIN]
        await stage.until(lambda: stage.runtime.looks > looks + 4)
        assert stage.manager.pods.keys() == {"shop/other"}

    stage.play(story)


def test_a_runtime_that_is_away_ends_no_pod_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(WEB)

    async def story() -> None:
        await stage.enroll()
        looks = stage.runtime.looks
        stage.runtime.failure = RuntimeFailed("it cannot be reached")
        await stage.until(lambda: stage.runtime.looks > looks + 3)
        assert stage.collections == 0
        assert "shop/web" in stage.manager.pods

    stage.play(story)
    assert sum("it cannot be reached" in record.message for record in caplog.records) == 1
