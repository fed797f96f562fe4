"""What the connections of one pod may use: its own sockets, identity and tunnels, and nothing of others."""

from collections.abc import Callable
from typing import Protocol

from zproxy.hbone.pool import Pool
from zproxy.hbone.server import ServerTunnel
from zproxy.identity.manager import CertificateSource
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.credentials import Credentials
from zproxy.model.identity import SpiffeId
from zproxy.model.service import Service
from zproxy.model.settings import Settings
from zproxy.model.workload import Workload
from zproxy.net.sockets import SocketFactory
from zproxy.net.worker import Worker
from zproxy.observe.connections import Connection, Connections, Peers
from zproxy.observe.series import Party
from zproxy.proxy.authorize import Authorizer
from zproxy.proxy.balancer import Balancer
from zproxy.state.awaited import record_of
from zproxy.state.policy import Decide
from zproxy.state.store import Mesh
from zproxy.wire.headers import baggage_text
from zproxy.wire.tls import TlsContext, TlsEngine

PEERS_CACHED = 4096


class Relay(Protocol):
    """A connection that can be told to end."""

    connection: Connection

    def give_up(self, error: str, reason: str) -> None:
        """End abnormally."""


class PodContext:
    """Least authority in one object: a connection gets this, NEVER the node's daemon behind it."""

    def __init__(  # noqa: PLR0913 - the whole of a pod's authority, spelled out once
        self,
        *,
        workload: Workload,
        worker: Worker,
        sockets: SocketFactory,
        mesh: Callable[[], Mesh],
        certificates: CertificateSource,
        engine: TlsEngine,
        connections: Connections,
        decide: Decide,
        settings: Settings,
        balancer: Balancer | None = None,
        find_resolver: Callable[[str], Endpoint | None] = lambda _: None,
    ) -> None:
        self.enrolled = workload
        """The record that the pod was enrolled with; its identity is the one that certificates are for."""
        self.identity = workload.identity
        self.worker = worker
        self.sockets = sockets
        self.mesh = mesh
        """Returns the current snapshot."""
        self.connections = connections
        self.authorize = Authorizer(lambda: self.workload, mesh, decide, connections.totals.policy_failures)
        """Asked for every connection that reaches the pod, after its target is known to be legal."""
        self.settings = settings
        self.balancer = balancer or Balancer(settings, connections.totals.balancing)
        """Of the worker, or the pod's own where it was given none."""
        self.find_resolver = find_resolver
        """Returns the resolver that an alias of this pod stands for."""
        self.certificates = certificates
        self.tls = TlsContexts(engine, certificates)
        self.relays: set[Relay] = set()
        self.tunnels: set[ServerTunnel] = set()
        """Accepted on 15008; the pool has the dialled ones."""
        self.pool: Pool
        self._baggage = (workload, baggage_text(workload))
        self._looked: tuple[Mesh | None, Workload] = (None, workload)
        """Where the record of a pod was last looked for that is awaited, and what was found."""
        self._peers: dict[tuple[object, ...], Peers] = {}

    @property
    def workload(self) -> Workload:
        """The pod's record in the current snapshot; the one of its enrolment when the mesh has none."""
        mesh = self.mesh()
        if not self.enrolled.is_awaited:
            return mesh.by_uid(self.enrolled.uid) or self.enrolled
        if mesh is not self._looked[0]:
            self._looked = (mesh, record_of(mesh, self.enrolled) or self.enrolled)
        return self._looked[1]

    @property
    def is_known(self) -> bool:
        """Whether the mesh has, or had at its enrolment, a record of the pod."""
        return not self.workload.is_awaited

    @property
    def baggage(self) -> str:
        """The labels of the workload, as CONNECT requests and answers carry them."""
        described, text = self._baggage
        workload = self.workload if self.enrolled.is_awaited else self.enrolled
        if described is not workload:
            text = baggage_text(workload)
            self._baggage = (workload, text)
        return text

    @property
    def name(self) -> str:
        """`namespace/name`."""
        return self.enrolled.pod

    def peers(  # noqa: PLR0913, PLR0917 - all that tells one record from another
        self,
        direction: Direction,
        source: Workload | None,
        destination: Workload | None,
        port: int,
        source_identity: SpiffeId | None = None,
        destination_identity: SpiffeId | None = None,
        addressed: Service | None = None,
    ) -> Peers:
        """Return the shared record of who talks to whom.

        The service is the one `addressed`; where that is not known, `port` tells which one of the
        destination's is meant.
        """
        if addressed is not None:
            service = addressed.key
        else:
            service = (destination is not None and destination.service_on(port)) or ""
        key = (
            direction is Direction.OUTBOUND,
            service,
            source and source.uid,
            destination and destination.uid,
            source_identity,
            destination_identity,
        )
        found = self._peers.get(key)
        if found is None or found.source is not source or found.destination is not destination:
            if len(self._peers) >= PEERS_CACHED:
                self._peers.clear()
            party = Party(direction, source, destination, source_identity, destination_identity, service)
            found = self._peers[key] = Peers(party)
        return found


class TlsContexts:
    """TLS contexts of one identity, made anew when its certificate is renewed."""

    def __init__(self, engine: TlsEngine, certificates: CertificateSource) -> None:
        self.server = Renewing(certificates, engine.server)
        self.client = Renewing(certificates, engine.client)


class Renewing:
    """Calls `build` once per certificate: a context costs a thousand times what a lookup does."""

    def __init__(self, certificates: CertificateSource, build: Callable[[Credentials], TlsContext]) -> None:
        self._certificates = certificates
        self._build = build
        self._built: tuple[int, TlsContext] | None = None

    def __call__(self) -> TlsContext:
        """Return the context for the current certificate; raise IdentityError when there is none."""
        certificate = self._certificates.current()
        if self._built is None or self._built[0] != certificate.serial:
            self._built = (certificate.serial, self._build(certificate.credentials))
        return self._built[1]
