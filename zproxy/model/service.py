"""Services: names and virtual addresses in front of workloads, in the vocabulary of Istio's workload API."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from zproxy.model import ports


class NetworkAddress(NamedTuple):
    """An address means something on its network only; written `network/ip`, and `/ip` on the nameless one."""

    network: str
    ip: str
    """Canonical text."""

    def __str__(self) -> str:
        return f"{self.network}/{self.ip}"


class NetworkCidr(NamedTuple):
    """A range of virtual addresses; `ip` is its first one, so that equal ranges are equal values."""

    network: str
    ip: str
    length: int

    def __str__(self) -> str:
        return f"{self.network}/{self.ip}/{self.length}"


class NamespacedHostname(NamedTuple):
    """A service by name, or a workload by its `hostname`; written `namespace/hostname`."""

    namespace: str
    hostname: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.hostname}"


class GatewayAddress(NamedTuple):
    """Where a waypoint or the gateway of a network is found."""

    destination: NetworkAddress | NamespacedHostname
    hbone_mtls_port: int = ports.INBOUND_HBONE

    def __str__(self) -> str:
        return f"{self.destination}:{self.hbone_mtls_port}"


class WeightedWaypoint(NamedTuple):
    """One of several waypoints that share a service's connections in proportion to their weights."""

    destination: GatewayAddress
    weight: int


class Scope(Enum):
    """How near an endpoint may be asked to be; the words are those of ztunnel's local configuration."""

    REGION = "Region"
    ZONE = "Zone"
    SUBZONE = "Subzone"
    NODE = "Node"
    CLUSTER = "Cluster"
    NETWORK = "Network"


class BalancerMode(Enum):
    """What scopes do to the choice of an endpoint."""

    STANDARD = "Standard"
    """Nothing: all endpoints take part."""
    STRICT = "Strict"
    """Endpoints that do not match every scope are left out."""
    FAILOVER = "Failover"
    """Those that match the longest run of scopes take part, and the others when there are none of these."""
    PASSTHROUGH = "Passthrough"
    """The address that the app dialled is kept."""


class HealthPolicy(Enum):
    """Whether unhealthy endpoints take part."""

    ONLY_HEALTHY = "OnlyHealthy"
    ALLOW_ALL = "AllowAll"


class SessionAffinity(Enum):
    """Whether the connections of one client stay with one endpoint; the words are those of Kubernetes."""

    NONE = "None"
    CLIENT_IP = "ClientIP"


class LoadBalancer(NamedTuple):
    """How one endpoint of a service is chosen."""

    routing_preferences: tuple[Scope, ...] = ()
    mode: BalancerMode = BalancerMode.STANDARD
    health_policy: HealthPolicy = HealthPolicy.ONLY_HEALTHY
    session_affinity: SessionAffinity = SessionAffinity.NONE
    """zproxy's own; ztunnel has none."""


DEFAULT_BALANCER: Final = LoadBalancer()


class IpFamilies(Enum):
    """Which addresses of its endpoints a service uses."""

    AUTOMATIC = ""
    """All that they have."""
    IPV4_ONLY = "IPv4"
    IPV6_ONLY = "IPv6"
    DUAL = "Dual"

    def allows(self, ip: str) -> bool:
        """Tell whether `ip` is of a family that the service uses."""
        if self is IpFamilies.IPV4_ONLY:
            return ":" not in ip
        return self is not IpFamilies.IPV6_ONLY or ":" in ip


class Visibility(Enum):
    """Who may use a service's name and addresses."""

    PUBLIC = "Public"
    NAMESPACE = "Namespace"


@dataclass(frozen=True, slots=True)
class Service:
    """One service. Field names and defaults are those of ztunnel's local configuration."""

    name: str
    namespace: str
    hostname: str
    vips: tuple[NetworkAddress, ...] = ()
    cidr_vips: tuple[NetworkCidr, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    """(service port, target port); a target port of 0 is each endpoint's to say."""
    subject_alt_names: tuple[str, ...] = ()
    """Identities, as URIs, that its endpoints may have beside their own."""
    waypoint: GatewayAddress | None = None
    weighted_waypoints: tuple[WeightedWaypoint, ...] = ()
    """Take the place of `waypoint` where there are any."""
    load_balancer: LoadBalancer = DEFAULT_BALANCER
    ip_families: IpFamilies = IpFamilies.AUTOMATIC
    canonical: bool = False
    """The one to prefer among services of the same hostname."""
    visibility: Visibility = Visibility.PUBLIC
    port_names: tuple[tuple[str, int], ...] = ()
    """(name, service port), for DNS SRV; zproxy's own, ztunnel knows ports by number only."""

    @property
    def key(self) -> str:
        """`namespace/hostname`, by which the mesh knows it."""
        return f"{self.namespace}/{self.hostname}"

    def target_port(self, port: int) -> int | None:
        """Return the target of a service port, 0 when each endpoint has its own, None for an unknown one."""
        for served, target in self.ports:
            if served == port:
                return target
        return None

    def is_visible_to(self, namespace: str | None) -> bool:
        """Tell whether a client of `namespace` may use it; None is a client whose namespace is not known."""
        return self.visibility is Visibility.PUBLIC or namespace is None or namespace == self.namespace
