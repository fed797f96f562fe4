"""Two straws and their data plane in one process: real sockets on loopback, real TLS, no namespaces, no eBPF.

The pods are 127.0.0.1 and 127.0.0.2; their ports are mapped to free ones when they are dialled, and the
original destination is what the test says. Everything runs when the test waits for a condition.
"""

import contextlib
import select
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.support.bench import Bench
from tests.support.ca import SpiffeCa, shared_ca
from tests.support.mesh import allow_all, mesh, workload
from zproxy.config import Deadlines, Limits
from zproxy.identity.certificate import Certificate
from zproxy.model.addr import Endpoint
from zproxy.model.credentials import Credentials
from zproxy.model.identity import SpiffeId
from zproxy.model.settings import DEFAULT_SETTINGS, Settings
from zproxy.model.workload import Workload
from zproxy.net import datagrams
from zproxy.net.sockets import peer_of
from zproxy.observe.connections import Connection, Connections
from zproxy.proxy.context import PodContext
from zproxy.proxy.straw import Straw
from zproxy.state.policy import Attempt, Decide, Verdict
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace
from zproxy.wire.tls import choose_engine

CLIENT_IP, SERVER_IP = "127.0.0.1", "127.0.0.2"


class LoopbackSockets:
    """Stands for a pod's SocketFactory; `routes` says where on loopback a mesh address is."""

    def __init__(self, routes: dict[Endpoint, int]) -> None:
        self.routes = routes
        self.destination: Endpoint | None = None
        """What `original_destination` answers."""
        self.at: dict[Endpoint, tuple[str, int]] = {}
        """Where resolvers are."""
        self.own = {CLIENT_IP}
        """Addresses of the pod."""
        self.sources: list[str] = []
        """Source addresses asked for by `dial_app`."""

    def listen(self, port: int, backlog: int) -> socket.socket:
        sock = socket.create_server(("", 0), backlog=backlog)
        sock.setblocking(False)
        return sock

    def dial(self, to: Endpoint) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(self.at.get(to, (to.ip, self.routes.get(to, 1))))
        return sock

    def dial_app(self, to: Endpoint, source_ip: str) -> socket.socket:
        self.sources.append(source_ip)
        return self.dial(to)

    def bind_datagrams(self, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.prepare(sock)
        sock.setblocking(False)
        sock.bind(("", 0))
        return sock

    def dial_datagrams(self, to: Endpoint) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(self.at.get(to, ("127.0.0.1", 1)))
        return sock

    def is_own(self, ip: str) -> bool:
        return ip in self.own

    def arrived_at(self, sock: socket.socket) -> Endpoint:
        return peer_of(sock.getsockname())

    def original_destination(self, sock: socket.socket) -> Endpoint | None:
        return self.destination


class FixedCertificates:
    """Stands for a CertificateSource: one certificate, whatever happens."""

    def __init__(self, identity: SpiffeId, credentials: Credentials) -> None:
        now = datetime.now(UTC)
        self._certificate = Certificate(
            identity, credentials, 1, now - timedelta(days=1), now + timedelta(days=1)
        )
        self.is_closed = False

    def current(self) -> Certificate:
        return self._certificate

    def close(self) -> None:
        self.is_closed = True


class Lines:
    """A sink that keeps ended connections."""

    def __init__(self) -> None:
        self.ended_connections: list[Connection] = []

    def ended(self, connection: Connection, now: float) -> None:
        self.ended_connections.append(connection)


class Plane(Bench):
    """`client` dials `server`; `serve` gives the server pod an app. Close it."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - immutable
        server_credentials: Credentials | None = None,
        client_credentials: Credentials | None = None,
        ca: SpiffeCa | None = None,
        settings: Settings = DEFAULT_SETTINGS,
    ) -> None:
        super().__init__(limits, deadlines)
        ca = ca or shared_ca()
        self.routes: dict[Endpoint, int] = {}
        self.lines = Lines()
        self.connections = Connections(self.lines, 64, 64)
        self.decide: Decide = allow_all
        """What both pods ask; a test may change it while they run."""
        self._settings = settings
        self.mesh: Mesh = mesh(workload("demo/client", CLIENT_IP), workload("demo/server", SERVER_IP))
        self.current_mesh: Callable[[], Mesh] = lambda: self.mesh
        client, server = self.mesh.workloads
        self.client = self._pod(client, client_credentials or ca.credentials(str(client.identity)))
        self.server = self._pod(server, server_credentials or ca.credentials(str(server.identity)))
        self.client_straw, self.server_straw = Straw(self.client), Straw(self.server)
        self.outbound_port = self.client_straw.listeners[0].port
        self.plaintext_port = self.server_straw.listeners[1].port
        self.hbone_port = self.server_straw.listeners[2].port
        self.routes[Endpoint(SERVER_IP, 15008)] = self.hbone_port

    def _pod(self, of: Workload, credentials: Credentials) -> PodContext:
        return PodContext(
            workload=of,
            worker=self.worker,
            sockets=LoopbackSockets(self.routes),  # type: ignore[arg-type] # stands in for the real one
            mesh=lambda: self.current_mesh(),  # noqa: PLW0108 - a test may change it later
            certificates=FixedCertificates(of.identity, credentials),  # type: ignore[arg-type] # likewise
            engine=choose_engine(),
            connections=self.connections,
            decide=self._decide,
            settings=self._settings,
        )

    def _decide(self, mesh: Mesh, attempt: Attempt, trace: Trace | None = None) -> Verdict:
        return self.decide(mesh, attempt, trace)

    def serve(self, port: int = 8080, backlog: int = 512) -> socket.socket:
        """Return a listening socket that is the server pod's app on `port`."""
        app = socket.create_server((SERVER_IP, 0), backlog=backlog)
        self.routes[Endpoint(SERVER_IP, port)] = app.getsockname()[1]
        return self.keep(app)

    def dial(self, ip: str = SERVER_IP, port: int = 8080, said: bytes = b"") -> socket.socket:
        """Return the client app's socket, on its way to ip:port; `said` is sent before it is accepted."""
        self.client.sockets.destination = Endpoint(ip, port)  # type: ignore[attr-defined]
        sock = self.keep(socket.create_connection(("127.0.0.1", self.outbound_port)))
        sock.sendall(said)
        before = self.connections.totals.opened
        self.wait(lambda: self.connections.totals.opened > before)
        return sock

    def has_waiting(self, app: socket.socket) -> bool:
        """Tell whether a connection waits to be accepted by `app`."""
        return bool(select.select([app], [], [], 0)[0])

    def accept(self, app: socket.socket) -> socket.socket:
        """Return the next connection that reaches `app`."""
        self.wait(lambda: self.has_waiting(app))
        sock, _ = app.accept()
        return self.keep(sock)

    def pair(self, port: int = 8080) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new app connection: the client's and the server's."""
        app = self.serve(port)
        near = self.dial(port=port)
        return near, self.accept(app)

    def receive(self, sock: socket.socket, size: int) -> bytes:
        """Return exactly `size` bytes, or fewer when the stream ends."""
        sock.setblocking(False)
        got = bytearray()
        ended = False

        def step() -> bool:
            nonlocal ended
            with contextlib.suppress(BlockingIOError):
                while not ended and len(got) < size:
                    data = sock.recv(min(1 << 20, size - len(got)))
                    got.extend(data)
                    ended = not data
            return ended or len(got) == size

        self.wait(step)
        return bytes(got)

    def ended(self, count: int) -> list[Connection]:
        """Wait until `count` connections have ended and return their records."""
        self.wait(lambda: len(self.lines.ended_connections) >= count)
        return self.lines.ended_connections

    def close(self) -> None:
        for straw in (self.client_straw, self.server_straw):
            straw.close("the test is over")
        super().close()
