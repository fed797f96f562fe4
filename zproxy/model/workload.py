"""Workloads: what the mesh knows about one pod, in the vocabulary of Istio's workload API."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from zproxy.model.identity import SpiffeId
from zproxy.model.service import GatewayAddress


class Protocol(Enum):
    """How a workload is reached: through HBONE, or as plain TCP."""

    TCP = "TCP"
    HBONE = "HBONE"


class Status(Enum):
    """Whether a workload should be sent anything by way of its services."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


class NetworkMode(Enum):
    """Whether a workload has addresses of its own, or its node's."""

    STANDARD = "Standard"
    HOST_NETWORK = "HostNetwork"


class AppProtocol(Enum):
    """What an application tunnel begins with."""

    NONE = "NONE"
    PROXY = "PROXY"
    """A PROXY protocol header, version 2."""


class ApplicationTunnel(NamedTuple):
    """How the app wants the connections of HBONE peers: at one port, and told where each was meant to go."""

    protocol: AppProtocol
    port: int | None = None
    """Where the app listens; None is the port that was asked for."""


class Locality(NamedTuple):
    """Where a workload runs."""

    region: str = ""
    zone: str = ""
    subzone: str = ""


NOWHERE: Final = Locality()
"""Of a workload whose locality nobody stated."""


class ServicePort(NamedTuple):
    """One port of a service, and the port of the workload that serves it."""

    service: str
    """`namespace/hostname`."""
    port: int
    target_port: int
    """0 where its number is not known: then it is the service's to say."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One pod. Field names and defaults are those of ztunnel's local configuration."""

    uid: str
    name: str
    namespace: str
    service_account: str = "default"
    trust_domain: str = "cluster.local"
    workload_ips: tuple[str, ...] = ()
    """Canonical text, IPv4 and IPv6 alike."""
    protocol: Protocol = Protocol.TCP
    node: str = ""
    network: str = ""
    cluster_id: str = "Kubernetes"
    canonical_name: str = ""
    canonical_revision: str = ""
    workload_name: str = ""
    workload_type: str = "pod"
    status: Status = Status.HEALTHY
    services: tuple[str, ...] = field(default=())
    """`namespace/hostname` of each service this workload belongs to."""
    service_ports: tuple[ServicePort, ...] = ()
    """The ports of `services`, in their order."""
    locality: Locality = NOWHERE
    hostname: str = ""
    """Where a workload without addresses is found, by DNS."""
    network_mode: NetworkMode = NetworkMode.STANDARD
    waypoint: GatewayAddress | None = None
    """What others dial instead of its own addresses."""
    network_gateway: GatewayAddress | None = None
    """By which it is reached from other networks."""
    application_tunnel: ApplicationTunnel | None = None
    authorization_policies: tuple[str, ...] = ()
    """`namespace/name` of each policy that selects this workload."""
    capacity: int = 1
    """Its weight among the endpoints of a service; 0 takes no part."""
    native_tunnel: bool = False
    """Its app speaks HBONE itself. Told by the control plane; nothing is decided by it."""
    is_awaited: bool = False
    """No record of the mesh, but what enrolment was told of a pod whose record is still to come."""

    @property
    def identity(self) -> SpiffeId:
        """The identity that this workload's certificate must carry."""
        return SpiffeId(self.trust_domain, self.namespace, self.service_account)

    @property
    def pod(self) -> str:
        """`namespace/name`, the form that commands take and print."""
        return f"{self.namespace}/{self.name}"

    def service_on(self, target_port: int) -> str | None:
        """Return the first service (`namespace/hostname`) behind `target_port`, for the access log."""
        for entry in self.service_ports:
            if entry.target_port == target_port:
                return entry.service
        return None
