"""Which endpoints of a service may take a connection: health, reach, ports, families, nearness."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from zproxy.model.addr import Endpoint
from zproxy.model.service import BalancerMode, HealthPolicy, Scope, Service
from zproxy.model.workload import Status, Workload
from zproxy.state.choose import Candidate
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace

_SCOPES: Final[Mapping[Scope, Callable[[Workload], str]]] = {
    Scope.REGION: lambda each: each.locality.region,
    Scope.ZONE: lambda each: each.locality.zone,
    Scope.SUBZONE: lambda each: each.locality.subzone,
    Scope.NODE: lambda each: each.node,
    Scope.CLUSTER: lambda each: each.cluster_id,
    Scope.NETWORK: lambda each: each.network,
}


def candidates(
    mesh: Mesh,
    service: Service,
    source: Workload,
    to: Endpoint,
    *,
    is_waypoint: bool = False,
    trace: Trace | None = None,
) -> Sequence[Candidate]:
    """Return the endpoints of `service` that may take a connection of `source` to `to`, an address of it.

    Of a waypoint's service the port need not be one that it serves, if the endpoint has an application
    tunnel: all its connections come in by the tunnel.
    """
    if trace is not None:
        return _near(service, tuple(_usable(mesh, service, source, to, is_waypoint, trace)), source, trace)
    key = (service.key, source.uid, to, is_waypoint)
    found: Sequence[Candidate] | None = mesh.memo[key]
    if found is None:
        usable = tuple(_usable(mesh, service, source, to, is_waypoint, None))
        found = _near(service, usable, source, None)
        mesh.memo.keep(key, found)
    return found


def rank(scopes: Sequence[Scope], source: Workload, workload: Workload) -> int:
    """Return how many of `scopes` `workload` shares with `source`, from the first to one it does not.

    NETWORK in the first place is no condition for those behind it, but counts more than all of them: what is
    on the same network is nearer than anything elsewhere.
    """
    matched = 0
    for position, scope in enumerate(scopes):
        is_network_first = position == 0 and scope is Scope.NETWORK
        if _SCOPES[scope](source) == _SCOPES[scope](workload):
            matched += len(scopes) if is_network_first else 1
        elif not is_network_first:
            break
    return matched


def target_port(service: Service, workload: Workload, port: int) -> int | None:
    """Return the port of `workload` behind `port` of `service`; the endpoint has the first word.

    None: the service has no such port, or leaves it to its endpoints and this one says nothing. So does a 0:
    in Istio's API it stands for a port whose number is not known, and nobody listens there.
    """
    for entry in workload.service_ports:
        if entry.port == port and entry.service == service.key and entry.target_port:
            return entry.target_port
    return service.target_port(port) or None


def address(service: Service, workload: Workload, dialled: str) -> str | None:
    """Return the IP of `workload` to dial for a client that dialled `dialled`.

    Its own address if that was dialled, else one of the service's families, of the dialled one if possible.
    Empty where it has none; None where it has some, but none that the service uses.
    """
    ips = workload.workload_ips
    if dialled in ips:
        return dialled
    usable = [ip for ip in ips if service.ip_families.allows(ip)]
    if not usable:
        return None if ips and not workload.hostname else ""
    is_v6 = ":" in dialled
    return next((ip for ip in usable if (":" in ip) == is_v6), usable[0])


def _usable(
    mesh: Mesh, service: Service, source: Workload, to: Endpoint, is_waypoint: bool, trace: Trace | None
) -> Iterator[Candidate]:
    scopes = service.load_balancer.routing_preferences
    for workload in mesh.endpoints(service.key):
        ip = address(service, workload, to.ip)
        port = target_port(service, workload, to.port)
        if port is None and is_waypoint and workload.application_tunnel is not None:
            port = to.port
        why = _left_out(service, source, workload, ip)
        if not why and port is not None and ip is not None:
            yield Candidate(workload, port, rank(scopes, source, workload), ip)
        elif trace is not None:
            trace.note(
                "endpoint",
                "left out",
                f"{workload.pod}: {why or f'nothing of it is behind port {to.port} of the service'}",
            )


def _left_out(service: Service, source: Workload, workload: Workload, ip: str | None) -> str:
    """Return why `workload` cannot take any connection, if so."""
    only_healthy = service.load_balancer.health_policy is HealthPolicy.ONLY_HEALTHY
    if only_healthy and workload.status is Status.UNHEALTHY:
        return "unhealthy"
    if ip is None:
        return f"no address of a family that the service uses ({service.ip_families.value})"
    if not workload.workload_ips and not workload.hostname:
        if workload.network == source.network:
            return "no address"
        if workload.network_gateway is None:
            return f"on network {workload.network!r}, without an address or a gateway"
    return ""


def _near(
    service: Service, usable: tuple[Candidate, ...], source: Workload, trace: Trace | None
) -> tuple[Candidate, ...]:
    """Keep those that are near enough for the balancer's mode."""
    mode, scopes = service.load_balancer.mode, service.load_balancer.routing_preferences
    kept = usable
    if mode is BalancerMode.STRICT:
        kept = tuple(
            each
            for each in usable
            if all(_SCOPES[scope](source) == _SCOPES[scope](each.workload) for scope in scopes)
        )
    elif mode is BalancerMode.FAILOVER and usable:
        best = max(each.rank for each in usable)
        kept = tuple(each for each in usable if each.rank == best)
    if trace is not None:
        words = ", ".join(scope.value for scope in scopes)
        for each in usable:
            outcome = "candidate" if each in kept else "left out"
            where = f" at {each.ip}" if each.ip else ""
            rest = f", {mode.value} by {words}: rank {each.rank}" if words else ""
            weight = f", weight {each.workload.capacity}"
            trace.note(
                "endpoint", outcome, f"{each.workload.pod}{where}, port {each.target_port}{weight}{rest}"
            )
    return kept
