"""Rounds: every contender of every cell once, again and again, so that a slow minute slows everybody."""

import argparse
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.bench.cells import Results, Shape, contenders_of
from tests.bench.load import LoadError, compile_load
from tests.bench.measure import Meter
from tests.bench.worlds import Builder, World

MEMORY_ROUNDS: Final = 2
"""Memory does not vary with the weather on the machine."""
COLD_WORLDS: Final = {"zproxy": "envoy>zproxy", "envoy": "envoy"}
"""Whose server is dialled by a client that no steering catches."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long; `contenders` leaves out everybody else, unless it is empty."""

    rounds: int
    seconds: float
    """Of a window."""
    warm: float
    """Load before the window, in seconds."""
    contenders: Collection[str] = ()

    @classmethod
    def options(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options that say how often and how long."""
        parser.add_argument(
            "--rounds", type=int, default=5, help="contenders alternate in each; 5 if not given"
        )
        parser.add_argument("--seconds", type=float, default=0.8, help="length of a window; 0.8 if not given")
        parser.add_argument(
            "--warm", type=float, default=0.25, help="load before the window; 0.25 if not given"
        )


def measure(plan: Plan, shapes: Sequence[Shape], results: Results) -> None:
    """Measure group by group: only the daemons of one group are there at a time."""
    with tempfile.TemporaryDirectory(prefix="zpt-bench-") as name:
        directory = Path(name)
        program = compile_load(directory)
        for group, own in groupby(shapes, key=lambda shape: shape.group):
            with ExitStack() as stack:
                builder = Builder(directory, program, stack)
                meter = Meter(program, builder.keys("client"), plan.warm, plan.seconds)
                _group(group, list(own), builder, plan, meter, results)


def _group(
    group: str, shapes: list[Shape], builder: Builder, plan: Plan, meter: Meter, results: Results
) -> None:
    runs = [
        (shape, name)
        for shape in shapes
        for name in contenders_of(shape)
        if not plan.contenders or name in plan.contenders
    ]
    needed = dict.fromkeys(_world_of(shape, name) for shape, name in runs)
    worlds: dict[str, World] = {}
    for name in needed:
        progress(f"{group}: building {name}")
        worlds[name] = builder.build(group, name)
    rounds = min(plan.rounds, MEMORY_ROUNDS) if group == "memory" else plan.rounds
    for number in range(rounds):
        # What one leaves behind in caches and queues must not always meet the same next one.
        for shape, name in _alternating(runs, number):
            progress(f"{group}: round {number + 1}/{rounds}: {shape.name}: {name}")
            world = worlds[_world_of(shape, name)]
            try:
                with world.acting():
                    results.add(shape, name, meter.measure(shape, world))
            except (LoadError, OSError, AssertionError) as error:  # a proxy that does not come back asserts
                results.fail(shape, name, str(error))
    progress("")


def _alternating(runs: list[tuple[Shape, str]], number: int) -> Iterable[tuple[Shape, str]]:
    """Return the runs cell by cell, each cell beginning with another contender in every round."""
    for _, group in groupby(runs, key=lambda run: run[0].name):
        own = list(group)
        first = number % len(own)
        yield from own[first:] + own[:first]


def _world_of(shape: Shape, contender: str) -> str:
    return COLD_WORLDS[contender] if shape.kind == "cold" else contender


def progress(text: str) -> None:
    """Show what is going on, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
