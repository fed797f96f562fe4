"""Services as istiod makes them."""

from typing import Any

import pytest

from tests.support.kubeobjects import kube_service
from zproxy.kube.objects import Namespace, read_service
from zproxy.kube.services import ports_by_name, service_of
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

ZONE = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
NODE = (*ZONE, Scope.SUBZONE, Scope.NODE)
FAILOVER, STANDARD = BalancerMode.FAILOVER, BalancerMode.STANDARD


def made(namespace: str = "", **spec: Any) -> Service:
    return service_of(
        read_service(kube_service("demo/web", "10.96.0.1", **spec)), Namespace("", namespace), "c.l"
    )


def test_names_addresses_and_ports() -> None:
    service = made(ports={"http": (80, 8080), "admin": (81, "admin")})
    assert service.key == "demo/web.demo.svc.c.l"
    assert service.vips == (NetworkAddress("", "10.96.0.1"),)
    assert service.ports == ((80, 8080), (81, 0))
    assert service.port_names == (("http", 80), ("admin", 81))
    assert service.canonical


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        (["IPv4"], IpFamilies.IPV4_ONLY),
        (["IPv6"], IpFamilies.IPV6_ONLY),
        (["IPv6", "IPv4"], IpFamilies.DUAL),
        ([], IpFamilies.AUTOMATIC),
    ],
)
def test_families(families: list[str], expected: IpFamilies) -> None:
    assert made(ipFamilies=families).ip_families is expected


ANNOTATION = "networking.istio.io/traffic-distribution"


@pytest.mark.parametrize(
    ("spec", "namespace", "scopes", "mode"),
    [
        ({}, "", (), STANDARD),
        ({"internalTrafficPolicy": "Cluster"}, "", (), STANDARD),
        ({"internalTrafficPolicy": "Local"}, "", (Scope.NODE,), BalancerMode.STRICT),
        (
            {"internalTrafficPolicy": "Local", "trafficDistribution": "PreferSameZone"},
            "",
            (Scope.NODE,),
            BalancerMode.STRICT,
        ),
        ({"trafficDistribution": "PreferClose"}, "", ZONE, FAILOVER),
        ({"trafficDistribution": "PreferSameZone"}, "", ZONE, FAILOVER),
        ({"trafficDistribution": "PreferSameNode"}, "", NODE, FAILOVER),
        ({"trafficDistribution": "PreferSomething"}, "", (), STANDARD),
        ({"annotations": {ANNOTATION: "preferClose"}}, "", ZONE, FAILOVER),
        (
            {"trafficDistribution": "PreferSameNode", "annotations": {ANNOTATION: "PreferClose"}},
            "",
            NODE,
            FAILOVER,
        ),
        ({}, "prefersamenode", NODE, FAILOVER),
        ({"annotations": {ANNOTATION: "Any"}}, "prefersamenode", (), STANDARD),
    ],
)
def test_how_near_endpoints_are(
    spec: dict[str, Any], namespace: str, scopes: tuple[Scope, ...], mode: BalancerMode
) -> None:
    assert made(namespace, **spec).load_balancer == LoadBalancer(scopes, mode)


def test_health_and_affinity() -> None:
    balancer = made(publishNotReadyAddresses=True, sessionAffinity="ClientIP").load_balancer
    assert balancer.health_policy is HealthPolicy.ALLOW_ALL
    assert balancer.session_affinity is SessionAffinity.CLIENT_IP


def test_ports_by_the_names_that_slices_have() -> None:
    item = kube_service("demo/web", "10.96.0.1")
    item["spec"]["ports"] = [{"port": 80}]
    assert ports_by_name(read_service(item)) == {"": 80}
