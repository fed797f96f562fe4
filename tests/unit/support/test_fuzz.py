"""The fuzz targets find what is wrong, make it small, and find nothing in thousands of cases of one seed."""

import importlib
import json
import signal
from random import Random
from typing import NamedTuple

import pytest

from tests.support import fuzz
from zproxy.wire.stream import Link, Stream

SEED = 1


class Steps(NamedTuple):
    steps: tuple[int, ...]


def boom(case: Steps) -> None:
    if {3, 5} <= set(case.steps):
        raise ValueError("both")


@pytest.mark.parametrize(("target", "cases"), [("wire", 2000), ("plane", 500)])
def test_a_few_cases_do_no_harm(target: str, cases: int) -> None:
    module = importlib.import_module(f"tests.support.fuzz_{target}")
    for number in range(cases):
        case = module.make(fuzz.rng_of(SEED, number))
        assert fuzz.failure(module.run, case) == "", f"case {number}:\n{case}"


def test_a_case_is_its_seed_and_number() -> None:
    module = importlib.import_module("tests.support.fuzz_wire")
    assert module.make(fuzz.rng_of(7, 3)) == module.make(fuzz.rng_of(7, 3))
    assert module.make(fuzz.rng_of(7, 3)) != module.make(fuzz.rng_of(8, 3))
    assert isinstance(fuzz.rng_of(7, 3), Random)


def test_a_failing_case_is_made_as_small_as_it_fails() -> None:
    case = Steps((1, 3, 4, 5, 6))
    assert fuzz.smallest(boom, case, fuzz.failure(boom, case)).steps == (3, 5)


def test_a_case_that_never_ends_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "HANGS_S", 0.05)
    former = signal.signal(signal.SIGVTALRM, fuzz._hang)

    def spin(_case: Steps) -> None:
        while True:
            pass

    try:
        assert fuzz.failure(spin, Steps(())).startswith("Hang: ")
    finally:
        signal.signal(signal.SIGVTALRM, former)


def test_a_window_that_leaks_is_found_and_told_with_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forfeit(_self: Link, stream: Stream) -> None:
        stream.unread = 0

    monkeypatch.setattr(Link, "forfeit", forfeit)
    former = signal.getsignal(signal.SIGVTALRM)
    try:
        with pytest.raises(SystemExit):
            fuzz.main("wire", str(SEED), "0", "200")
    finally:
        signal.signal(signal.SIGVTALRM, former)
    said = json.loads(capsys.readouterr().out)
    assert "AssertionError" in said["found"]
    assert (
        f"see it again: .venv/bin/python -m tests.support.fuzz wire {SEED} {said['done'] - 1} 1"
        in said["found"]
    )
