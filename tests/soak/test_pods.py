"""200 pods on one daemon: what a pod costs, and that a connection costs no more because there are many."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.soak.conftest import Figure
from tests.support import gauge, load
from tests.support.crowd import Crowd, crowd
from tests.support.nodes import wait_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]

PODS: Final = 200
GROUP: Final = 40
"""Pods at either end whose enrolments are compared."""
CONNECTIONS: Final = 5_000
LARGEST_KB: Final = 48
"""The daemon's own memory for a pod."""
MOST_DESCRIPTORS: Final = 6
"""Of a pod: its namespace, the way back from it, its listeners, and what watches it."""
SLOWEST_MS: Final = 50
LARGEST_RISE: Final = 1.5
"""Of an enrolment's time, from the first pods to the last."""
LARGEST_CONNECTION_RISE: Final = 1.2
"""Of the CPU for a connection, from one pod to PODS: more than the noise of two measurements."""
SLOWEST_RESTORE_MS: Final = 15
"""For each pod of a restart."""
LOOKED_AT_S: Final = 60.0
"""How long the reconciler may take to come to every pod; it works with a twentieth of a core."""
IDLE_S: Final = 65.0
"""Longer than the period of whatever the daemon looks after by itself: certificates, drift."""
LARGEST_CPU: Final = 0.05
"""Share of a core that PODS idle pods cost."""
KEPT_KB: Final = 2_048
"""What the allocator may keep when all pods are gone."""


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Crowd]:
    with crowd(PODS, tmp_path) as made:
        yield made


def test_200_pods_cost_what_they_hold_and_connections_nothing_more(many: Crowd, figure: Figure) -> None:
    first = many.enroll(0)
    few = min(many.churn(0, CONNECTIONS) for _ in range(2))  # the first warms up
    before = gauge.held(many.pid)

    times = [many.enroll(number) for number in range(1, PODS)]
    check_times(first, times, figure)
    after = gauge.held(many.pid)
    each_kb = (after.anonymous_kb - before.anonymous_kb) / len(times)
    figure("memory for a pod", f"{each_kb:.1f} kB")
    assert each_kb < LARGEST_KB
    descriptors = MOST_DESCRIPTORS  # the last is the reconciler's, which comes to each pod in its turn
    wait_for(
        lambda: gauge.held(many.pid).descriptors == before.descriptors + descriptors * len(times),
        f"{descriptors} descriptors for each pod",
        LOOKED_AT_S,
    )
    figure("descriptors for a pod", descriptors)
    assert after.threads <= before.threads + 1, "enrolment needs no thread per pod"

    crowded = min(many.churn(number, CONNECTIONS) for number in (0, PODS - 1))
    figure("CPU for a connection", f"{few:.0f} us with one pod, {crowded:.0f} us with {PODS}")
    assert crowded < few * LARGEST_CONNECTION_RISE

    check_idle(many, figure)
    check_restart(many, figure)
    check_end(many, descriptors, figure)


def check_times(first: float, times: list[float], figure: Figure) -> None:
    early, late = statistics.median(times[:GROUP]), statistics.median(times[-GROUP:])
    figure("enrolment", f"{first:.1f} ms of the first pod, {early:.1f} of the next, {late:.1f} of the last")
    figure("slowest enrolment", f"{max(times):.1f} ms")
    assert late < SLOWEST_MS
    # Most of it is a wait for the kernel, long or short by chance: the least shows what is the daemon's work.
    assert min(times[-GROUP:]) < min(times[:GROUP]) * LARGEST_RISE


def check_idle(many: Crowd, figure: Figure) -> None:
    """Let the daemon look after its pods for a while: that must cost next to nothing."""
    before, began = gauge.cpu_s(many.pid), time.monotonic()
    time.sleep(IDLE_S)  # what it costs to do nothing shows with time only
    share = (gauge.cpu_s(many.pid) - before) / (time.monotonic() - began)
    figure(f"CPU with {PODS} idle pods", f"{share:.2%} of a core")
    assert share < LARGEST_CPU


def check_restart(many: Crowd, figure: Figure) -> None:
    """A new daemon has every pod again, steers it, and is no larger than the one before."""
    former = gauge.held(many.pid)
    seconds = many.restart()
    figure(f"restart with {PODS} pods", f"{seconds:.2f} s")
    assert seconds < 1 + PODS * SLOWEST_RESTORE_MS / 1e3
    assert len(many.node.client.call("pods")) == PODS
    assert len(many.node.dump("zp_pods")) == PODS
    now = gauge.held(many.pid)
    figure(f"daemon with {PODS} pods", f"{former.anonymous_kb} kB, {now.anonymous_kb} kB after the restart")
    wait_for(
        lambda: gauge.held(many.pid).descriptors == former.descriptors,
        "as many descriptors as before",
        LOOKED_AT_S,
    )
    for number in (0, PODS - 1):
        before = many.steered()
        many.churn(number, len(load.KINDS))
        assert many.steered() == before + len(load.KINDS)


def check_end(many: Crowd, descriptors: int, figure: Figure) -> None:
    """Take every pod out: nothing of them is left in the daemon, nor in the maps."""
    held = gauge.held(many.pid)
    times = [many.unenroll(number) for number in range(PODS)]
    figure("unenrolment", f"{statistics.median(times):.1f} ms")
    now = gauge.held(many.pid)
    figure("memory with no pod again", f"{now.anonymous_kb} kB")
    assert now.anonymous_kb < held.anonymous_kb + KEPT_KB
    wait_for(
        lambda: held.descriptors - gauge.held(many.pid).descriptors == descriptors * PODS,
        "every pod's descriptors are closed",
        LOOKED_AT_S,
    )
    assert {name: many.node.dump(name) for name in ("zp_pods", "zp_podip")} == {"zp_pods": [], "zp_podip": []}
