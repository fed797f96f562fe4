"""Which endpoints of a service may take a connection: health, reach, ports, families, nearness.

What is found is remembered with the snapshot, for all clients to whom the same endpoints are near. Where a
service has many, they are not looked at one by one unless their nearness or weights differ.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Final, NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.service import BalancerMode, HealthPolicy, Scope, Service, SessionAffinity
from zproxy.model.workload import Status, Workload
from zproxy.state.choose import Candidate
from zproxy.state.crowd import Crowd
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace

CROWD: Final = 256
"""Endpoints from which on one is picked without a look at all: a shorter list is soon made, and faster."""
SHARED: Final = 32
"""Endpoints from which on a list is too long to have one for each address and port that a client dials."""

_FIELDS: Final[Mapping[Scope, str]] = {
    Scope.REGION: "locality.region",
    Scope.ZONE: "locality.zone",
    Scope.SUBZONE: "locality.subzone",
    Scope.NODE: "node",
    Scope.CLUSTER: "cluster_id",
    Scope.NETWORK: "network",
}
_SCOPES: Final[Mapping[Scope, Callable[[Workload], str]]] = {
    scope: attrgetter(field) for scope, field in _FIELDS.items()
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
        question = _Question(mesh, service, source, to, is_waypoint)
        return _near(service, tuple(_usable(question, trace)), source, trace)
    scopes = _scopes(service)
    place = tuple(_SCOPES[scope](source) for scope in scopes) if scopes else ()
    key = (service.key, to, is_waypoint, source.network, place)
    found: Sequence[Candidate] | None = mesh.memo[key]
    if found is None:
        question = _Question(mesh, service, source, to, is_waypoint)
        alike = _alike(question, place) if service.target_port(to.port) else _NOBODY
        if alike.members:
            reached = partial(_reached, question, alike.near)
            return Crowd(alike.members, reached, partial(_listed, question, place))
        found = _listed(question, place)
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


class _Question(NamedTuple):
    """The arguments of `candidates`."""

    mesh: Mesh
    service: Service
    source: Workload
    to: Endpoint
    is_waypoint: bool


class _Alike(NamedTuple):
    """Endpoints of a service that are well, equally near to a client, and weigh the same."""

    members: Sequence[Workload]
    near: Collection[object] = ()
    """Where they are, as `_whereabouts` has it; empty where that does not matter."""


_NOBODY: Final = _Alike(())


class _Faces(NamedTuple):
    """What the endpoints of a service show."""

    ips: frozenset[str]
    ports: frozenset[int]
    """Ports of the service, not theirs."""


def _scopes(service: Service) -> Sequence[Scope]:
    """Return the scopes that matter: some modes do not ask where anybody is."""
    balancer = service.load_balancer
    asks = balancer.mode is BalancerMode.STRICT or balancer.mode is BalancerMode.FAILOVER
    return balancer.routing_preferences if asks else ()


def _whereabouts(scopes: Sequence[Scope]) -> Callable[[Workload], object]:
    """Return what tells where a workload is, as far as `scopes` ask."""
    return attrgetter(*(_FIELDS[scope] for scope in scopes))


def _alike(question: _Question, place: tuple[str, ...]) -> _Alike:
    """Return who is equally good for a client in `place`: nobody, if few, of many weights, or not drawn."""
    mesh, service = question.mesh, question.service
    if len(mesh.endpoints(service.key)) < CROWD:
        return _NOBODY
    key = ("alike", service.key, place)
    found: _Alike | None = mesh.service_memo[key]
    if found is None:
        found = _nearest(question)
        is_sticky = service.load_balancer.session_affinity is SessionAffinity.CLIENT_IP
        if is_sticky or len({each.capacity for each in found.members}) > 1:
            found = _NOBODY
        mesh.service_memo.keep(key, found)
    return found


def _nearest(question: _Question) -> _Alike:
    """Return the nearest of the endpoints that are well; whether they can be reached is not asked."""
    service, source = question.service, question.source
    well: Sequence[Workload] = question.mesh.endpoints(service.key)
    if service.load_balancer.health_policy is HealthPolicy.ONLY_HEALTHY:
        ill = Status.UNHEALTHY
        well = [each for each in well if each.status is not ill]
    scopes = _scopes(service)
    if not scopes or not well:
        return _Alike(well)
    where = _whereabouts(scopes)
    some = dict(zip(map(where, well), well, strict=True))
    if service.load_balancer.mode is BalancerMode.STRICT:
        near = {where(source)} & some.keys()
    else:
        ranks = {place: rank(scopes, source, one) for place, one in some.items()}
        best = max(ranks.values())
        near = {place for place, its in ranks.items() if its == best}
    return _Alike(well if len(near) == len(some) else [each for each in well if where(each) in near], near)


def _listed(question: _Question, place: tuple[str, ...]) -> Sequence[Candidate]:
    """Return all candidates; a long list is remembered by what makes a difference to it.

    So a client makes the node keep one, however many addresses of a range and ports it dials.
    """
    mesh, service, source, to, is_waypoint = question
    if len(mesh.endpoints(service.key)) < SHARED:
        return _near(service, tuple(_usable(question, None)), source, None)
    faces = _faces(mesh, service)
    if not is_waypoint and to.port not in faces.ports:
        return ()
    dialled = to.ip if to.ip in faces.ips else ":" in to.ip
    key = (service.key, dialled, to.port, is_waypoint, source.network, place)
    found: Sequence[Candidate] | None = mesh.service_memo[key]
    if found is None:
        found = _near(service, tuple(_usable(question, None)), source, None)
        mesh.service_memo.keep(key, found)
    return found


def _faces(mesh: Mesh, service: Service) -> _Faces:
    key = ("faces", service.key)
    found: _Faces | None = mesh.service_memo[key]
    if found is None:
        everybody = mesh.endpoints(service.key)
        ports = {port for port, _ in service.ports}
        ports.update(
            entry.port for each in everybody for entry in each.service_ports if entry.service == service.key
        )
        found = _Faces(frozenset(ip for each in everybody for ip in each.workload_ips), frozenset(ports))
        mesh.service_memo.keep(key, found)
    return found


def _usable(question: _Question, trace: Trace | None) -> Iterator[Candidate]:
    for workload in question.mesh.endpoints(question.service.key):
        found = _candidate(question, workload)
        if not isinstance(found, str):
            yield found
        elif trace is not None:
            trace.note("endpoint", "left out", f"{workload.pod}: {found}")


def _reached(question: _Question, near: Collection[object], workload: Workload) -> Candidate | None:
    """Return `workload`, an endpoint, as a candidate; None if it is none, or not where it has to be."""
    if near and _whereabouts(_scopes(question.service))(workload) not in near:
        return None
    found = _candidate(question, workload)
    return None if isinstance(found, str) else found


def _candidate(question: _Question, workload: Workload) -> Candidate | str:
    """Return `workload`, an endpoint, as a candidate; or why it is none."""
    _, service, source, to, is_waypoint = question
    ip = address(service, workload, to.ip)
    why = _left_out(service, source, workload, ip)
    if why or ip is None:
        return why
    port = target_port(service, workload, to.port)
    if port is None and is_waypoint and workload.application_tunnel is not None:
        port = to.port
    if port is None:
        return f"nothing of it is behind port {to.port} of the service"
    scopes = _scopes(service)
    return Candidate(workload, port, rank(scopes, source, workload) if scopes else 0, ip)


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
    mode, scopes = service.load_balancer.mode, _scopes(service)
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
