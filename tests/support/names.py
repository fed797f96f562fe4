"""A mesh in which every rule about names has somebody that it applies to: that of ztunnel's DNS tests, and
beside it what ztunnel leaves to others."""

from dataclasses import replace
from typing import Any

from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.service import (
    DEFAULT_BALANCER,
    HealthPolicy,
    IpFamilies,
    NetworkAddress,
    Service,
    Visibility,
)
from zproxy.model.workload import Status, Workload
from zproxy.state.names import Asker
from zproxy.state.store import Mesh

PREFERRED = "preferred-ns"


def named(hostname: str, namespace: str, *vips: str, **fields: Any) -> Service:
    """A service with VIPs on network nw1, or on the one that is named before a slash."""
    made = service(f"{namespace}/{hostname}", ports=fields.pop("ports", {80: 80}), **fields)
    found = (vip.rpartition("/") for vip in vips)
    return replace(made, vips=tuple(NetworkAddress(network or "nw1", ip) for network, _, ip in found))


def kubernetes(name: str, namespace: str, *vips: str, **fields: Any) -> Service:
    return named(f"{name}.{namespace}.svc.cluster.local", namespace, *vips, **fields)


def pod(name: str, *ips: str, of: Service | None = None, **fields: Any) -> Workload:
    made = workload(f"ns1/{name}", *ips, network="nw1", **fields)
    return made if of is None else behind(made, of)


HEADLESS = kubernetes("headless", "ns1", port_names=(("http", 80),))
HEADLESS6 = kubernetes("headless-ipv6", "ns1", ip_families=IpFamilies.IPV6_ONLY)
EXTERNAL = named("headless.example.com", "ns1")
PATIENT = kubernetes(
    "patient", "ns1", load_balancer=DEFAULT_BALANCER._replace(health_policy=HealthPolicy.ALLOW_ALL)
)
CLIENT = pod("client", "10.0.0.1")


def names_mesh() -> Mesh:
    """The mesh; CLIENT is the pod that asks."""
    return mesh(
        CLIENT,
        pod("headless0", "30.30.30.30", "2001:db8::30", "30.30.30.99", of=HEADLESS),
        pod("headless1", "31.31.31.31", "2001:db8::31", of=HEADLESS),
        behind(workload("ns1/elsewhere", "34.34.34.34", network="nw2"), HEADLESS),
        pod("sick", "35.35.35.35", of=HEADLESS, status=Status.UNHEALTHY),
        pod("slow", "36.36.36.36", of=PATIENT, status=Status.UNHEALTHY),
        pod("headless-external", "32.32.32.32", "2001:db8::32", of=EXTERNAL),
        pod("headless2", "33.33.33.33", "2001:db8::33", of=HEADLESS6),
        *(HEADLESS, HEADLESS6, EXTERNAL, PATIENT),
        named("headless-no-endpoints.example.com", "ns1"),
        named("www.google.com", "ns1", "1.1.1.1"),
        kubernetes(
            "productpage",
            "ns1",
            "9.9.9.9",
            ports={80: 8080, 9090: 0},
            port_names=(("http", 80), ("metrics", 9090)),
        ),
        kubernetes("example", "ns2", "10.10.10.10"),
        kubernetes("hidden", "ns2", "10.10.10.11", visibility=Visibility.NAMESPACE),
        kubernetes("empty", "ns1"),
        named("everywhere.io", "ns2", "10.10.10.110"),
        named("preferred.io", "ns2", "10.10.10.210"),
        named("everywhere.io", PREFERRED, "10.10.10.111"),
        named("preferred.io", PREFERRED, "10.10.10.211"),
        named("everywhere.io", "ns1", "10.10.10.112"),
        named("canonical.io", PREFERRED, "10.10.10.140"),
        named("canonical.io", "ns2", "10.10.10.141", canonical=True),
        named(
            "details.ns2.svc.cluster.remote",
            "ns2",
            "11.11.11.11",
            "12.12.12.12",
            "13.13.13.13",
            "14.14.14.14",
        ),
        named("ipv4.localhost", "ns1", "2.2.2.2"),
        named("ipv6.localhost", "ns1", "2001:db8::ff00:42:8329"),
        named("dual.localhost", "ns1", "2.2.2.3", "2001:db8::ff00:42:8330"),
        named("*.wildcard", "ns1", "10.10.10.12"),
        named("*.b.wildcard", "ns1", "11.11.11.12"),
        named("*.svc.mesh.company.net", "ns1", "10.1.2.3"),
        kubernetes("nw2-only", "ns1", "nw2/20.20.20.20"),
        kubernetes("both-networks", "ns1", "21.21.21.21", "nw2/22.22.22.22"),
    )


def asker(*search: str) -> Asker:
    """CLIENT, with the search list of its resolv.conf."""
    return Asker(CLIENT, "cluster.local", search, PREFERRED)
