"""Two workers in one daemon: pods on different ones talk to each other as pods of two daemons do."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_config import yaml_of
from tests.support.mesh import workload
from tests.support.netns import PREFIX, Namespace, pair
from tests.support.nodes import WAIT_S, App, Node, exchange, peer_echo, wait_for

pytestmark = pytest.mark.root

ENDS = ("opened", "closed", "failed")
PODS = ("demo/left", "demo/right")


class OneNode:
    """A daemon with two workers, and two pods on it."""

    def __init__(self, directory: Path, left: Namespace, right: Namespace) -> None:
        self.pods = {PODS[0]: left, PODS[1]: right}
        self.left, self.right = left, right
        self.node = Node(f"{PREFIX}w", directory, directory / "ca", ["--workers", "2"])
        self.client = self.node.client
        workloads = [workload(name, *pod.ips, node=self.node.name) for name, pod in self.pods.items()]
        self.node.config.write_text(yaml_of(*workloads))

    def enroll(self, name: str) -> dict[str, Any]:
        row: dict[str, Any] = self.client.call("enroll", pod=name, netns=self.pods[name].name)
        return row

    def workers(self) -> dict[str, int]:
        return {row["pod"]: row["worker"] for row in self.client.call("pods")}

    def threads(self) -> list[str]:
        """Return the names of the daemon's threads, as ps and top show them."""
        assert self.node.process is not None
        tasks = Path(f"/proc/{self.node.process.pid}/task")
        return sorted((task / "comm").read_text().strip() for task in tasks.iterdir())


@pytest.fixture
def one(tmp_path: Path) -> Iterator[OneNode]:
    with ExitStack() as stack:
        made = OneNode(tmp_path, *stack.enter_context(pair("left", "right")))
        stack.callback(made.node.clean)
        made.node.start()
        for name in PODS:
            made.enroll(name)
        yield made


def dial(pod: Namespace, to: Namespace, port: int) -> socket.socket:
    sock = pod.socket()
    sock.settimeout(WAIT_S)
    try:
        sock.connect((to.ip4, port))
    except OSError:
        sock.close()
        raise
    return sock


def works(pod: Namespace, to: Namespace, port: int) -> bool:
    """Whether a connection arrives, from the pod's own address."""
    return exchange(dial(pod, to, port), b"x") == f"{pod.ip4} x".encode()


def test_pods_on_different_workers_talk_hbone_both_ways(one: OneNode) -> None:
    assert one.workers() == {"demo/left": 0, "demo/right": 1}
    assert {"zproxy", "zproxy-w0", "zproxy-w1"} <= set(one.threads())
    with closing(App(one.left, 7301, peer_echo)), closing(App(one.right, 7302, peer_echo)):
        assert works(one.left, one.right, 7302)
        assert works(one.right, one.left, 7301)
    for port, here, there in ((7302, "left", "right"), (7301, "right", "left")):
        to = one.pods[f"demo/{there}"].ip4
        lines = one.node.access(f"dst.hbone_addr={to}:{port} ", 2)
        assert sorted(line.partition('direction="')[2].partition('"')[0] for line in lines) == [
            "inbound",
            "outbound",
        ]
        for line in lines:
            assert f'src.identity="spiffe://cluster.local/ns/demo/sa/{here}"' in line
            assert f'dst.identity="spiffe://cluster.local/ns/demo/sa/{there}"' in line
            assert "error=" not in line


def test_200_connections_at_once_are_complete_everywhere_and_share_one_tunnel_per_key(one: OneNode) -> None:
    with closing(App(one.right, 7311, peer_echo)), ExitStack() as stack:
        # A hundred are what one tunnel carries: the next would have a sibling.
        held = [stack.enter_context(dial(one.left, one.right, 7311)) for _ in range(100)]
        for sock in held:
            sock.sendall(b"x")
        assert [sock.recv(100) for sock in held] == [f"{one.left.ip4} x".encode()] * 100
        with closing(App(one.left, 7312, peer_echo)):
            back = [stack.enter_context(dial(one.right, one.left, 7312)) for _ in range(100)]
            rows = [row for row in one.client.call("connections") if row["state"] == "open"]
            assert len(rows) >= 200
            for sock in back:
                sock.sendall(b"y")
            assert [sock.recv(100) for sock in back] == [f"{one.right.ip4} y".encode()] * 100
    wait_for(lambda: one.client.call("status")["connections_open"] == 0, "all connections ended")
    status = one.client.call("status")
    assert status["connections_opened_total"] == status["connections_closed_total"] == 400
    assert status["connections_failed_total"] == 0
    assert [row["pods"] for row in status["workers"]] == [1, 1]
    for reporter in ("source", "destination"):
        counted = [one.node.metric(f"istio_tcp_connections_{name}", reporter=reporter) for name in ENDS]
        assert counted == [200, 200, 0], "sums over both workers"
    assert one.node.metric("zproxy_tunnels_opened", role="server") == 2
    rows = one.client.call("connections")
    assert len({row["id"] for row in rows}) == len(rows) == 400
    tunnels = one.client.call("tunnels")
    assert len({row["id"] for row in tunnels}) == 4
    keys = [(row["pod"], row["role"], row["worker"]) for row in tunnels]
    assert sorted(keys) == [
        ("demo/left", "client", 0),
        ("demo/left", "server", 0),
        ("demo/right", "client", 1),
        ("demo/right", "server", 1),
    ]
    assert [row["streams_total"] for row in tunnels] == [100] * 4


def test_a_pod_that_leaves_and_comes_again_is_as_before(one: OneNode) -> None:
    with closing(App(one.right, 7321, peer_echo)):
        assert works(one.left, one.right, 7321)
        for name in PODS:
            one.client.call("unenroll", pod=name)
            assert one.enroll(name)["changed"] is True
            assert one.enroll(name)["changed"] is False
            assert one.workers() == {"demo/left": 0, "demo/right": 1}
            assert works(one.left, one.right, 7321)
    assert len(one.node.access(f"dst.hbone_addr={one.right.ip4}:7321 ", 6)) == 6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_pods_are_refused_without_the_daemon_and_taken_up_by_the_next(
    one: OneNode, number: signal.Signals
) -> None:
    with closing(App(one.right, 7331, peer_echo)):
        assert works(one.left, one.right, 7331)
        one.node.stop(number)
        with pytest.raises(ConnectionRefusedError):
            dial(one.left, one.right, 7331)
        one.node.start()
        assert one.workers() == {"demo/left": 0, "demo/right": 1}
        assert works(one.left, one.right, 7331)


def test_open_connections_end_within_the_drain(one: OneNode) -> None:
    with closing(App(one.right, 7341, peer_echo)):
        sock = dial(one.left, one.right, 7341)
        wait_for(lambda: one.client.call("status")["connections_open"] == 2, "the stream is up")
        assert one.node.process is not None
        one.node.process.send_signal(signal.SIGTERM)
        wait_for(lambda: one.node.lines("stopping"), "the daemon begins to stop")
        assert exchange(sock, b"last words").endswith(b" last words")
        assert one.node.process.wait(WAIT_S) == 0
