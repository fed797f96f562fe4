"""Runs fuzz targets: `python -m tests.support.fuzz TARGET SEED FIRST COUNT [STEP]`.

Case number n of a seed is always the same. A run prints a line of JSON now and then and at its end; a case
that fails ends it, and its line has the case made as small as it gets.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final

HANGS_S: Final = 10.0
"""CPU time that no case needs."""
TELL_EVERY: Final = 25_000
_ROOT: Final = Path(__file__).parents[2]


class Hang(BaseException):
    """A case did not end; no handler of the code under test takes this for an error of its own."""


def rng_of(seed: int, number: int) -> Random:
    """Return the source of everything in a case."""
    return Random(seed << 32 | number)


def failure(run: Callable[[Any], None], case: Any) -> str:
    """Run a case; return what it raised and where, empty when all was well."""
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_S)
    try:
        run(case)
    except (Exception, Hang) as error:  # the target's own assertions and everything unforeseen
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} at {Path(frame.filename).name}:{frame.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return ""


def smallest(run: Callable[[Any], None], case: Any, symptom: str) -> Any:
    """Leave out steps for as long as the case fails in the same way."""
    at = len(case.steps)
    while at > 0:
        at -= 1
        smaller = case._replace(steps=case.steps[:at] + case.steps[at + 1 :])
        if failure(run, smaller) == symptom:
            case, at = smaller, min(at, len(smaller.steps))
    return case


def finding(target: str, seed: int, number: int) -> str:
    """Run one case; return how it failed, the smallest form of it, and how to see it again."""
    module = importlib.import_module(f"tests.support.fuzz_{target}")
    case = module.make(rng_of(seed, number))
    symptom = failure(module.run, case)
    if not symptom:
        return ""
    return (
        f"{target} case {number} of seed {seed}: {symptom}\n{smallest(module.run, case, symptom)}\n"
        f"see it again: .venv/bin/python -m tests.support.fuzz {target} {seed} {number} 1"
    )


def main(target: str, seed: str, first: str, count: str, step: str = "1") -> None:
    signal.signal(signal.SIGVTALRM, _hang)
    module = importlib.import_module(f"tests.support.fuzz_{target}")
    began = time.monotonic()
    numbers = range(int(first), int(first) + int(count) * int(step), int(step))
    for done, number in enumerate(numbers, 1):
        if failure(module.run, module.make(rng_of(int(seed), number))):
            _say(done, began, found=finding(target, int(seed), number))
            sys.exit(1)
        if done % TELL_EVERY == 0 or done == len(numbers):
            _say(done, began, found="")


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise Hang(f"the case has run for {HANGS_S:g} s")


def _say(done: int, began: float, *, found: str) -> None:
    gc.collect()
    resident_kb = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") >> 10
    line = {"done": done, "seconds": time.monotonic() - began, "resident_kb": resident_kb, "found": found}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def spread(target: str, seed: int, count: int) -> Iterator[list[dict[str, Any]]]:
    """Run `count` cases on all cores; yield what each process said, in the end."""
    cores = len(os.sched_getaffinity(0))
    share = -(-count // cores)
    command = [sys.executable, "-m", "tests.support.fuzz", target, str(seed)]
    with ExitStack() as stack:
        running = []
        for first in range(cores):
            process = subprocess.Popen(
                [*command, str(first), str(share), str(cores)], cwd=_ROOT, stdout=subprocess.PIPE
            )
            running.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in running:
            assert process.stdout is not None
            yield [json.loads(line) for line in process.stdout]


if __name__ == "__main__":
    main(*sys.argv[1:])
