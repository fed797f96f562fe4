"""One daemon and the many pods that it is to enrol, with what its clients and /proc say about it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import gauge, load
from tests.support.fleet import Fleet, fleet
from tests.support.local_config import yaml_of
from tests.support.netns import PREFIX
from tests.support.nodes import Node, wait_for


class Crowd:
    """Pods have the numbers of the fleet's list."""

    def __init__(self, node: Node, pods: Fleet) -> None:
        self.node = node
        self.fleet = pods

    @property
    def pid(self) -> int:
        """The daemon's process now."""
        assert self.node.process is not None
        return self.node.process.pid

    def enroll(self, number: int) -> float:
        """Enrol a pod; return the milliseconds until the daemon's answer was there."""
        began = time.monotonic()
        self.node.client.call("enroll", pod=f"demo/pod-{number}", netns=self.fleet.pods[number].name)
        return (time.monotonic() - began) * 1e3

    def unenroll(self, number: int) -> float:
        """Take a pod out again; return the milliseconds that it took."""
        began = time.monotonic()
        self.node.client.call("unenroll", pod=f"demo/pod-{number}")
        return (time.monotonic() - began) * 1e3

    def steered(self) -> int:
        """Return how many connections have come to the daemon."""
        return int(self.node.client.call("status")["connections_opened_total"])

    def restart(self) -> float:
        """End the daemon and start it again; return the seconds until it answers, all pods restored."""
        self.node.stop()
        began = time.monotonic()
        self.node.start()
        return time.monotonic() - began

    def churn(self, number: int, count: int) -> float:
        """Let a pod make `count` connections to the peer; return the daemon's CPU for each in us."""
        pod, peer = self.fleet.pods[number], self.fleet.peer
        with load.running(peer, "serve") as server:
            assert server.line() == "listening"
            before = gauge.cpu_s(self.pid)
            with load.running(pod, "churn", peer.ip4, str(count)) as churn:
                ended = json.loads(churn.line())["ended"]
            wait_for(lambda: self.node.client.call("status")["connections_open"] == 0, "all are closed")
            spent = gauge.cpu_s(self.pid) - before
        assert ended == {kind: count * load.KINDS.count(kind) // len(load.KINDS) for kind in load.KINDS}
        return spent / count * 1e6


@contextmanager
def crowd(count: int, directory: Path) -> Iterator[Crowd]:
    """Make `count` pods and start the daemon of all of them; none is enrolled yet."""
    with fleet(count) as pods:
        node = Node(f"{PREFIX}crowd", directory, directory / "ca")
        node.config.write_text(yaml_of(*pods.workloads(node.name)))
        try:
            node.start()
            yield Crowd(node, pods)
        finally:
            node.clean()
