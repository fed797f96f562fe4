"""Enrolment of running pods, and what many pods cost one daemon."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.bench.facts import Fact
from tests.support import gauge
from tests.support.bystander import Seen, traffic
from tests.support.crowd import Crowd, crowd
from tests.support.nodes import wait_for

RUNNING: Final = 5
"""Pods that talk all the time while they are enrolled."""
BY_COMMAND: Final = 5
"""Pods that are enrolled by `zproxy enroll`."""
LAST: Final = 20
CONNECTIONS: Final = 3_000
TARGET_MS: Final = 50
STEERED: Final = 40
"""New connections of a running pod that must have come to the proxy before its traffic ends."""


def facts(pods: int, directory: Path, progress: Callable[[str], None]) -> Iterator[Fact]:
    """Enrol `pods` pods on one daemon and yield what it costs; AssertionError when traffic was harmed."""
    began = time.monotonic()
    with crowd(pods, directory) as many:
        progress(f"enrolment: {pods} pods")
        yield Fact("enrolment of the first pod after the daemon's start", many.enroll(0), "ms")
        alone = _per_connection(many, 0)
        small, kernel_kb = gauge.held(many.pid), gauge.slab_kb()
        numbers = iter(range(1, pods))
        progress("enrolment: running pods")
        yield from _running([_enroll_running(many, next(numbers)) for _ in range(RUNNING)])
        progress("enrolment: by command")
        yield from _by_command(many, [next(numbers) for _ in range(BY_COMMAND)])
        progress("enrolment: all others")
        times = [many.enroll(number) for number in numbers]
        yield Fact("enrolment of a following pod, median", statistics.median(times), "ms", TARGET_MS)
        yield Fact("enrolment of a following pod, slowest", max(times), "ms")
        yield Fact(f"enrolment of pod number {pods}", times[-1], "ms", TARGET_MS)
        yield Fact(f"enrolment, median of the last {LAST}", statistics.median(times[-LAST:]), "ms", TARGET_MS)
        large, more = gauge.held(many.pid), pods - 1
        yield Fact("memory of the kernel for a pod, objects", (gauge.slab_kb() - kernel_kb) / more, "KiB")
        yield Fact("memory of the daemon for a pod", (large.anonymous_kb - small.anonymous_kb) / more, "KiB")
        yield Fact("descriptors of the daemon for a pod", (large.descriptors - small.descriptors) / more, "")
        yield Fact(f"memory of the daemon with {pods} pods", large.anonymous_kb / 1024, "MiB")
        progress(f"enrolment: connections beside {pods} pods")
        yield Fact("CPU of the daemon for a connection, 1 pod", alone, "us")
        yield Fact(f"CPU of the daemon for a connection, {pods} pods", _per_connection(many, 0), "us")
        yield Fact(f"restart of the daemon with {pods} pods, until it answers", many.restart() * 1e3, "ms")
        times = [many.unenroll(number) for number in range(LAST)]
        yield Fact("unenrolment, median", statistics.median(times), "ms")
    progress(f"enrolment: {time.monotonic() - began:.0f} s")


def _per_connection(many: Crowd, number: int) -> float:
    """Return the lesser of two runs, in us: the first makes what is made once."""
    return min(many.churn(number, CONNECTIONS) for _ in range(2))


def _enroll_running(many: Crowd, number: int) -> tuple[float, tuple[Seen, Seen]]:
    before = many.steered()
    with traffic(many.fleet.pods[number], many.fleet.peer) as running:
        taken = many.enroll(number)
        wait_for(lambda: many.steered() > before + STEERED, "new connections of the running pod are steered")
        running.goes_on()
        return taken, running.end()


def _running(found: list[tuple[float, tuple[Seen, Seen]]]) -> Iterator[Fact]:
    """Yield the times, and of how much traffic nothing was lost: `Traffic.end` has made sure of that."""
    sides = [side for _, both in found for side in both]
    yield Fact(
        f"enrolment of a running pod, median of {RUNNING}",
        statistics.median(t for t, _ in found),
        "ms",
        TARGET_MS,
    )
    yield Fact("slowest connect of running pods, enrolment included", max(s.slowest_ms for s in sides), "ms")
    yield Fact("their connects, none failed", sum(side.connects for side in sides), "")
    yield Fact(
        "their messages on established TCP, none lost", sum(side.stream_received for side in sides), ""
    )
    yield Fact("their datagrams, none lost", sum(side.datagrams_received for side in sides), "")


def _by_command(many: Crowd, numbers: list[int]) -> Iterator[Fact]:
    times = []
    for number in numbers:
        pod = many.fleet.pods[number]
        words = ("--node", many.node.name, "enroll", f"demo/pod-{number}", "--netns", pod.name)
        times.append(_command_ms(*words))
    yield Fact("`zproxy enroll`, the whole command, median", statistics.median(times), "ms")
    nothing = [_command_ms("--version") for _ in numbers]
    yield Fact("`zproxy --version`, for comparison", statistics.median(nothing), "ms")


def _command_ms(*words: str) -> float:
    began = time.monotonic()
    command = [sys.executable, "-m", "zproxy", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise OSError(f"zproxy {' '.join(words)}: {done.stderr.strip()}")
    return (time.monotonic() - began) * 1e3
