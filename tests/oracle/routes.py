"""The rules of routing once more, as simply as they can be said: lists, loops, no index, no cache.

Written from the description of ztunnel's behaviour and never from the code under test. A route is a set of
all outcomes that chance allows.
"""

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.service import (
    BalancerMode,
    GatewayAddress,
    HealthPolicy,
    NamespacedHostname,
    NetworkAddress,
    Scope,
    Service,
)
from zproxy.model.settings import Compat, OutboundPolicy, Settings, WaypointPolicy
from zproxy.model.workload import NetworkMode, Protocol, Status, Workload
from zproxy.state.store import Mesh

ILLEGAL = (15001, 15006, 15008, 15053)


class Outcome(NamedTuple):
    """Where a connection goes; `kind` is refuse, passthrough, tcp, hbone, waypoint or gateway."""

    kind: str
    address: str = ""
    authority: str = ""
    identities: frozenset[str] = frozenset()
    inner: frozenset[str] = frozenset()
    workload: str = ""


REFUSE = Outcome("refuse")


# Addresses


def workload_at(mesh: Mesh, network: str, ip: str) -> Workload | None:
    found = [
        each
        for each in mesh.workloads
        if each.network == network and ip in each.workload_ips and each.network_mode is NetworkMode.STANDARD
    ]
    found.sort(key=lambda each: ("//Pod/" not in each.uid, each.protocol is not Protocol.HBONE, each.uid))
    return found[0] if found else None


def visible_to(mesh: Mesh, namespace: str) -> list[Service]:
    return sorted(
        (each for each in mesh.services if each.is_visible_to(namespace)), key=lambda each: each.key
    )


def service_of(mesh: Mesh, network: str, ip: str, namespace: str) -> Service | None:
    """Whose own address it is: one's own namespace's, then the canonical one."""
    exact = [each for each in visible_to(mesh, namespace) if NetworkAddress(network, ip) in each.vips]
    return min(exact, key=lambda each: (each.namespace != namespace, not each.canonical), default=None)


def service_around(mesh: Mesh, network: str, ip: str, namespace: str) -> Service | None:
    """In whose range it is: one's own namespace's, then the narrowest, then the canonical one."""
    around = [
        (cidr.length, each)
        for each in visible_to(mesh, namespace)
        for cidr in each.cidr_vips
        if cidr.network == network
        and ipaddress.ip_address(ip) in ipaddress.ip_network(f"{cidr.ip}/{cidr.length}")
    ]
    if not around:
        return None
    return min(around, key=lambda pair: (pair[1].namespace != namespace, -pair[0], not pair[1].canonical))[1]


def service_at(mesh: Mesh, source: Workload, ip: str, settings: Settings) -> Service | None:
    """Which service takes what is dialled: a pod's address is in no range, except for ztunnel."""
    network, namespace = source.network, source.namespace
    exact = service_of(mesh, network, ip, namespace)
    is_pods = workload_at(mesh, network, ip) is not None
    if exact is not None or (is_pods and settings.compat is Compat.ZPROXY):
        return exact
    return service_around(mesh, network, ip, namespace)


# Endpoints


class Target(NamedTuple):
    """One endpoint that may be chosen."""

    workload: Workload
    port: int
    ip: str
    """Empty where only a gateway or DNS leads to it."""


def rank(service: Service, source: Workload, workload: Workload) -> int:
    """How many scopes match, from the first on; a network in common beats everything else."""
    scopes = service.load_balancer.routing_preferences
    matched = 0
    for position, scope in enumerate(scopes):
        if _same(scope, source, workload):
            matched += 1
            if position == 0 and scope is Scope.NETWORK:
                matched += len(scopes) - 1
        elif not (position == 0 and scope is Scope.NETWORK):
            break
    return matched


def _same(scope: Scope, one: Workload, other: Workload) -> bool:
    fields = {
        Scope.REGION: lambda each: each.locality.region,
        Scope.ZONE: lambda each: each.locality.zone,
        Scope.SUBZONE: lambda each: each.locality.subzone,
        Scope.NODE: lambda each: each.node,
        Scope.CLUSTER: lambda each: each.cluster_id,
        Scope.NETWORK: lambda each: each.network,
    }
    return bool(fields[scope](one) == fields[scope](other))


def targets(
    mesh: Mesh, service: Service, source: Workload, to: Endpoint, *, is_waypoint: bool = False
) -> list[Target]:
    """All endpoints of `service` that may take a connection to `to`."""
    found = []
    balancer = service.load_balancer
    for workload in mesh.workloads:
        if service.key not in workload.services:
            continue
        if balancer.health_policy is HealthPolicy.ONLY_HEALTHY and workload.status is Status.UNHEALTHY:
            continue
        is_here = workload.network == source.network
        has_address = workload.workload_ips or workload.hostname
        if not has_address and (is_here or workload.network_gateway is None):
            continue
        port = _target_port(service, workload, to.port, is_waypoint=is_waypoint)
        if port is None:
            continue
        ip = _address(service, workload, to)
        if ip is None:
            continue
        found.append(Target(workload, port, ip))
    if balancer.mode is BalancerMode.STRICT:
        scopes = balancer.routing_preferences
        return [each for each in found if all(_same(scope, source, each.workload) for scope in scopes)]
    if balancer.mode is BalancerMode.FAILOVER and found:
        best = max(rank(service, source, each.workload) for each in found)
        return [each for each in found if rank(service, source, each.workload) == best]
    return found


def _target_port(service: Service, workload: Workload, port: int, *, is_waypoint: bool) -> int | None:
    for entry in workload.service_ports:
        if entry.service == service.key and entry.port == port and entry.target_port != 0:
            return entry.target_port
    for served, target in service.ports:
        if served == port and target:
            return target
    if is_waypoint and workload.application_tunnel is not None:
        return port
    return None


def _address(service: Service, workload: Workload, to: Endpoint) -> str | None:
    """The address to dial, "" where there is none to dial directly, None where there should be one."""
    if not workload.workload_ips:
        return ""
    if to.ip in workload.workload_ips:
        return to.ip
    usable = [ip for ip in workload.workload_ips if service.ip_families.allows(ip)]
    if not usable:
        return None if not workload.hostname else ""
    alike = [ip for ip in usable if (":" in ip) == (":" in to.ip)]
    return (alike or usable)[0]


# Waypoints and gateways


class Found(NamedTuple):
    """What a waypoint's or gateway's address may come to."""

    workload: Workload
    ip: str
    port: int
    sans: tuple[str, ...]


def meant(mesh: Mesh, source: Workload, reference: GatewayAddress) -> list[Workload]:
    """All workloads that are what the reference names, or behind that."""
    where = reference.destination
    if isinstance(where, NamespacedHostname):
        service = mesh.service(str(where))
        named = [
            each
            for each in mesh.workloads
            if (each.namespace, each.hostname) == (where.namespace, where.hostname)
        ]
    else:
        service = service_of(mesh, where.network, where.ip, source.namespace)
        owner = workload_at(mesh, where.network, where.ip)
        named = [] if owner is None else [owner]
    if service is not None:
        return [each for each in mesh.workloads if service.key in each.services]
    return named[:1]


def at_reference(mesh: Mesh, source: Workload, reference: GatewayAddress) -> list[Found]:
    """All workloads that a reference may lead to; none when it leads nowhere."""
    where, port = reference.destination, reference.hbone_mtls_port
    if isinstance(where, NamespacedHostname):
        service = mesh.service(str(where))
        if service is None:
            named = [
                each
                for each in mesh.workloads
                if (each.namespace, each.hostname) == (where.namespace, where.hostname)
            ]
            return [Found(each, (each.workload_ips or ("",))[0], port, ()) for each in named[:1]]
        to = Endpoint("0.0.0.0", port)
    else:
        service = service_of(mesh, where.network, where.ip, source.namespace)
        if service is None:
            workload = workload_at(mesh, where.network, where.ip)
            return [] if workload is None else [Found(workload, where.ip, port, ())]
        to = Endpoint(where.ip, port)
    return [
        Found(each.workload, each.ip, each.port, service.subject_alt_names)
        for each in targets(mesh, service, source, to, is_waypoint=True)
    ]


# The procedure


def route(mesh: Mesh, source: Workload, to: Endpoint, settings: Settings) -> set[Outcome]:
    """Every outcome that a connection of `source` to `to` may have."""
    ip = ipaddress.ip_address(to.ip)
    workload = workload_at(mesh, source.network, to.ip)
    if to.port in ILLEGAL and (ip.is_loopback or workload is not None):
        return {REFUSE}
    addressed = None
    if workload is None:
        addressed = service_at(mesh, source, to.ip, settings)
    if addressed is not None:
        references = [each.destination for each in addressed.weighted_waypoints] or (
            [addressed.waypoint] if addressed.waypoint else []
        )
        if references:
            outcomes: set[Outcome] = set()
            for reference in references:
                outcomes |= _through_waypoint(mesh, source, to, addressed, reference, settings)
            return outcomes
    return _direct(mesh, source, to, workload, settings)


def _through_waypoint(
    mesh: Mesh,
    source: Workload,
    to: Endpoint,
    service: Service,
    reference: GatewayAddress,
    settings: Settings,
) -> set[Outcome]:
    found = at_reference(mesh, source, reference)
    if not found:
        if settings.waypoint_policy is WaypointPolicy.PREFER:
            return _direct(mesh, source, to, None, settings)
        return {REFUSE}
    outcomes = set()
    for each in found:
        if each.workload.network != source.network:
            outcomes |= _through_gateway(mesh, source, each.workload, service, to.port)
        else:
            outcomes.add(_waypoint(each, to))
    return outcomes


def _waypoint(found: Found, to: Endpoint) -> Outcome:
    return Outcome(
        "waypoint",
        _joined(found.ip or found.workload.hostname, found.port),
        str(to),
        frozenset({str(found.workload.identity), *found.sans}),
        workload=found.workload.uid,
    )


def _direct(
    mesh: Mesh, source: Workload, to: Endpoint, workload: Workload | None, settings: Settings
) -> set[Outcome]:
    service = service_at(mesh, source, to.ip, settings)
    if service is not None:
        return _to_service(mesh, source, to, service)
    if workload is None:
        return {_unknown(to, settings)}
    if workload.waypoint is not None and not _comes_from_waypoint(mesh, source, workload.waypoint):
        found = at_reference(mesh, source, workload.waypoint)
        if found:
            # A gateway takes names of services, and nobody named one.
            return {
                _waypoint(each, to) if each.workload.network == source.network else REFUSE for each in found
            }
        if settings.waypoint_policy is WaypointPolicy.MUST_TRAVERSE:
            return {REFUSE}
    return {_to(Target(workload, to.port, to.ip), ())}


def _to_service(mesh: Mesh, source: Workload, to: Endpoint, service: Service) -> set[Outcome]:
    if service.load_balancer.mode is BalancerMode.PASSTHROUGH:
        return {Outcome("passthrough", str(to))}
    outcomes: set[Outcome] = set()
    for each in targets(mesh, service, source, to):
        if each.workload.network != source.network:
            outcomes |= _through_gateway(mesh, source, each.workload, service, to.port)
        else:
            outcomes.add(_to(each, service.subject_alt_names))
    return outcomes or {REFUSE}


def _comes_from_waypoint(mesh: Mesh, source: Workload, reference: GatewayAddress) -> bool:
    """Whether one of those that the reference means has the source's identity and address, well or not."""
    return any(
        each.identity == source.identity and set(each.workload_ips) & set(source.workload_ips)
        for each in meant(mesh, source, reference)
    )


def _unknown(to: Endpoint, settings: Settings) -> Outcome:
    ip = ipaddress.ip_address(to.ip)
    if ip.version == 6 and ip.is_link_local:
        return REFUSE
    if settings.outbound_policy is OutboundPolicy.REGISTRY_ONLY and not ip.is_loopback:
        return REFUSE
    return Outcome("passthrough", str(to))


def _to(target: Target, sans: Iterable[str]) -> Outcome:
    workload, where = target.workload, target.ip or target.workload.hostname
    if target.port in ILLEGAL:
        return REFUSE
    if workload.protocol is Protocol.TCP:
        return Outcome("tcp", _joined(where, target.port), workload=workload.uid)
    return Outcome(
        "hbone",
        _joined(where, 15008),
        _joined(where, target.port),
        frozenset({str(workload.identity), *sans}),
        workload=workload.uid,
    )


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _through_gateway(
    mesh: Mesh, source: Workload, workload: Workload, service: Service, port: int
) -> set[Outcome]:
    if workload.network_gateway is None or not service.subject_alt_names:
        return {REFUSE}
    found = at_reference(mesh, source, workload.network_gateway)
    return {
        Outcome(
            "gateway",
            _joined(each.ip or each.workload.hostname, each.port),
            f"{service.hostname}:{port}",
            frozenset({str(each.workload.identity), *each.sans}),
            frozenset(service.subject_alt_names),
            each.workload.uid,
        )
        for each in found
    } or {REFUSE}
