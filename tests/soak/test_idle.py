"""10,000 idle connections through one pod pair: they stay up, cost next to nothing, and answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.soak.conftest import Figure
from tests.support import gauge, load
from tests.support.nodes import Node, TwoNodes, two_nodes, wait_for
from zproxy.config import Limits

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

CONNECTIONS: Final = 10_000
IDLE_S: Final = 35.0
"""Longer than a tunnel lives whose peer answers no PING (30 s); a silent one is pinged from 10 s on."""
LARGEST_KB: Final = 4.0
"""User memory of an idle connection in each daemon."""
LARGEST_GROWTH_KB: Final = 1536
"""From 10,000 connections to another 10,000 after they are gone, once the allocator has seen both."""
WARM_TUNNELS: Final = load.WAVE // Limits().max_streams_client
LARGEST_CPU: Final = 0.01
"""Share of a core that 10,000 idle connections cost each daemon, PINGs and sweeps included."""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path) as made:
        yield made


def pid(node: Node) -> int:
    assert node.process is not None
    return node.process.pid


def received(node: Node) -> dict[int, int]:
    """Return the ciphertext that each tunnel of a node has received."""
    rows: list[dict[str, Any]] = node.client.call("tunnels")
    return {row["id"]: row["bytes_recv"] for row in rows}


def test_10_000_idle_connections_stay_up_and_answer(nodes: TwoNodes, figure: Figure) -> None:
    daemons = {"client": nodes.a, "server": nodes.b}
    with load.running(nodes.server, "serve") as server:
        assert server.line() == "listening"
        with held(nodes, load.WAVE):
            pass
        before = look(daemons)
        with held(nodes, CONNECTIONS) as app:
            first = look(daemons)
            for name, node in daemons.items():
                assert count(node) == CONNECTIONS
                each_kb = (first[name].anonymous_kb - before[name].anonymous_kb) / CONNECTIONS
                tunnels = len(received(node))
                figure(f"{name} daemon, memory per idle connection", f"{each_kb:.2f} kB ({tunnels} tunnels)")
                assert 0 < each_kb < LARGEST_KB
            check_idle(daemons, figure)
            began = time.monotonic()
            app.command("ask")
            assert app.line() == str(CONNECTIONS)
            figure("10,000 idle connections answered within", f"{time.monotonic() - began:.1f} s")
        rounds = []
        for _ in range(2):
            with held(nodes, CONNECTIONS):
                rounds.append(look(daemons))
    after = look(daemons)
    for name, node in daemons.items():
        grown = rounds[1][name].anonymous_kb - rounds[0][name].anonymous_kb
        kept = after[name].anonymous_kb - before[name].anonymous_kb
        figure(f"{name} daemon, growth from the second 10,000 to the third", f"{grown} kB")
        figure(f"{name} daemon, memory kept when all are closed", f"{kept} kB")
        assert grown < LARGEST_GROWTH_KB, "what 10,000 left is not used again"
        assert after[name].descriptors - before[name].descriptors == len(received(node)) - WARM_TUNNELS


@contextmanager
def held(nodes: TwoNodes, connections: int) -> Iterator[load.Running]:
    """Hold connections for the block; afterwards both daemons have closed them."""
    with load.running(nodes.client, "hold", nodes.server.ip4, str(connections)) as app:
        assert app.line() == "up"
        yield app
    wait_for(lambda: count(nodes.a) == count(nodes.b) == 0, "all are closed")


def look(daemons: dict[str, Node]) -> dict[str, gauge.Held]:
    return {name: gauge.held(pid(node)) for name, node in daemons.items()}


def count(node: Node) -> int:
    return int(node.client.call("status")["connections_open"])


def check_idle(daemons: dict[str, Node], figure: Figure) -> None:
    """Let nothing happen for IDLE_S: tunnels are pinged and answer, nothing ends, and it costs no CPU."""
    heard = {name: received(node) for name, node in daemons.items()}
    cpu = {name: gauge.cpu_s(pid(node)) for name, node in daemons.items()}
    began = time.monotonic()
    time.sleep(IDLE_S)  # what must not happen needs time not to happen in
    for name, node in daemons.items():
        share = (gauge.cpu_s(pid(node)) - cpu[name]) / (time.monotonic() - began)
        figure(f"{name} daemon, CPU with 10,000 idle connections", f"{share:.2%} of a core")
        assert share < LARGEST_CPU
        assert count(node) == CONNECTIONS
        now = received(node)
        assert set(now) == set(heard[name]), "no tunnel ended and none was added"
        assert all(now[tunnel] > heard[name][tunnel] for tunnel in now), "every tunnel was pinged"
