"""Services of the mesh from those of Kubernetes, as istiod makes them for ztunnel."""

from collections.abc import Mapping
from typing import Final

from zproxy.kube.membership import NO_NAMESPACE
from zproxy.kube.objects import KubeService, Namespace
from zproxy.model.service import (
    BalancerMode,
    HealthPolicy,
    IpFamilies,
    LoadBalancer,
    NetworkAddress,
    Scope,
    Service,
    SessionAffinity,
)

_ZONE: Final = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
_NEAR: Final = {
    "preferclose": _ZONE,
    "prefersamezone": _ZONE,
    "prefersamenode": (*_ZONE, Scope.SUBZONE, Scope.NODE),
}
"""What is preferred with each trafficDistribution, in lower case; any other word prefers nothing."""
_FAMILIES: Final[dict[tuple[str, ...], IpFamilies]] = {
    ("IPv4",): IpFamilies.IPV4_ONLY,
    ("IPv6",): IpFamilies.IPV6_ONLY,
}


def service_of(service: KubeService, namespace: Namespace = NO_NAMESPACE, domain: str = "") -> Service:
    """Return the service of the mesh; `domain` is what names of the cluster's services end in."""
    return Service(
        name=service.name,
        namespace=service.namespace,
        hostname=f"{service.name}.{service.namespace}.svc.{domain}",
        vips=tuple(NetworkAddress("", ip) for ip in service.cluster_ips),
        ports=tuple((each.port, each.target) for each in service.ports),
        load_balancer=_balancer(service, namespace),
        ip_families=IpFamilies.DUAL if len(service.families) > 1 else _family(service.families),
        canonical=True,
        port_names=tuple((each.name, each.port) for each in service.ports if each.name),
    )


def ports_by_name(service: KubeService) -> Mapping[str, int]:
    """Return the service's ports by the names that its slices have for them; one alone may have none."""
    return {each.name: each.port for each in service.ports}


def _balancer(service: KubeService, namespace: Namespace) -> LoadBalancer:
    scopes, mode = _scopes(service, namespace)
    return LoadBalancer(
        scopes,
        mode,
        HealthPolicy.ALLOW_ALL if service.publish_not_ready else HealthPolicy.ONLY_HEALTHY,
        SessionAffinity.CLIENT_IP if service.client_affinity else SessionAffinity.NONE,
    )


def _scopes(service: KubeService, namespace: Namespace) -> tuple[tuple[Scope, ...], BalancerMode]:
    if service.is_local:
        return (Scope.NODE,), BalancerMode.STRICT
    near = _NEAR.get(service.distribution or namespace.distribution, ())
    return near, BalancerMode.FAILOVER if near else BalancerMode.STANDARD


def _family(families: tuple[str, ...]) -> IpFamilies:
    return _FAMILIES.get(families, IpFamilies.AUTOMATIC)
