"""Pods behind their own proxy, as waypoints in a sandwich are, and who calls on them in every wrong way.

`client` and `alien` are pods of node a, `server`, `plain` and `proxied` of node b; `stranger` is in no mesh.
`plain` and `proxied` are waypoints of a service of `server` each: their apps are reached by an application
tunnel, and pass on to `server` what they get.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.support.fleet import fleet
from tests.support.local_config import yaml_of
from tests.support.mesh import service, workload
from tests.support.netns import PREFIX, Namespace
from tests.support.nodes import WAIT_S, Node, wait_for
from tests.support.raw import RawPeer
from zproxy.config import Limits
from zproxy.identity.ca import LocalCa
from zproxy.model.identity import SpiffeId
from zproxy.model.service import GatewayAddress, NetworkAddress
from zproxy.model.workload import ApplicationTunnel, AppProtocol, ServicePort, Workload
from zproxy.wire.headers import connect_block
from zproxy.wire.proxy_protocol import SIGNATURE
from zproxy.wire.stream import Role
from zproxy.wire.tls_stdlib import StdlibEngine

NAMES: Final = ("client", "server", "plain", "proxied", "alien", "stranger")
HOSTNAME: Final = "server.demo.svc.cluster.local"
KEY: Final = f"demo/{HOSTNAME}"
APP, NAMED_APP, TUNNEL_PORT = 8080, 8081, 15088
VIPS: Final = {"plain": "10.96.78.1", "proxied": "10.96.78.2"}
STRANGE: Final = SpiffeId("cluster.local", "demo", "stranger")


class Sandwich:
    """Both nodes and all pods."""

    def __init__(self, directory: Path, pods: Mapping[str, Namespace]) -> None:
        self.pods = pods
        self.a = Node(f"{PREFIX}sa", directory, directory / "ca")
        self.b = Node(f"{PREFIX}sb", directory, directory / "ca")
        self.nodes = (self.a, self.b)

    def write_mesh(self) -> None:
        """Write both daemons' mesh file."""
        guarded = [
            service(
                f"demo/{name}-guarded.test",
                vip,
                ports={80: APP},
                waypoint=GatewayAddress(NetworkAddress("", self.pods[name].ip4)),
            )
            for name, vip in VIPS.items()
        ]
        named = service(KEY, ports={80: APP, 81: 0})
        for node in self.nodes:
            node.config.write_text(yaml_of(*self._workloads(), *guarded, named))

    def _workloads(self) -> list[Workload]:
        on = {name: self.b if name in {"server", "plain", "proxied"} else self.a for name in NAMES}
        pods = {
            name: workload(f"demo/{name}", *self.pods[name].ips, node=on[name].name) for name in NAMES[:-1]
        }
        tunnels = {"plain": AppProtocol.NONE, "proxied": AppProtocol.PROXY}
        for name, protocol in tunnels.items():
            tunnel = ApplicationTunnel(protocol, TUNNEL_PORT)
            pods[name] = replace(pods[name], application_tunnel=tunnel)
        pods["alien"] = replace(pods["alien"], trust_domain="clusterset.local")
        ports = (ServicePort(KEY, 80, APP), ServicePort(KEY, 81, NAMED_APP))
        pods["server"] = replace(pods["server"], services=(KEY,), service_ports=ports)
        return list(pods.values())

    def start(self) -> None:
        """Start both daemons and enrol the pods of the mesh."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.await_ready()
        for name, node in zip(NAMES, (self.a, self.b, self.b, self.b, self.a), strict=False):
            node.client.call("enroll", pod=f"demo/{name}", netns=self.pods[name].name)

    def dial(self, name: str, ip: str, port: int) -> socket.socket:
        """Connect from a pod."""
        sock = self.pods[name].socket()
        sock.settimeout(WAIT_S)
        try:
            sock.connect((ip, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def passing_on(self, name: str, arrivals: list["Arrival"]) -> Callable[[socket.socket, Any], None]:
        """Return the app of a waypoint: it notes who came, and how, and asks the server the same."""

        def serve(sock: socket.socket, peer: Any) -> None:
            ip = str(peer[0]).removeprefix("::ffff:")
            header = _header(sock) if name == "proxied" else b""
            arrivals.append(Arrival(ip, header))
            said = sock.recv(65536)
            with self.dial(name, self.pods["server"].ip4, APP) as onward:
                onward.sendall(said)
                sock.sendall(onward.recv(65536))

        return serve

    def tunnel(self, identity: SpiffeId = STRANGE) -> "Tunnel":
        """Return a tunnel of the stranger to the server's 15008, with a certificate of the mesh's CA."""
        ca = LocalCa.open(self.a.ca)
        credentials = ca.issue(identity).credentials._replace(roots=ca.root.pem)
        sock = self.dial("stranger", self.pods["server"].ip4, 15008)
        peer = RawPeer(sock, StdlibEngine().client(credentials), Role.CLIENT, Limits())
        peer.tls.handshake()
        return Tunnel(peer)


class Arrival:
    """What a waypoint's app saw of a connection."""

    def __init__(self, ip: str, header: bytes) -> None:
        self.ip = ip
        self.header = header
        """Of the PROXY protocol, whole; empty where there is none."""

    @property
    def ends(self) -> tuple[str, int, str, int]:
        """Source and destination, as the header has them."""
        source, destination = (socket.inet_ntoa(self.header[at : at + 4]) for at in (16, 20))
        ports = (int.from_bytes(self.header[at : at + 2], "big") for at in (24, 26))
        return source, next(ports), destination, next(ports)

    @property
    def tlv(self) -> tuple[int, bytes]:
        """The one TLV: type and value."""
        size = int.from_bytes(self.header[29:31], "big")
        assert len(self.header) == 31 + size
        return self.header[28], self.header[31:]


class Tunnel:
    """A tunnel that the test speaks by itself."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Take part in the tunnel until `condition` holds."""

        def holds() -> Any:
            self.peer.step()
            return condition()

        wait_for(holds, what)

    def ask(self, authority: str, data: bytes, baggage: str = "") -> tuple[int, bytes]:
        """Send a CONNECT, and when it is accepted the data; return the status and the app's answer.

        `baggage` is what the tunnel's peer says about itself.
        """
        peer = self.peer
        self.until(lambda: peer.wire.is_ready, "the tunnel is up")
        stream = peer.wire.open_stream(connect_block(authority, baggage=baggage))
        self.until(lambda: stream.id in peer.answers, "the CONNECT is answered")
        status = peer.answers[stream.id][0]
        if status == 200:
            peer.wire.budget(stream)
            peer.send(stream, data)
            self.until(lambda: peer.data.get(stream.id), "the app answers")
        return status, bytes(peer.data.get(stream.id, b""))


def _header(sock: socket.socket) -> bytes:
    """Read a PROXY header, version 2, and no byte more."""
    head = _exactly(sock, 16)
    assert head.startswith(SIGNATURE)
    return head + _exactly(sock, int.from_bytes(head[14:16], "big"))


def _exactly(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (more := sock.recv(size - len(got))):
        got += more
    return got


@contextmanager
def sandwich(directory: Path) -> Iterator[Sandwich]:
    """Make all of it for the block."""
    with fleet(len(NAMES)) as made, ExitStack() as stack:
        world = Sandwich(directory, dict(zip(NAMES, made.pods, strict=True)))
        world.write_mesh()
        for node in world.nodes:
            stack.callback(node.clean)
        world.start()
        yield world
