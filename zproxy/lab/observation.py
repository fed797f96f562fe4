"""Everything that one run of `zproxy prove` has measured, before anything is concluded from it."""

from dataclasses import dataclass

from zproxy.lab.evidence.capture import Captured
from zproxy.lab.evidence.firewall import Rules
from zproxy.lab.evidence.links import Link
from zproxy.lab.evidence.packets import Packet
from zproxy.lab.evidence.processes import ProcessInfo
from zproxy.lab.evidence.sockets import SocketInfo
from zproxy.lab.logs import AccessLine
from zproxy.lab.rows import ConnectionRow, PodRow, ServiceRow, TunnelRow
from zproxy.lab.traffic import Answer, Datagram


@dataclass(frozen=True, slots=True)
class PodEvidence:
    """One pod, its daemon, and the daemon's own records about it."""

    row: PodRow
    address: str
    """The pod's IP that this run used."""
    netns: tuple[int, int]
    """(device, inode) of the namespace that the evidence was gathered in."""
    daemon: ProcessInfo
    node_addresses: tuple[str, ...]
    """Addresses of the namespace that the daemon itself stands in."""
    listeners: tuple[SocketInfo, ...]
    udp: tuple[SocketInfo, ...]
    outside: tuple[SocketInfo, ...]
    """Listeners in the host's and the daemon's own namespace."""
    links: tuple[Link, ...]
    rules: Rules
    steering: tuple[str, ...]
    """What eBPF holds about the pod, a line each; empty when it holds nothing."""
    captured: Captured
    connections: tuple[ConnectionRow, ...]
    """Only those that began during this run."""
    tunnels: tuple[TunnelRow, ...]
    streams_before: dict[int, int]
    """Tunnel id -> streams that it had carried before this run."""
    identities: tuple[str, ...]
    """Those that the daemon has a valid certificate for."""
    log: str
    """Where the daemon's log is; empty when it is no file, so that nobody else can read it."""
    access: tuple[AccessLine, ...]
    """The lines of the access log about the pod's connections that ended during this run."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Two pods and what passed between them."""

    source: PodEvidence
    target: PodEvidence
    host: ProcessInfo | None
    """A process that stands in the host's network namespace; None when /proc hides them all."""
    ports: tuple[int, ...]
    """App ports that were asked: the first four times, the others once."""
    answers: tuple[Answer, ...]
    marker: bytes
    """Random text that is in every request, and so in the answers of an app that echoes."""
    datagram: Datagram
    service: ServiceRow | None = None
    """What the target can be called; None when no service has it, and it alone, for an endpoint."""
    called: tuple[Answer, ...] = ()
    """Answers to requests by the service's address and by its names."""

    def wire(self) -> tuple[Packet, ...]:
        """Return the packets that passed the source pod's interfaces between the two pods, oldest first."""
        both = {self.source.address, self.target.address}
        return tuple(p for p in self.source.captured.on_wire() if {p.src.ip, p.dst.ip} == both)

    def pods(self) -> tuple[PodEvidence, PodEvidence]:
        """Return both pods, the source first."""
        return self.source, self.target
