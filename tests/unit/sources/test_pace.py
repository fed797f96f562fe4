"""Pauses in long work: at their time and not before, and the collector is back whatever happens."""

import gc
import time

import pytest

from zproxy.sources import pace
from zproxy.sources.pace import Pace, considerate


class Time:
    """A clock and the sleep that goes with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def test_it_rests_when_it_has_worked_long_enough(clock: Time) -> None:
    pause = Pace()
    clock.now += pace.WORK_S / 2
    pause()
    assert clock.slept == []
    clock.now += pace.WORK_S
    pause()
    assert clock.slept == [pace.REST_S]


def test_after_a_rest_it_works_on(clock: Time) -> None:
    pause = Pace()
    clock.now += pace.WORK_S * 2
    pause()
    pause()
    assert len(clock.slept) == 1
    clock.now += pace.WORK_S * 2
    pause()
    assert len(clock.slept) == 2


def test_the_collector_stays_away_meanwhile_and_comes_back_after_a_failure() -> None:
    def fail() -> None:
        with considerate() as pause:
            pause()
            assert not gc.isenabled()
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    assert gc.isenabled()
