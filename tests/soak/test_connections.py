"""200,000 short connections through one pod pair: whatever a connection costs comes back."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.soak.conftest import Figure
from tests.support import gauge, load
from tests.support.nodes import Node, TwoNodes, two_nodes, wait_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

STAGES: Final = (20_000, 80_000, 100_000)
"""The first warms up: pools, caches and the allocator's arenas reach their size."""
LARGEST_SLOPE_KB: Final = 256
"""Growth of a daemon over the last stage. A leak of 8 bytes per connection would be 800."""
SLOWEST: Final = 1_000
"""Connections per second that the run must do to be a load at all."""
MAPS: Final = ("zp_pods", "zp_podip", "zp_conn", "zp_tuple", "zp_in")


@pytest.fixture
def nodes() -> Iterator[TwoNodes]:
    with tempfile.TemporaryDirectory(prefix="zpt-soak-") as directory, two_nodes(Path(directory)) as made:
        yield made


class Stage(NamedTuple):
    """What both daemons hold after a stage, and how many entries the maps of both have."""

    held: tuple[gauge.Held, gauge.Held]
    entries: dict[str, int]
    ended: Counter[str]
    rate: float


def access_lines(node: Node) -> int:
    with node.log.open("rb") as log:
        return sum(b"\taccess\t" in line for line in log)


def pid(node: Node) -> int:
    assert node.process is not None
    return node.process.pid


def run(nodes: TwoNodes, count: int) -> Stage:
    """Drive `count` connections, wait until both daemons have nothing left, and look at them."""
    with load.running(nodes.client, "churn", nodes.server.ip4, str(count)) as churn:
        report = json.loads(churn.line())
    both = (nodes.a, nodes.b)
    wait_for(
        lambda: all(node.client.call("status")["connections_open"] == 0 for node in both), "all are closed"
    )
    entries = {f"{node.name[-1]} {name}": len(node.dump(name)) for node in both for name in MAPS}
    held = (gauge.held(pid(nodes.a)), gauge.held(pid(nodes.b)))
    return Stage(held, entries, Counter(report["ended"]), count / report["seconds"])


def test_200_000_connections_leave_nothing_behind(nodes: TwoNodes, figure: Figure) -> None:
    stages, done = [], 0
    with load.running(nodes.server, "serve") as server:
        assert server.line() == "listening"
        for count in STAGES:
            stages.append(run(nodes, count))
            done += count
            note(figure, done, stages[-1])

    total = sum(STAGES)
    ended = sum((stage.ended for stage in stages), Counter[str]())
    assert ended == {kind: total * load.KINDS.count(kind) // len(load.KINDS) for kind in set(load.KINDS)}
    check_totals(nodes, total)
    warm, _, last = stages
    for side, name in enumerate(("client", "server")):
        before, middle, after = (stage.held[side] for stage in stages)
        assert after.descriptors == before.descriptors, f"the {name}'s daemon leaks descriptors"
        assert after.threads == before.threads
        grown = after.anonymous_kb - middle.anonymous_kb
        assert grown < LARGEST_SLOPE_KB, f"the {name}'s daemon grew by {grown} kB over {STAGES[-1]}"
    assert last.entries == warm.entries
    assert min(stage.rate for stage in stages) > SLOWEST


def note(figure: Figure, done: int, stage: Stage) -> None:
    figure(f"connections/s up to {done}", f"{stage.rate:.0f}")
    for name, held in zip(("client", "server"), stage.held, strict=True):
        figure(
            f"{name} daemon after {done} connections",
            f"{held.anonymous_kb} kB, {held.descriptors} descriptors, {held.threads} threads",
        )
    entries = ", ".join(f"{name} {size}" for name, size in stage.entries.items() if size)
    figure(f"map entries after {done} connections", entries)


def check_totals(nodes: TwoNodes, total: int) -> None:
    """Every connection is counted and logged once on both nodes, and no byte is lost or made up."""
    refused, broken, reset = (
        total * load.KINDS.count(kind) // len(load.KINDS)
        for kind in ("refused", "broken by the server", "reset")
    )
    there = len(load.MESSAGE) * (total - refused)
    back = len(load.MESSAGE) * (total - refused - broken)
    # What a refused app said at once went along with its CONNECT, and nobody took it.
    early = nodes.a.client.call("status")["bytes_sent_total"] - there
    assert 0 <= early <= refused * len(load.MESSAGE)
    for node, sent, received in ((nodes.a, there + early, back), (nodes.b, back, there)):
        status = node.client.call("status")
        assert status["connections_opened_total"] == status["connections_closed_total"] == total
        assert status["connections_failed_total"] == refused + broken + reset
        assert (status["bytes_sent_total"], status["bytes_recv_total"]) == (sent, received)
        assert wait_for(lambda node=node: access_lines(node) >= total, f"{total} lines")  # type: ignore[misc]
        assert access_lines(node) == total
