"""Alarms before something runs out: once when it begins, once when it is over."""

import asyncio
import logging
from typing import Any

import pytest

from zproxy.errors import SteeringError
from zproxy.net.tasks import spawn
from zproxy.node import pressure as subject
from zproxy.node.pressure import EFFECT, Pressure
from zproxy.steering.decoded import LRU_MAPS, Row


def lru(percent: int, name: str = "zp_conn") -> Row:
    return {"map": name, "entries": percent, "max_entries": 100, "percent": percent}


def pod(taken: int, source_ports: int | None = 100) -> Row:
    return {"pod": "demo/client", "counters": {"open": taken}, "source_ports": source_ports}


def test_every_map_that_forgets_has_its_consequence() -> None:
    assert set(EFFECT) == set(LRU_MAPS)


def test_a_filling_map_is_told_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    pressure = Pressure()
    with caplog.at_level(logging.INFO, "zproxy.node"):
        for percent in (79, 80, 99, 75, 85, 69, 70):
            pressure.judge([lru(percent)], [])
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "zp_conn holds 80 of 100 entries" in caplog.messages[0]
    assert pressure.alarms == []


def test_a_pod_whose_source_ports_run_out_is_named(caplog: pytest.LogCaptureFixture) -> None:
    pressure = Pressure()
    pressure.judge([lru(0)], [pod(80)])
    assert pressure.alarms == ["demo/client"]
    assert "80 open outbound connections" in caplog.text
    assert "ip_local_port_range" in caplog.text


def test_a_pod_whose_range_is_not_known_is_never_scarce() -> None:
    pressure = Pressure()
    pressure.judge([], [pod(10_000, None)])
    assert pressure.alarms == []


def test_maps_that_cannot_be_read_do_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subject, "LOOK_S", 0.0)
    answers: list[Any] = [SteeringError("no map zp_pods is pinned"), ([lru(90)], [])]

    def read(_: str) -> Any:
        answer = answers.pop(0) if answers else ([lru(10)], [])
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(subject, "_read", read)

    async def watch() -> None:
        calm = asyncio.Event()
        monkeypatch.setattr(subject._log, "info", lambda *_: calm.set())
        task = spawn(Pressure().watch("node-a"), "watch")
        await asyncio.wait_for(calm.wait(), 5)
        task.cancel()

    asyncio.run(watch())
    assert "cannot see how full the maps are: no map zp_pods is pinned" in caplog.text
    assert "zp_conn holds 90" in caplog.text
