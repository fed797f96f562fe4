"""A pod's DNS server on loopback, driven by the test: real sockets, no namespaces, no eBPF.

The pod is 127.0.0.1; anybody else is 127.0.0.2. Resolvers are sockets of the test.
"""

import contextlib
import socket
from collections.abc import Sequence

import dns.message

from tests.support.bench import Bench
from tests.support.names import CLIENT, names_mesh
from tests.support.plane import LoopbackSockets
from zproxy.config import Deadlines, Limits
from zproxy.dns.server import DnsServer
from zproxy.dns.upstream import framed, taken
from zproxy.model.addr import Endpoint
from zproxy.model.settings import DEFAULT_SETTINGS
from zproxy.model.workload import Workload
from zproxy.net.listener import Listener
from zproxy.observe.dns import DnsCounts
from zproxy.state.store import Mesh

RESOLVER = Endpoint("192.0.2.53", 53)
STRANGER = "127.0.0.2"


class DnsBench(Bench):
    """`ask` and `ask_tcp` are the pod's app. Close it."""

    def __init__(
        self,
        mesh: Mesh | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - immutable
        preferred: str = "",
        client: Workload = CLIENT,
    ) -> None:
        super().__init__(limits, deadlines)
        self.mesh = names_mesh() if mesh is None else mesh
        self.routes: dict[Endpoint, int] = {}
        self.sockets = LoopbackSockets(self.routes)
        self.sockets.destination = RESOLVER
        self.resolver: Endpoint | None = RESOLVER
        """Whom the app addresses over UDP."""
        self.counts = DnsCounts()
        self.server = DnsServer(
            worker=self.worker,
            sockets=self.sockets,  # type: ignore[arg-type] # stands in for the real one
            workload=lambda: client,
            mesh=lambda: self.mesh,
            settings=DEFAULT_SETTINGS._replace(preferred_service_namespace=preferred),
            find_resolver=lambda alias: self.resolver,
            counts=self.counts,
        )
        datagrams = self.sockets.bind_datagrams(0)
        self.udp_port: int = datagrams.getsockname()[1]
        self.server.open(datagrams)
        listening = self.sockets.listen(0, 64)
        self.listener = Listener(listening, self.worker.poller, self.server.on_accept, self.worker.paused)

    def upstream(self, at: Endpoint = RESOLVER, ip: str = "127.0.0.1") -> socket.socket:
        """Return a resolver's UDP socket, and play that it is `at`."""
        sock = self.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((ip, 0))
        self.sockets.at[at] = (ip, sock.getsockname()[1])
        return sock

    def client(self, ip: str = "127.0.0.1") -> socket.socket:
        """Return a UDP socket of `ip` that talks to the server."""
        sock = self.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((ip, 0))
        sock.connect(("127.0.0.1", self.udp_port))
        return sock

    def receive_datagram(self, sock: socket.socket) -> bytes:
        """Return the next datagram."""
        sock.setblocking(False)
        got: list[bytes] = []

        def look() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.append(sock.recv(65535))
            return bool(got)

        self.wait(look)
        return got[0]

    def ask(self, query: dns.message.Message, sock: socket.socket | None = None) -> dns.message.Message:
        """Return the answer over UDP."""
        sock = sock or self.client()
        sock.send(query.to_wire())
        return dns.message.from_wire(self.receive_datagram(sock))

    def connect(self, ip: str = "127.0.0.1") -> socket.socket:
        """Return a TCP connection to the server."""
        to = ("127.0.0.1", self.listener.port)
        return self.keep(socket.create_connection(to, source_address=(ip, 0)))

    def ask_tcp(self, queries: Sequence[dns.message.Message]) -> list[dns.message.Message]:
        """Send all queries at once over one connection; return the answers in the order of arrival."""
        sock = self.connect()
        sock.sendall(b"".join(framed(query.to_wire()) for query in queries))
        return [self.receive_framed(sock) for _ in queries]

    def receive_framed(self, sock: socket.socket) -> dns.message.Message:
        """Return the next answer of a TCP connection."""
        sock.setblocking(False)
        buffer = bytearray()
        got: list[bytes] = []

        def look() -> bool:
            with contextlib.suppress(BlockingIOError):
                while not got:
                    data = sock.recv(
                        1 if len(buffer) < 2 else 2 + int.from_bytes(buffer[:2], "big") - len(buffer)
                    )
                    assert data, "the server closed the connection"
                    buffer.extend(data)
                    got.extend(each for each in [taken(buffer)] if each is not None)
            return bool(got)

        self.wait(look)
        return dns.message.from_wire(got[0])

    def is_ended(self, sock: socket.socket) -> bool:
        """Tell whether the server has closed a TCP connection."""
        sock.setblocking(False)
        try:
            return not sock.recv(65535)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self.listener.close()
        self.server.close()
        super().close()
