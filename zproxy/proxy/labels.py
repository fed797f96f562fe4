"""Who is at the other end of an inbound stream, for labels: what the mesh knows, and whose word counts.

A peer can write anything into `baggage`, `forwarded` and `x-forwarded-network`. Labels follow them only where
the connection comes from a gateway or waypoint of the mesh, which stands for clients that cannot be seen from
here; identity, policy and the source address NEVER do.
"""

from collections.abc import Iterator

from zproxy.model.identity import SpiffeId
from zproxy.model.service import GatewayAddress, Service
from zproxy.model.settings import Settings
from zproxy.model.workload import Workload
from zproxy.state.reference import leads_to
from zproxy.state.store import Mesh
from zproxy.wire.baggage import workload_of
from zproxy.wire.headers import NETWORK, ConnectRequest, forwarded_host

_RELAYS = "relays"


def source_of(
    mesh: Mesh,
    local: Workload,
    source_ip: str,
    identity: SpiffeId | None,
    request: ConnectRequest,
    settings: Settings,
) -> Workload | None:
    """Return the workload that a stream from `source_ip`, by a peer proven to be `identity`, comes from."""
    source = mesh.by_ip(source_ip, local.network)
    network = request.headers.get(NETWORK)
    is_from_elsewhere = bool(network) and network != local.network
    if identity is None or (source is not None and not is_from_elsewhere):
        return source
    stands_for_others = source is not None and source.uid in relays(mesh)
    if not stands_for_others and not settings.trust_labels:
        return source
    return workload_of(request.baggage or "", identity) or source


def service_of(mesh: Mesh, local: Workload, named: Service | None, request: ConnectRequest) -> Service | None:
    """Return which of the pod's own services was meant: by the authority, or by the host that was dialled.

    None: nobody says so, or it is no service of this pod, and the port has to tell.
    """
    if named is not None and named.key in local.services:
        return named
    host = forwarded_host(request.forwarded or "")
    if host:
        for key in local.services:
            if key.partition("/")[2] == host:
                return mesh.service(key)
    return None


def relays(mesh: Mesh) -> frozenset[str]:
    """Return the uids of the workloads that any waypoint or gateway reference leads to."""
    found: frozenset[str] | None = mesh.once.get(_RELAYS)
    if found is None:
        named = {leads_to(mesh, reference) for reference in set(_references(mesh))}
        found = frozenset(
            workload.uid
            for each in named
            if each is not None
            for workload in (mesh.endpoints(each.key) if isinstance(each, Service) else (each,))
        )
        mesh.once[_RELAYS] = found
    return found


def _references(mesh: Mesh) -> Iterator[GatewayAddress]:
    for workload in mesh.workloads:
        if workload.waypoint is not None:
            yield workload.waypoint
        if workload.network_gateway is not None:
            yield workload.network_gateway
    for service in mesh.services:
        if service.waypoint is not None:
            yield service.waypoint
        yield from (each.destination for each in service.weighted_waypoints)
