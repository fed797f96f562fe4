"""A pod of a real daemon whose DNS is captured, resolvers beside it, and what all say about a query.

The resolvers are addresses of a machine that is no pod. The pod's resolv.conf is what kubelet writes, with
two of them. Programs of the pod see it by `ip netns exec` (ip-netns(8)).
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import dns.message
import yaml

from tests.support.books import Ledger, What, read
from tests.support.fleet import fleet
from tests.support.local_config import yaml_of
from tests.support.mesh import behind, service, workload
from tests.support.netns import PREFIX, Namespace, batch
from tests.support.nodes import App, Node
from tests.support.resolver import PORT, Resolver, resolver
from zproxy.model.addr import Endpoint
from zproxy.model.service import Service
from zproxy.model.workload import Protocol, Workload
from zproxy.steering import decoded
from zproxy.steering.resolvers import Resolvers

FIRST, SECOND, OTHER, SIX, NOBODY = "10.96.0.10", "10.96.0.11", "192.0.2.53", "2001:db8:53::53", "192.0.2.54"
"""The nameservers of the pod's resolv.conf; others that an app may ask; one that refuses."""
SEARCH: Final = ("demo.svc.cluster.local", "svc.cluster.local", "cluster.local")
RESOLV_CONF: Final = f"""\
search {" ".join(SEARCH)}
nameserver {FIRST}
nameserver {SECOND}
options ndots:5 timeout:9 attempts:1
"""
FILES: Final = {
    "resolv.conf": RESOLV_CONF,
    "nsswitch.conf": "hosts: files dns\n",
    "hosts": "127.0.0.1 localhost\n",
}
STUB: Final = Path(__file__).with_name("stub.c")
NETNS_FILES: Final = Path("/etc/netns")
WEB4, WEB6 = "10.96.78.1", "fd96:78::1"
OLD4, STORE4, WILD4, API4 = "10.96.78.2", "10.96.78.3", "10.96.78.4", "10.96.78.5"
DB: Final = {"db-0": ("10.78.99.1", "fd78:99::1"), "db-1": ("10.78.99.2",)}
BIG: Final = 256
TEXT: Final = b"hello from web\n"
TRACE: Final = {"canonical_name": "shop-window", "canonical_revision": "v7"}


class Answer(NamedTuple):
    """What dig got."""

    status: str
    flags: list[str]
    records: list[str]
    """Of the answer section, as a zone file has them."""
    protocol: str
    source: str

    def data(self, kind: str) -> list[str]:
        """Return the values of the records of a type, sorted."""
        found = (line.split(" ", 4) for line in self.records)
        return sorted(fields[4] for fields in found if fields[3] == kind)


class Captured:
    """`client` is the pod, `web` another one that is enrolled, `stranger` a host of their network."""

    def __init__(self, directory: Path, machine: Namespace, pods: Sequence[Namespace]) -> None:
        self.client, self.web, self.stranger = pods
        self.machine = machine
        self.resolvers: dict[str, Resolver] = {}
        self.node = Node(f"{PREFIX}dns", directory, directory / "ca")
        self.node.config.write_text(yaml_of(*self.records()))

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self.node.process is not None
        return self.node.process.pid

    def records(self) -> list[Workload | Service]:
        """Return what the mesh file says."""
        ports = {80: 8080, 8443: 8443}
        web = service("demo/web.demo.svc.cluster.local", WEB4, WEB6, ports=ports, port_names=(("http", 80),))
        headless = service("demo/db.demo.svc.cluster.local", ports={5432: 5432})
        here = replace(workload("demo/client", *self.client.ips, node=self.node.name), **TRACE)  # type: ignore[arg-type]
        return [
            here,
            behind(workload("demo/web-1", *self.web.ips, node=self.node.name), web),
            *(
                behind(workload(f"demo/{pod}", *ips, protocol=Protocol.TCP), headless)
                for pod, ips in DB.items()
            ),
            web,
            headless,
            service("demo/old.demo.svc.cluster.local", OLD4),
            service("shop/store.shop.svc.cluster.local", STORE4),
            replace(service("demo/*.wild.example", WILD4), name="wild"),
            service("demo/api.example.net", API4),
            service("demo/big.demo.svc.cluster.local", *(f"10.97.0.{number}" for number in range(BIG))),
        ]

    def enroll(self) -> None:
        """Enrol both pods, `client` with its DNS."""
        call = self.node.client.call
        call("enroll", pod="demo/client", netns=self.client.name, options={"dns": True})
        call("enroll", pod="demo/web-1", netns=self.web.name, options={"dns": False})

    def ledger(self) -> Ledger:
        """Begin to count."""
        self.whats()
        return Ledger(lambda: read(self.node, "demo/client"), self.whats)

    def known_resolvers(self) -> set[Endpoint]:
        """Return whom `zp_resolver` has aliases for."""
        with decoded.opened(self.node.name) as maps:
            kept = Resolvers(maps.fd("zp_resolver"), self.client.netns.cookie())
            return {each.original for each in kept.all()}

    def whats(self) -> dict[str, list[What]]:
        """Return what each resolver was asked since the last call, those left out that were asked nothing."""
        return {ip: whats for ip, each in self.resolvers.items() if (whats := each.whats())}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the pod, with the pod's resolv.conf; one that the machine lacks is an error."""
        assert shutil.which(command[0]), f"{command[0]} is not there: `.ci/bootstrap test` installs it"
        words = ["ip", "netns", "exec", self.client.name, *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)

    def glibc(self, name: str) -> set[str]:
        """Return the addresses that getaddrinfo() of glibc finds; none when it fails."""
        done = self.run("getent", "ahosts", name)
        assert done.stderr == "", done.stderr
        return {line.split()[0] for line in done.stdout.splitlines()}

    def musl(self, stub: str, name: str) -> set[str]:
        """Return the addresses that getaddrinfo() of musl finds, or the words of its error."""
        printed = self.run(stub, name).stdout
        return set(printed.removeprefix(f"{name}:").split())

    def busybox(self, *words: str) -> set[str]:
        """Return the addresses that busybox nslookup finds."""
        lines = self.run("busybox", "nslookup", *words).stdout.splitlines()[2:]
        return {line.split()[1] for line in lines if line.startswith("Address")}

    def dig(self, *words: str) -> Answer:
        """Ask with dig, which takes one answer or fails."""
        done = self.run("dig", "+yaml", "+tries=1", "+time=9", *words)
        (shown,) = yaml.safe_load(done.stdout)
        assert shown["type"] == "MESSAGE", done.stdout
        message = shown["message"]
        response: dict[str, Any] = message["response_message_data"]
        return Answer(
            response["status"],
            response["flags"].split(),
            response.get("ANSWER_SECTION", []),
            message["socket_protocol"].lower(),
            message["response_address"],
        )

    def ask(self, wire: bytes, ip: str = FIRST) -> bytes:
        """Send a query over UDP, as an app does that speaks DNS itself; return the first answer."""
        with self.query(wire, ip) as app:
            return app.recv(65535)

    def query(self, wire: bytes, ip: str = FIRST) -> socket.socket:
        """Send a query over UDP; the socket, on which answers come, is the caller's."""
        app = self.client.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
        app.connect((ip, PORT))
        app.send(wire)
        return app

    def dial(self, ip: str = FIRST) -> socket.socket:
        """Connect to a resolver over TCP."""
        app = self.client.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
        app.connect((ip, PORT))
        return app


def question(name: str, kind: str = "A", identifier: int | None = None) -> bytes:
    """Return a query without EDNS."""
    made = dns.message.make_query(name, kind)
    made.id = made.id if identifier is None else identifier
    return made.to_wire()


def framed(*wires: bytes) -> bytes:
    """Return messages as they go over TCP."""
    return b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires)


def unframed(sock: socket.socket, count: int) -> list[bytes]:
    """Read `count` messages."""
    with sock.makefile("rb") as stream:
        return [stream.read(int.from_bytes(stream.read(2), "big")) for _ in range(count)]


def musl_stub(directory: Path) -> str:
    """Build stub.c with musl and return the program."""
    assert shutil.which("musl-gcc"), "musl-gcc is not there: `.ci/bootstrap test` installs it"
    program = str(directory / "stub")
    command = ["musl-gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, str(STUB)]
    subprocess.run(command, check=True, timeout=30)
    return program


@contextmanager
def captured(directory: Path) -> Iterator[Captured]:
    """Make it all for the block."""
    with fleet(3) as made, ExitStack() as stack:
        batch(made.peer.name, [f"addr add {ip} dev lo" for ip in (FIRST, SECOND, OTHER, NOBODY, SIX)])
        world = Captured(directory, made.peer, made.pods)
        for ip in (FIRST, SECOND, OTHER, SIX):
            world.resolvers[ip] = stack.enter_context(resolver(made.peer, ip))
        stack.enter_context(_files(world.client))
        stack.callback(world.node.clean)
        world.node.start()
        world.enroll()
        yield world


@contextmanager
def serving(world: Captured) -> Iterator[None]:
    """Run the app of `web` for the block."""
    app = App(world.web, 8080, _http)
    try:
        yield
    finally:
        app.close()


def _http(sock: socket.socket, _: object) -> None:
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(TEXT) + TEXT)


@contextmanager
def _files(pod: Namespace) -> Iterator[None]:
    """Give the pod files of its own in place of those of /etc, as far as the machine has them."""
    directory = NETNS_FILES / pod.name
    is_first = not NETNS_FILES.exists()
    directory.mkdir(parents=True)
    try:
        for name, text in FILES.items():
            if Path("/etc", name).exists():
                (directory / name).write_text(text)
        yield
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        if is_first and not os.listdir(NETNS_FILES):
            NETNS_FILES.rmdir()
