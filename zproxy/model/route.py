"""Where a connection of a pod goes: the outcome of the outbound decision (zproxy.state.resolve)."""

from enum import Enum
from typing import NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.service import Service
from zproxy.model.workload import Workload


class Role(Enum):
    """What the workload that is dialled is to the connection."""

    DESTINATION = "destination"
    WAYPOINT = "waypoint"
    GATEWAY = "gateway"
    """Of another network; the connection goes on inside the tunnel, through a second one."""


class Upstream(NamedTuple):
    """A chosen workload and how to reach it."""

    workload: Workload
    """Who is dialled."""
    address: Endpoint
    """What is dialled: for HBONE its port 15008 or that of the gateway, else the port of the app."""
    authority: str
    """The `:authority` of the CONNECT; empty for plain TCP."""
    identities: tuple[str, ...]
    """URIs, sorted, one of which the peer's certificate must name. Empty is plain TCP: nobody proves
    anything."""
    port: int
    """Of the app at the destination; for a waypoint or gateway the one that was dialled."""
    service: Service | None = None
    """What the app addressed, where that was a service."""
    role: Role = Role.DESTINATION
    inner: tuple[str, ...] = ()
    """Of a gateway: whom the far end of the inner tunnel must prove to be, one of these."""
    hostname: str = ""
    """Of a workload without addresses: what DNS must find before `address`, whose ip is empty, can be
    dialled."""
    beyond: str = ""
    """Of a gateway: the uid of the endpoint behind it."""

    @property
    def is_choice(self) -> bool:
        """Whether others might have been as good: endpoints of a service, or waypoints."""
        return self.service is not None or self.role is not Role.DESTINATION

    @property
    def target_port(self) -> int:
        """The port of the endpoint's app, of a plain one as well."""
        return self.port if self.identities else self.address.port

    @property
    def chosen(self) -> str:
        """The uid of whom the balancer chose: the endpoint behind a gateway, else who is dialled."""
        return self.beyond or self.workload.uid


class Passthrough(NamedTuple):
    """Plain TCP to the original destination, which is no part of the mesh or asks for it."""

    to: Endpoint
    service: Service | None = None


class Refuse(NamedTuple):
    """Close the connection; `reason` is a sentence for the operator."""

    reason: str
    is_forbidden: bool = False
    """Whether somebody's choice forbids it, and not that nothing can be reached: then what is open ends."""


Route = Upstream | Passthrough | Refuse
