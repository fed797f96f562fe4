"""10,000 open connections are decided again after a change of the mesh, and others are served meanwhile."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.soak.conftest import Figure
from tests.support import load
from tests.support.local_config import yaml_of
from tests.support.mesh import workload
from tests.support.nodes import App, Node, TwoNodes, two_nodes, wait_for
from zproxy.model.policy import Action, Authorization, Match
from zproxy.model.service import GatewayAddress, NetworkAddress
from zproxy.model.workload import Workload

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

CONNECTIONS: Final = 10_000
LONGEST_S: Final = 1.0
"""From the signal until the last one is gone."""
LONGEST_PAUSE_S: Final = 0.05
"""Until another connection is answered while nothing is closed."""
LONGEST_PAUSE_CLOSING_S: Final = 0.25
"""And while the client's daemon and the load hear of 10,000 resets, a tunnel's worth at a time."""
PROBE: Final = 7410


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path) as made:
        yield made


def about(action: Action, port: int) -> Authorization:
    return Authorization("about", "demo", action=action, rules=(((Match(destination_ports=(port,)),),),))


def test_10_000_connections_are_decided_again_within_a_second(nodes: TwoNodes, figure: Figure) -> None:
    with (
        load.running(nodes.server, "serve") as server,
        closing(App(nodes.server, PROBE, echo)),
        load.running(nodes.client, "hold", nodes.server.ip4, str(CONNECTIONS)) as app,
    ):
        assert server.line() == "listening"
        assert app.line() == "up"
        with probed(nodes) as pauses:
            kept_s = change(nodes.b, nodes, about(Action.DENY, 9))
            figure("10,000 connections decided again, none closed", f"{kept_s * 1e3:.0f} ms")
            assert count(nodes.b) == CONNECTIONS + 1
        figure("longest pause of another connection meanwhile", f"{max(pauses) * 1e3:.1f} ms")
        assert max(pauses) < LONGEST_PAUSE_S
        with probed(nodes) as pauses:
            began = time.monotonic()
            change(nodes.b, nodes, about(Action.DENY, load.ECHO))
            wait_for(lambda: count(nodes.b) == 1, "all but the probe are closed")
            closed_s = time.monotonic() - began
            figure("10,000 connections closed by a policy within", f"{closed_s * 1e3:.0f} ms")
        figure("longest pause of another connection meanwhile", f"{max(pauses) * 1e3:.1f} ms")
        assert max(kept_s, closed_s) < LONGEST_S
        assert max(pauses) < LONGEST_PAUSE_CLOSING_S
    assert nodes.b.metric("istio_tcp_connections_failed", reporter="destination", response_flags="DENY") == (
        CONNECTIONS
    )


def test_10_000_connections_that_go_past_a_waypoint_are_closed_within_a_second(
    nodes: TwoNodes, figure: Figure
) -> None:
    with (
        load.running(nodes.server, "serve") as server,
        load.running(nodes.client, "hold", nodes.server.ip4, str(CONNECTIONS)) as app,
    ):
        assert server.line() == "listening"
        assert app.line() == "up"
        began = time.monotonic()
        waypoint = GatewayAddress(NetworkAddress("", "10.9.9.9"))
        change(nodes.a, nodes, workload("demo/waypoint", "10.9.9.9"), waypoint=waypoint)
        wait_for(lambda: count(nodes.a) == 0, "all are closed")
        closed_s = time.monotonic() - began
        figure("10,000 connections closed by a waypoint within", f"{closed_s * 1e3:.0f} ms")
        assert closed_s < LONGEST_S
    (line,) = nodes.a.lines("connections of demo/client closed because they are no longer allowed")
    assert f"{CONNECTIONS} connections" in line


def change(
    node: Node, nodes: TwoNodes, record: Authorization | Workload, waypoint: GatewayAddress | None = None
) -> float:
    """Give `node` another mesh; return how long it took until all was decided."""
    assert node.process is not None
    said = "the mesh was read again"
    before = len(node.lines(said))
    client, server = nodes.workloads()
    node.config.write_text(yaml_of(client, replace(server, waypoint=waypoint), record))
    began = time.monotonic()
    node.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(node.lines(said)) > before, "the mesh is read again")
    return time.monotonic() - began


def count(node: Node) -> int:
    return int(node.client.call("status")["connections_open"])


def echo(sock: socket.socket, _: Any) -> None:
    while data := sock.recv(4096):
        sock.sendall(data)


@contextmanager
def probed(nodes: TwoNodes) -> Iterator[list[float]]:
    """Keep asking on a connection of its own for the block; yield how long each answer took."""
    pauses: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            began = time.monotonic()
            sock.sendall(b"?")
            assert sock.recv(1) == b"?"
            pauses.append(time.monotonic() - began)

    with nodes.dial(PROBE) as sock:
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        wait_for(lambda: pauses, "the first answer")
        yield pauses
        is_over.set()
        thread.join()
