"""Whom the addresses of waypoints and gateways lead to."""

import random
from dataclasses import replace

import pytest

from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.service import GatewayAddress, NamespacedHostname, NetworkAddress, NetworkCidr, Service
from zproxy.model.workload import Status, Workload
from zproxy.state.choose import RandomChooser
from zproxy.state.reference import Located, identities, is_meant, leads_to, locate, refer

SOURCE = workload("demo/client", "10.0.0.9")
GATEWAY = service(
    "demo/gw.test", "10.96.0.1", ports={15008: 15008}, subject_alt_names=("spiffe://x/ns/demo/sa/alt",)
)
POD = behind(workload("demo/gw", "10.0.0.1"), GATEWAY)
NAMED = workload("demo/named", "10.0.0.2", hostname="named.example.com")
NAMELESS = workload("demo/nameless", hostname="nameless.example.com")
KNOWN = mesh(SOURCE, GATEWAY, POD, NAMED, NAMELESS)
CHOOSER = RandomChooser(random.Random(1))
OWN = str(POD.identity)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (NetworkAddress("", "10.0.0.1"), Located(POD, "10.0.0.1", 15008, (OWN,))),
        (
            NetworkAddress("", "10.96.0.1"),
            Located(POD, "10.0.0.1", 15008, (OWN, "spiffe://x/ns/demo/sa/alt")),
        ),
        (
            NamespacedHostname("demo", "gw.test"),
            Located(POD, "10.0.0.1", 15008, (OWN, "spiffe://x/ns/demo/sa/alt")),
        ),
        (
            NamespacedHostname("demo", "named.example.com"),
            Located(NAMED, "10.0.0.2", 15008, (str(NAMED.identity),)),
        ),
        (
            NamespacedHostname("demo", "nameless.example.com"),
            Located(NAMELESS, "", 15008, (str(NAMELESS.identity),)),
        ),
        (NamespacedHostname("shop", "gw.test"), None),
        (NamespacedHostname("shop", "named.example.com"), None),
        (NetworkAddress("net2", "10.0.0.1"), None),
        (NetworkAddress("", "192.0.2.1"), None),
    ],
    ids=[
        "a workload's address",
        "a service's address",
        "a service by name",
        "a workload by its host name",
        "a workload that has nothing but a host name",
        "a name of another namespace",
        "a host name of another namespace",
        "an address of another network",
        "nobody",
    ],
)
def test_references(destination: NetworkAddress | NamespacedHostname, expected: Located | None) -> None:
    assert locate(KNOWN, SOURCE, GatewayAddress(destination), CHOOSER) == expected


def test_the_port_of_a_reference_is_the_one_to_dial() -> None:
    located = locate(KNOWN, SOURCE, GatewayAddress(NetworkAddress("", "10.0.0.1"), 15009), CHOOSER)
    assert located is not None
    assert located.port == 15009


@pytest.mark.parametrize(
    ("destination", "found"),
    [
        (NamespacedHostname("demo", "gw.test"), GATEWAY),
        (NamespacedHostname("shop", "gw.test"), None),
        (NamespacedHostname("demo", "named.example.com"), NAMED),
        (NamespacedHostname("shop", "named.example.com"), None),
        (NetworkAddress("", "10.96.0.1"), GATEWAY),
        (NetworkAddress("", "10.0.0.2"), NAMED),
        (NetworkAddress("net1", "10.0.0.2"), None),
    ],
    ids=str,
)
def test_what_is_meant_whoever_asks(
    destination: NamespacedHostname | NetworkAddress, found: Service | Workload | None
) -> None:
    assert leads_to(KNOWN, GatewayAddress(destination)) is found


@pytest.mark.parametrize("status", list(Status))
def test_who_is_meant_does_not_depend_on_health_or_ports(status: Status) -> None:
    portless = replace(POD, service_ports=(), status=status)
    known = mesh(GATEWAY, portless, replace(NAMED, status=status))
    by_name = GatewayAddress(NamespacedHostname("demo", "gw.test"), 15009)
    by_address = GatewayAddress(NetworkAddress("", "10.0.0.2"))
    assert is_meant(known, by_name, portless)
    assert is_meant(known, by_address, NAMED)
    assert not is_meant(known, by_name, NAMED)
    assert not is_meant(known, by_address, portless)
    assert not is_meant(known, GatewayAddress(NetworkAddress("", "192.0.2.1")), portless)


@pytest.mark.parametrize(
    ("ip", "expected"),
    [("10.96.0.1", POD), ("10.0.0.2", NAMED), ("10.0.0.77", None)],
    ids=["VIP", "pod", "nobody"],
)
def test_a_range_is_never_meant(ip: str, expected: Workload | None) -> None:
    around = replace(service("demo/around.test"), cidr_vips=(NetworkCidr("", "10.0.0.0", 8),))
    known = mesh(SOURCE, GATEWAY, POD, NAMED, around, behind(workload("demo/wrong", "10.0.0.3"), around))
    located = locate(known, SOURCE, GatewayAddress(NetworkAddress("", ip)), CHOOSER)
    assert (located.workload if located is not None else None) == expected


def test_a_service_without_endpoints_leads_nowhere() -> None:
    reference = GatewayAddress(NamespacedHostname("demo", "gw.test"))
    assert not refer(mesh(SOURCE, GATEWAY), SOURCE, reference).candidates


def test_identities_are_sorted_and_each_there_once() -> None:
    assert identities("b", ("c", "a", "b")) == ("a", "b", "c")
    assert identities("b", ()) == ("b",)
