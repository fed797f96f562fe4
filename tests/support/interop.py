"""One Envoy and one zproxy daemon, and apps in the two pods that talk through both.

Outward: the client pod is enrolled and steered, its zproxy opens tunnels to an Envoy in the server pod.
Inward: an Envoy in the client pod opens tunnels to the zproxy of the enrolled server pod.
"""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.envoy import Envoy
from tests.support.envoy_config import Config, Keys, Tunnel, client, save, server
from tests.support.netns import Namespace, pair
from tests.support.nodes import Node, TwoNodes, wait_for
from zproxy.identity.ca import LocalCa
from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId

CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")
HBONE = 15008


@dataclass(slots=True)
class Way:
    """A direction: the pods, and the one daemon, which serves the pod that is not Envoy's."""

    nodes: TwoNodes
    is_outward: bool

    @property
    def node(self) -> Node:
        """The daemon."""
        return self.nodes.a if self.is_outward else self.nodes.b

    @property
    def envoy_pod(self) -> Namespace:
        """Where Envoy runs."""
        return self.nodes.server if self.is_outward else self.nodes.client

    def keys(self, identity: SpiffeId | None = None, ca: Path | None = None) -> Keys:
        """Return a certificate of `identity`, by default Envoy's own, from the mesh's CA or another."""
        of = identity or (SERVER if self.is_outward else CLIENT)
        credentials = LocalCa.open(ca or self.node.ca).issue(of).credentials
        roots = LocalCa.open(self.node.ca).root.pem
        name = f"{of.service_account}-{'mesh' if ca is None else ca.name}"
        return save(credentials._replace(roots=roots), self.node.config.parent, name)

    def address(self, family: str = "v4") -> str:
        """Return the server pod's address."""
        return self.nodes.server.ip4 if family == "v4" else self.nodes.server.ip6

    def tunnel(self, port: int, family: str = "v4") -> Tunnel:
        """Let Envoy's client send what reaches its port `port` to the same port of the server pod."""
        ip = self.address(family)
        return Tunnel(port, str(Endpoint(ip, port)), Endpoint(ip, HBONE), str(SERVER))

    def config(self, port: int, family: str = "v4", keepalive_s: float | None = None) -> Config:
        """Return Envoy's configuration for this direction."""
        if self.is_outward:
            return server(self.keys(), keepalive_s=keepalive_s)
        return client(self.keys(), [self.tunnel(port, family)], keepalive_s=keepalive_s)

    @contextmanager
    def link(
        self,
        port: int,
        family: str = "v4",
        change: Callable[[Config], Config] = lambda config: config,
        keepalive_s: float | None = None,
    ) -> Iterator["Link"]:
        """Run an Envoy through which the client pod reaches `port` of the server pod.

        It goes when zproxy has heard the end of every connection: else the apps would be reset.
        """
        with Envoy(self.envoy_pod, change(self.config(port, family, keepalive_s))) as envoy:
            link = Link(self, envoy, Endpoint(self.address(family), port))
            yield link
            wait_for(lambda: all(row["state"] != "open" for row in link.rows()), "all connections end")


class Link:
    """A path from the client pod to `to`, and all that is said about it."""

    def __init__(self, way: Way, envoy: Envoy, to: Endpoint) -> None:
        self.way = way
        self.envoy = envoy
        self.to = to

    def dial(self) -> socket.socket:
        """Connect as the client app does."""
        if self.way.is_outward:
            return self.way.nodes.dial(self.to.port, self.to.ip)
        return self.way.nodes.dial(self.to.port, "::1" if self.to.is_v6 else "127.0.0.1")

    def lines(self, count: int = 1) -> list[str]:
        """Wait for zproxy's access log lines and return them."""
        return self.way.node.access(f"dst.hbone_addr={self.to} ", count)

    def entries(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for Envoy's access log entries and return them."""
        kind = "request" if self.way.is_outward else "tunnel"
        return self.envoy.access(count, kind=kind, authority=str(self.to))

    def rows(self) -> list[dict[str, Any]]:
        """Return zproxy's connections on this path, ended ones included."""
        return [row for row in self.way.node.client.call("connections") if row["hbone_addr"] == str(self.to)]

    def tunnels(self) -> list[dict[str, Any]]:
        """Return zproxy's tunnels."""
        tunnels: list[dict[str, Any]] = self.way.node.client.call("tunnels")
        return tunnels

    def envoy_tunnels(self) -> int:
        """Return how many tunnels Envoy holds."""
        name = (
            "http.hbone.downstream_cx_active" if self.way.is_outward else "cluster.hbone-0.upstream_cx_active"
        )
        return self.envoy.stat(name)


@contextmanager
def way(directory: Path, *, is_outward: bool) -> Iterator[Way]:
    """Make the pods, start the daemon and enrol the pod that is not Envoy's."""
    with ExitStack() as stack:
        nodes = TwoNodes(directory, *stack.enter_context(pair()))
        made = Way(nodes, is_outward)
        stack.callback(made.node.clean)
        made.node.start()
        if is_outward:
            nodes.enroll_client()
        else:
            nodes.enroll_server()
        yield made


def resident_kib(node: Node) -> int:
    """Return the memory that a daemon holds, in KiB."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1])


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Return `size` bytes, or fewer when the stream ends."""
    got = bytearray()
    while len(got) < size and (chunk := sock.recv(min(1 << 20, size - len(got)))):
        got += chunk
    return bytes(got)
