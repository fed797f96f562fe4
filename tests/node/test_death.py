"""A daemon that is gone, was killed or stands still: nothing leaves in the clear."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.support.capture import capturing
from tests.support.nodes import App, TwoNodes, enduring, exchange, peer_echo, two_nodes, wait_for
from tests.support.versions import version

pytestmark = pytest.mark.root

SECRET = b"bytes of the app"
AT_ONCE_S = 0.05


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path) as made:
        yield made


@pytest.fixture
def app(nodes: TwoNodes) -> Iterator[App]:
    made = App(nodes.server, 7401, enduring(peer_echo))
    yield made
    made.close()


def answers(nodes: TwoNodes, ip: str) -> bool:
    return exchange(nodes.dial(7401, ip), SECRET).endswith(SECRET)


def assert_refused_at_once(nodes: TwoNodes, ip: str) -> None:
    """The median of a few attempts: one may meet a busy machine."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            nodes.dial(7401, ip)
        took.append(time.monotonic() - began)
    assert median(took) < AT_ONCE_S


def ended(sock: socket.socket) -> bool:
    """Whether an open connection is over, at the latest when the app writes; fail when it hangs."""
    try:
        sock.sendall(SECRET)
        return not sock.recv(100)
    except ConnectionError:
        return True


@pytest.mark.parametrize("family", [4, 6])
def test_the_capture_sees_what_is_in_the_clear(nodes: TwoNodes, app: App, family: int) -> None:
    nodes.a.client.call("unenroll", pod="demo/client")
    nodes.b.client.call("unenroll", pod="demo/server")
    with capturing(nodes.server) as capture:
        assert answers(nodes, nodes.server.ip4 if family == 4 else nodes.server.ip6)
    found = capture.in_the_clear(SECRET)
    assert any(packet.opens for packet in found)
    assert any(SECRET in packet.payload for packet in found)


@pytest.mark.parametrize("family", [4, 6])
def test_nothing_leaves_in_the_clear_over_death_and_return(nodes: TwoNodes, app: App, family: int) -> None:
    ip = nodes.server.ip4 if family == 4 else nodes.server.ip6
    with capturing(nodes.server) as capture:
        assert answers(nodes, ip)
        with nodes.dial(7401, ip) as open_one:
            nodes.a.stop(signal.SIGKILL)
            assert_refused_at_once(nodes, ip)
            assert ended(open_one)
        nodes.a.start()
        assert answers(nodes, ip)
    assert any(packet.opens for packet in capture.packets)
    assert capture.in_the_clear(SECRET) == []


@pytest.mark.parametrize("family", [4, 6])
def test_inbound_is_reset_at_once(nodes: TwoNodes, app: App, family: int) -> None:
    ip = nodes.server.ip4 if family == 4 else nodes.server.ip6
    nodes.a.client.call("unenroll", pod="demo/client")
    nodes.b.stop(signal.SIGKILL)
    assert_refused_at_once(nodes, ip)


def test_a_daemon_that_stands_still_holds_connections_and_lets_nothing_out(nodes: TwoNodes, app: App) -> None:
    """Its listeners' backlog accepts, as any stopped process's does; when it goes on, they are answered."""
    process = nodes.a.process
    assert process is not None
    with capturing(nodes.server) as capture:
        process.send_signal(signal.SIGSTOP)
        try:
            waiting = nodes.dial(7401)
            waiting.sendall(SECRET)
            waiting.settimeout(1)
            with pytest.raises(TimeoutError):
                waiting.recv(100)
        finally:
            process.send_signal(signal.SIGCONT)
        waiting.settimeout(10)
        assert waiting.recv(100).endswith(SECRET)
        waiting.close()
    assert capture.in_the_clear(SECRET) == []


def test_a_worker_that_dies_takes_the_daemon_along_and_lets_nothing_out(
    nodes: TwoNodes, app: App, tmp_path: Path
) -> None:
    word = tmp_path / "die"
    loop = "        while not self._is_stopping:\n"
    fault = f'{loop}            assert not __import__("os").path.exists("{word}")\n'
    nodes.a.stop()
    nodes.a.source = version(tmp_path / "mortal", {"zproxy/net/drivers.py": {loop: fault}})
    nodes.a.start()
    process = nodes.a.process
    assert process is not None
    with capturing(nodes.server) as capture:
        assert answers(nodes, nodes.server.ip4)
        word.touch()
        wait_for(lambda: process.poll() is not None, "the daemon ends")
        assert_refused_at_once(nodes, nodes.server.ip4)
    nodes.a.process = None
    assert capture.in_the_clear(SECRET) == []
