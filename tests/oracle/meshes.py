"""Random meshes, small and crowded, so that every rule soon meets every other."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from zproxy.model.addr import Endpoint
from zproxy.model.policy import (
    Action,
    Authorization,
    IpBlock,
    Match,
    PolicyScope,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from zproxy.model.service import (
    BalancerMode,
    GatewayAddress,
    HealthPolicy,
    IpFamilies,
    LoadBalancer,
    NamespacedHostname,
    NetworkAddress,
    NetworkCidr,
    Scope,
    Service,
    Visibility,
    WeightedWaypoint,
)
from zproxy.model.settings import Compat, OutboundPolicy, Settings, WaypointPolicy
from zproxy.model.workload import (
    ApplicationTunnel,
    AppProtocol,
    Locality,
    NetworkMode,
    Protocol,
    ServicePort,
    Status,
    Workload,
)
from zproxy.state.store import Mesh

NAMESPACES = ("demo", "shop")
NETWORKS = ("", "", "", "net2")
PORTS = (80, 443, 8080)
UNKNOWN_IPS = ("192.0.2.1", "127.0.0.1", "127.9.9.9", "::1", "fe80::9", "2001:db8::1")


@dataclass(frozen=True, slots=True)
class World:
    """A mesh, somebody in it, and how the node is set."""

    mesh: Mesh
    source: Workload
    settings: Settings


def world(rng: random.Random) -> World:
    """Return a random one; the same for the same state of `rng`."""
    services = [_service(rng, number) for number in range(rng.randint(0, 4))]
    services += [_waypoint_service(rng, number) for number in range(rng.randint(0, 2))]
    services = list({each.key: each for each in services}.values())
    workloads = [_workload(rng, number, services) for number in range(rng.randint(2, 7))]
    refs = _references(rng, services, workloads)
    services = [_with_waypoints(rng, each, refs) for each in services]
    workloads = [_with_references(rng, each, refs) for each in workloads]
    policies = [_policy(rng, number, workloads) for number in range(rng.randint(0, 4))]
    mesh = Mesh.of(workloads, services, policies)
    settings = Settings(
        rng.choice(list(OutboundPolicy)), rng.choice(list(WaypointPolicy)), rng.choice(list(Compat))
    )
    sources = [each for each in mesh.workloads if each.workload_ips] or list(mesh.workloads)
    return World(mesh, rng.choice(sources), settings)


def destination(rng: random.Random, mesh: Mesh) -> Endpoint:
    """Return what an app might dial."""
    ips = [ip for each in mesh.workloads for ip in each.workload_ips]
    ips += [vip.ip for each in mesh.services for vip in each.vips]
    ips += [f"10.97.{number}.{rng.choice((0, 7))}" for number in range(3)]
    ips.append(rng.choice(UNKNOWN_IPS))
    return Endpoint(rng.choice(ips), rng.choice((*PORTS, *PORTS, *PORTS, 15001, 15008, 9)))


def _service(rng: random.Random, number: int) -> Service:
    namespace = rng.choice(NAMESPACES)
    hostname = rng.choice((f"svc{number}.{namespace}.svc.cluster.local", "shared.example.com"))
    vips = [NetworkAddress("", f"10.96.0.{number + 1}")] if rng.random() < 0.7 else []
    if rng.random() < 0.3:
        vips.append(NetworkAddress("", "10.96.0.99"))  # shared by several
    if rng.random() < 0.2:
        vips.append(NetworkAddress("", f"fd00:96::{number + 1}"))
    cidrs = [NetworkCidr("", f"10.97.{number}.0", 24)] if rng.random() < 0.3 else []
    if rng.random() < 0.15:
        cidrs.append(NetworkCidr("", "10.97.0.0", 16))
    if rng.random() < 0.15:
        cidrs.append(NetworkCidr("", "10.0.0.0", rng.choice((24, 30))))  # of pods
    ports = tuple((port, rng.choice((port, 0, port + 1000))) for port in PORTS if rng.random() < 0.7)
    return Service(
        f"svc{number}",
        namespace,
        hostname,
        tuple(vips),
        tuple(cidrs),
        ports,
        subject_alt_names=("spiffe://cluster.local/ns/demo/sa/alt",) if rng.random() < 0.7 else (),
        load_balancer=_balancer(rng),
        ip_families=rng.choice((IpFamilies.AUTOMATIC, IpFamilies.AUTOMATIC, *IpFamilies)),
        canonical=rng.random() < 0.3,
        visibility=rng.choice((Visibility.PUBLIC, Visibility.PUBLIC, Visibility.NAMESPACE)),
    )


def _balancer(rng: random.Random) -> LoadBalancer:
    mode = rng.choice((BalancerMode.STANDARD, BalancerMode.STANDARD, *BalancerMode))
    scopes = rng.sample(list(Scope), rng.randint(0, 3))
    if rng.random() < 0.4 and Scope.NETWORK not in scopes:
        scopes.insert(0, Scope.NETWORK)
    return LoadBalancer(tuple(scopes), mode, rng.choice(list(HealthPolicy)))


def _waypoint_service(rng: random.Random, number: int) -> Service:
    vips = (NetworkAddress("", f"10.98.0.{number + 1}"),) if rng.random() < 0.7 else ()
    return Service(
        f"waypoint{number}", "demo", f"waypoint{number}.demo.svc.cluster.local", vips, ports=((15008, 15008),)
    )


def _workload(rng: random.Random, number: int, services: list[Service]) -> Workload:
    namespace, network = rng.choice(NAMESPACES), rng.choice(NETWORKS)
    name = f"pod{number}"
    ips = [f"10.0.0.{number + 1}"] if rng.random() < 0.9 else []
    if ips and rng.random() < 0.3:
        ips.append(f"fd00::{number + 1}")
    members = [each for each in services if rng.random() < 0.5]
    ports = [_port_of(rng, service, port, target) for service in members for port, target in service.ports]
    return Workload(
        uid=f"Kubernetes//Pod/{namespace}/{name}",
        name=name,
        namespace=namespace,
        service_account=rng.choice(("default", name)),
        workload_ips=tuple(ips),
        protocol=rng.choice((Protocol.HBONE, Protocol.HBONE, Protocol.TCP)),
        node=rng.choice(("a", "b")),
        network=network,
        cluster_id=rng.choice(("Kubernetes", "c2")),
        status=rng.choice((Status.HEALTHY, Status.HEALTHY, Status.UNHEALTHY)),
        services=tuple(each.key for each in members),
        service_ports=tuple(port for port in ports if port is not None),
        locality=Locality(rng.choice("rs"), rng.choice("zy"), rng.choice("uv")),
        hostname=f"{name}.example.com" if rng.random() < 0.2 else "",
        network_mode=NetworkMode.HOST_NETWORK if rng.random() < 0.1 else NetworkMode.STANDARD,
        application_tunnel=ApplicationTunnel(AppProtocol.PROXY, 15088) if rng.random() < 0.1 else None,
    )


def _port_of(rng: random.Random, service: Service, port: int, target: int) -> ServicePort | None:
    if rng.random() < 0.15:
        return None
    if rng.random() < 0.05:
        return ServicePort(service.key, port, 0)
    return ServicePort(service.key, port, target or port + 2000)


def _references(
    rng: random.Random, services: list[Service], workloads: list[Workload]
) -> list[GatewayAddress]:
    """Return addresses that a waypoint or gateway might be said to have; some lead nowhere."""
    found: list[NetworkAddress | NamespacedHostname] = [
        NetworkAddress("", "10.255.255.1"),
        NamespacedHostname("demo", "nowhere.demo.svc.cluster.local"),
    ]
    for service in services:
        if service.name.startswith("waypoint"):
            found += [*service.vips, NamespacedHostname(service.namespace, service.hostname)] * 2
    for workload in workloads:
        found += [NetworkAddress(workload.network, ip) for ip in workload.workload_ips[:1]] * 2
        if workload.hostname:
            found.append(NamespacedHostname(workload.namespace, workload.hostname))
    return [GatewayAddress(each) for each in found]


def _with_waypoints(rng: random.Random, service: Service, refs: list[GatewayAddress]) -> Service:
    if service.name.startswith("waypoint") or rng.random() < 0.6:
        return service
    if rng.random() < 0.3:
        several = tuple(WeightedWaypoint(rng.choice(refs), weight) for weight in (1, 3))
        return replace(service, weighted_waypoints=several)
    return replace(service, waypoint=rng.choice(refs))


def _with_references(rng: random.Random, workload: Workload, refs: list[GatewayAddress]) -> Workload:
    return replace(
        workload,
        waypoint=rng.choice(refs) if rng.random() < 0.2 else None,
        network_gateway=(
            GatewayAddress(rng.choice(refs).destination, 15009)
            if workload.network and rng.random() < 0.9
            else None
        ),
        authorization_policies=tuple(
            f"demo/policy{number}" for number in range(5) if rng.random() < (0.3 if number < 4 else 0.03)
        ),
    )


def _policy(rng: random.Random, number: int, workloads: list[Workload]) -> Authorization:
    rules = tuple(
        tuple(
            tuple(_match(rng, workloads) for _ in range(rng.choice((0, 1, 1, 1, 2))))
            for _ in range(rng.choice((0, 1, 1, 2)))
        )
        for _ in range(rng.choice((0, 1, 1, 2)))
    )
    return Authorization(
        f"policy{number}",
        "demo",
        rng.choice(list(PolicyScope)),
        rng.choice(list(Action)),
        rules,
        dry_run=rng.random() < 0.1,
        defect="has an action that this version does not know" if rng.random() < 0.05 else "",
    )


def _match(rng: random.Random, workloads: list[Workload]) -> Match:
    chosen: dict[str, tuple[object, ...]] = {}
    for name in rng.sample(Match._fields, rng.choice((0, 1, 1, 1, 2, 3))):
        make = _VALUES[name.removeprefix("not_")]
        chosen[name] = tuple(make(rng, rng.choice(workloads)) for _ in range(rng.choice((1, 1, 2))))
    return Match(**chosen)  # type: ignore[arg-type]  # each field has values of its own kind


def _text(rng: random.Random, value: str) -> StringMatch:
    kind = rng.choice(list(StringKind))
    half = len(value) // 2
    cut = {
        StringKind.EXACT: value,
        StringKind.PREFIX: value[:half],
        StringKind.SUFFIX: value[half:],
        StringKind.PRESENCE: "",
    }
    return StringMatch(kind, cut[kind])


def _block(rng: random.Random, workload: Workload) -> IpBlock:
    ip = (workload.workload_ips or ("10.0.0.1",))[0]
    return rng.choice(
        (IpBlock(ip, 32), IpBlock("10.0.0.0", 29), IpBlock("fd00::", 64), IpBlock("0.0.0.0", 0))
    )


_VALUES: dict[str, Callable[[random.Random, Workload], Any]] = {
    "namespaces": lambda rng, workload: _text(rng, workload.namespace),
    "principals": lambda rng, workload: _text(rng, str(workload.identity).removeprefix("spiffe://")),
    "service_accounts": lambda rng, workload: ServiceAccountMatch(
        workload.namespace, workload.service_account
    ),
    "source_ips": _block,
    "destination_ips": _block,
    "destination_ports": lambda rng, workload: rng.choice(PORTS),
}
