"""A mesh of two networks on real namespaces: services, waypoints, a gateway, and who is not there.

`client` and `one` are pods of node a, `two` and `far` of node b, the latter on the other network. `waypoint`,
`gateway` and `remote` are HBONE servers that the test plays, with certificates of the mesh's own CA; `plain`
has no proxy, `gone` nothing.
"""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.support.fleet import fleet
from tests.support.gateway import Dial, Gateway, running
from tests.support.local_config import yaml_of
from tests.support.mesh import behind, service, workload
from tests.support.netns import PREFIX, Namespace
from tests.support.nodes import WAIT_S, App, Node
from tests.support.steered import Counters, dialled, settled
from zproxy.identity.ca import LocalCa
from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.model.service import (
    GatewayAddress,
    LoadBalancer,
    NamespacedHostname,
    NetworkAddress,
    Service,
    SessionAffinity,
)
from zproxy.model.workload import Protocol, Workload

NAMES: Final = ("client", "one", "two", "waypoint", "gateway", "remote", "plain", "gone", "far")
HOME: Final = "home"
ELSEWHERE: Final = "elsewhere"
WAYPOINT_NAME: Final = "waypoint.zproxy.test"
GATEWAY_NAME: Final = "gateway.zproxy.test"
ECHO: Final = SpiffeId("cluster.local", "demo", "remote")
APP: Final = 8080
WEB_V6: Final = "fd96:77::1"
SUFFIX: Final = "demo.svc.cluster.local"


def vip(number: int) -> str:
    """The address of a service; nobody has it."""
    return f"10.96.77.{number}"


class Meshed:
    """Everything of it; `services` by name, each on port 80."""

    def __init__(self, directory: Path, pods: Mapping[str, Namespace]) -> None:
        self.pods = pods
        self.a = Node(f"{PREFIX}ma", directory, directory / "ca")
        self.b = Node(f"{PREFIX}mb", directory, directory / "ca")
        self.nodes = (self.a, self.b)
        self.services: dict[str, Service] = {}
        self._members: dict[str, list[str]] = {}
        self._directory = directory
        self._plan()

    def _plan(self) -> None:
        waypoint = self.pods["waypoint"].ip4
        self._add("web", "one", "two", more=(WEB_V6,))
        self._add("sick", "one", "gone")
        self._add("halting", "plain", "two")
        self._add(
            "sticky", "one", "two", load_balancer=LoadBalancer(session_affinity=SessionAffinity.CLIENT_IP)
        )
        self._add("guarded-by-vip", "two", waypoint=_at(NetworkAddress(HOME, vip(99))))
        self._add("guarded-by-ip", "two", waypoint=_at(NetworkAddress(HOME, waypoint)))
        self._add("guarded-by-service", "two", waypoint=_at(NamespacedHostname("demo", f"waypoint.{SUFFIX}")))
        self._add("guarded-by-workload", "two", waypoint=_at(NamespacedHostname("demo", WAYPOINT_NAME)))
        self._add("remote-by-ip", "far-by-ip", subject_alt_names=(str(ECHO),))
        self._add("remote-pod", "far", subject_alt_names=(str(account("far")),))
        self._add("remote-by-name", "far-by-name", subject_alt_names=(str(ECHO),))
        way = service(f"demo/waypoint.{SUFFIX}", vip(99), ports={15008: 15008})
        self.services["waypoint"] = _at_home(way)
        self._members["waypoint"] = ["waypoint"]

    def _add(self, name: str, *members: str, more: Sequence[str] = (), **fields: Any) -> None:
        number = len(self.services) + 1
        key = f"demo/{name}.{SUFFIX}"
        self.services[name] = _at_home(service(key, vip(number), *more, ports={80: APP}, **fields))
        self._members[name] = list(members)

    def workloads(self) -> list[Workload]:
        """Return all records."""
        pods = self.pods
        gateway = pods["gateway"].ip4
        records = [
            workload("demo/client", *pods["client"].ips, node=self.a.name),
            workload("demo/one", *pods["one"].ips, node=self.a.name),
            workload("demo/two", *pods["two"].ips, node=self.b.name),
            workload("demo/waypoint", *pods["waypoint"].ips, node="n3"),
            workload("demo/named-waypoint", hostname=WAYPOINT_NAME, service_account="waypoint"),
            workload(
                "demo/guarded", *pods["remote"].ips, waypoint=_at(NetworkAddress(HOME, pods["waypoint"].ip4))
            ),
            workload("demo/plain", *pods["plain"].ips, protocol=Protocol.TCP),
            workload("demo/gone", *pods["gone"].ips),
            workload("demo/gateway", gateway, network=ELSEWHERE, hostname=GATEWAY_NAME),
            workload(
                "demo/far-by-ip",
                network=ELSEWHERE,
                network_gateway=_at(NetworkAddress(ELSEWHERE, gateway)),
            ),
            workload(
                "demo/far",
                *pods["far"].ips,
                node=self.b.name,
                network=ELSEWHERE,
                network_gateway=_at(NetworkAddress(ELSEWHERE, gateway)),
            ),
            workload(
                "demo/far-by-name",
                network=ELSEWHERE,
                network_gateway=_at(NamespacedHostname("demo", GATEWAY_NAME)),
            ),
        ]
        return [
            behind(
                replace(each, network=each.network or HOME),
                *(self.services[name] for name, of in self._members.items() if each.name in of),
            )
            for each in records
        ]

    def write_mesh(self) -> None:
        """Write both daemons' mesh file."""
        for node in self.nodes:
            node.config.write_text(yaml_of(*self.workloads(), *self.services.values()))

    def start(self) -> None:
        """Start both daemons and enrol the pods; names resolve as the mesh's own."""
        hosts = self._directory / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{self.pods['waypoint'].ip4} {WAYPOINT_NAME}\n")
        within = 'mount --bind "$0" /etc/hosts && exec "$@"'
        for node in self.nodes:
            node.wrapper = ("unshare", "--mount", "--propagation", "slave", "sh", "-c", within, str(hosts))
            node.launch()
        for node in self.nodes:
            node.await_ready()
        for name, node in (("client", self.a), ("one", self.a), ("two", self.b), ("far", self.b)):
            node.client.call("enroll", pod=f"demo/{name}", netns=self.pods[name].name)

    def played(self, name: str, identity: SpiffeId, forwards: Mapping[str, Dial]) -> Gateway:
        """Return an HBONE server on 15008 of a namespace, with a certificate of the mesh's CA."""
        ca = LocalCa.open(self.a.ca)
        credentials = ca.issue(identity).credentials._replace(roots=ca.root.pem)
        return Gateway(self.pods[name].listen(15008), credentials, forwards)

    def dial(self, name: str, port: int = 80, source_ip: str = "") -> socket.socket:
        """Connect from the client pod to a service."""
        return self.dial_ip(self.services[name].vips[0].ip, port, source_ip)

    def dial_ip(self, ip: str, port: int, source_ip: str = "") -> socket.socket:
        """Connect from the client pod."""
        sock = self.pods["client"].socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
        sock.settimeout(WAIT_S)
        try:
            if source_ip:
                sock.bind((source_ip, 0))
            sock.connect((ip, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def ask(self, ip: str, port: int, data: bytes) -> tuple[bytes, str]:
        """Exchange with an address; return the answer, nothing after a reset, and the access log line.

        Whatever becomes of it, it was steered once, and the maps know what was dialled until it is closed.
        """
        pod = self.pods["client"]
        before = settled(self.a, pod)
        with pod.socket() as sock:
            sock.settimeout(WAIT_S)
            sock.bind((pod.ip4, 0))
            source = Endpoint(*sock.getsockname())
            try:
                sock.connect((ip, port))
                sock.sendall(data)
                answer = sock.recv(65536)
            except ConnectionError:
                answer = b""
            assert dialled(self.a, pod) == {source: Endpoint(ip, port)}
        assert settled(self.a, pod) - before == Counters(open=0, opened=1, refused=0, inbound=0)
        return answer, self.line(source.port)

    def ask_service(self, name: str, data: bytes) -> tuple[bytes, str]:
        """Likewise, of a service."""
        return self.ask(self.services[name].vips[0].ip, 80, data)

    def line(self, source_port: int) -> str:
        """Return the access log line of the client's connection from a port."""
        return self.a.access(f"src.addr={self.pods['client'].ip4}:{source_port} ")[-1]

    def connector(self, name: str, ip: str, port: int) -> Callable[[], socket.socket]:
        """Return what connects from a namespace to an address."""

        def connect() -> socket.socket:
            sock = self.pods[name].socket()
            sock.connect((ip, port))
            return sock

        return connect


def named(name: str) -> Callable[[socket.socket, Any], None]:
    """Return an app that answers one line with its name, the client's address and the line."""

    def answer(sock: socket.socket, peer: Any) -> None:
        line = sock.recv(65536)
        sock.sendall(f"{name} {str(peer[0]).removeprefix('::ffff:')} ".encode() + line)

    return answer


def _at_home(item: Service) -> Service:
    return replace(item, vips=tuple(each._replace(network=HOME) for each in item.vips))


def _at(destination: NetworkAddress | NamespacedHostname) -> GatewayAddress:
    return GatewayAddress(destination)


@contextmanager
def meshed(directory: Path) -> Iterator[Meshed]:
    """Make all of it for the block: apps called as their pods on 8080, and the three played servers."""
    with fleet(len(NAMES)) as made, ExitStack() as stack:
        world = Meshed(directory, dict(zip(NAMES, made.pods, strict=True)))
        world.write_mesh()
        for node in world.nodes:
            stack.callback(node.clean)
        world.start()
        for name in ("one", "two", "waypoint", "remote", "plain", "far"):
            stack.callback(App(world.pods[name], APP, named(name)).close)
        yield world


@contextmanager
def waypoint(world: Meshed, *authorities: str) -> Iterator[Gateway]:
    """Play the waypoint: it answers for `authorities` by the app in its own pod."""
    app = world.connector("waypoint", "127.0.0.1", APP)
    with running(world.played("waypoint", account("waypoint"), dict.fromkeys(authorities, app))) as made:
        yield made


@contextmanager
def beyond(world: Meshed, authority: str, port: int = APP) -> Iterator[tuple[Gateway, Gateway]]:
    """Play the gateway and, behind it, the server of `authority`, whose app is on `port`."""
    server = world.played("remote", ECHO, {authority: world.connector("remote", "127.0.0.1", port)})
    server.headers = (("baggage", "k8s.cluster.name=far,k8s.namespace.name=demo,k8s.deployment.name=echo"),)
    way = {authority: world.connector("gateway", world.pods["remote"].ip4, 15008)}
    with (
        running(server) as inner,
        running(world.played("gateway", account("gateway"), way)) as outer,
    ):
        yield outer, inner


def account(name: str) -> SpiffeId:
    """The identity of a service account of the mesh's namespace."""
    return ECHO._replace(service_account=name)
