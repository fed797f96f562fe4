"""A beat for as long as every worker answers, and not a moment longer."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from zproxy.errors import WorkerFailed
from zproxy.node import heartbeat as subject
from zproxy.node.heartbeat import Heartbeat


class Heart:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def beat(self) -> None:
        self.calls.append("beat")

    def stop(self) -> None:
        self.calls.append("stop")


def heartbeat(heart: Heart, *answers: Callable[[], Awaitable[None]]) -> Heartbeat:
    workers: Any = [SimpleNamespace(call=lambda _, answer=answer: answer()) for answer in answers]
    beating: Any = heart
    return Heartbeat(beating, workers)


async def answer() -> None:
    """What a worker that lives does."""


async def hang() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise WorkerFailed("gone")


def test_it_beats_when_every_worker_has_answered() -> None:
    heart = Heart()
    asyncio.run(heartbeat(heart, answer, answer).once())
    assert heart.calls == ["beat"]


@pytest.mark.parametrize("other", [hang, fail])
def test_one_worker_that_does_not_answer_stops_it_and_is_told_once(
    other: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subject, "ANSWER_S", 0.01)
    heart = Heart()
    beating = heartbeat(heart, answer, other)

    async def twice() -> None:
        await beating.once()
        await beating.once()

    asyncio.run(twice())
    assert heart.calls == []
    assert caplog.text.count("pods that are to fail open do") == 1


def test_after_the_end_it_never_beats_again() -> None:
    heart = Heart()
    beating = heartbeat(heart, answer)
    beating.stop()
    asyncio.run(beating.once())
    assert heart.calls == ["stop"]
