"""`zproxy enroll --fail-open`: traffic passes in the clear while no daemon lives, and only then."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nodes import App, TwoNodes, exchange, peer_echo, two_nodes, wait_for
from zproxy.steering import decoded

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

PATIENCE_S = 4.0
"""Three beats that do not come, and what it takes to look."""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path) as made:
        app = App(made.server, 8080, peer_echo)
        yield made
        app.close()


def answer(nodes: TwoNodes) -> bytes:
    """Return what the server's app says to the client's, nothing when the connection is refused or reset."""
    try:
        return exchange(nodes.dial(), b"hello")
    except ConnectionError:
        return b""


def count(nodes: TwoNodes, reason: str) -> int:
    with decoded.opened(nodes.a.name) as maps:
        return int(next(row["count"] for row in decoded.stats(maps) if row["reason"] == reason))


def let_fail_open(nodes: TwoNodes) -> None:
    nodes.a.client.call("enroll", pod="demo/client", netns=nodes.client.name, options={"fail_open": True})
    wait_for(lambda: nodes.a.lines("demo/client fails open"), "a warning")


def test_a_pod_that_fails_open_is_let_out_when_its_daemon_was_killed_and_steered_when_it_is_back(
    nodes: TwoNodes,
) -> None:
    let_fail_open(nodes)
    said = f"{nodes.client.ip4} hello".encode()
    assert answer(nodes) == said
    assert nodes.a.access('direction="outbound"')
    nodes.a.stop(signal.SIGKILL)
    wait_for(lambda: answer(nodes) == said, "traffic passes without a daemon", PATIENCE_S)
    assert count(nodes, "fail_open_out") > 0
    nodes.a.start()
    before = len(nodes.a.access('direction="outbound"'))
    assert answer(nodes) == said
    assert nodes.a.access('direction="outbound"', before + 1)


def test_an_orderly_end_is_known_at_once(nodes: TwoNodes) -> None:
    let_fail_open(nodes)
    assert answer(nodes)
    nodes.a.stop()
    assert answer(nodes) == f"{nodes.client.ip4} hello".encode()


def test_what_comes_in_passes_as_well(nodes: TwoNodes) -> None:
    let_fail_open(nodes)
    nodes.a.stop(signal.SIGKILL)
    app = App(nodes.client, 9090, peer_echo)

    def reached() -> bool:
        with nodes.server.netns.run(lambda: socket.socket(socket.AF_INET)) as sock:
            sock.settimeout(1)
            nodes.b.client.call("status")
            try:
                sock.connect((nodes.client.ip4, 9090))
                return exchange(sock.dup(), b"in").endswith(b"in")
            except OSError:
                return False

    nodes.b.client.call("unenroll", pod="demo/server")
    wait_for(reached, "a stranger reaches the pod's app", PATIENCE_S)
    app.close()
    assert count(nodes, "fail_open_in") > 0


def test_a_pod_that_did_not_ask_for_it_never_passes(nodes: TwoNodes) -> None:
    assert answer(nodes)
    nodes.a.stop(signal.SIGKILL)
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        assert answer(nodes) == b""
    assert count(nodes, "fail_open_out") == 0
