"""Labels of inbound streams: whose word counts, and which service was meant."""

from dataclasses import replace

import pytest

from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.model.service import GatewayAddress, NamespacedHostname, NetworkAddress, Visibility
from zproxy.model.settings import DEFAULT_SETTINGS, Settings
from zproxy.model.workload import Status
from zproxy.proxy.labels import relays, service_of, source_of
from zproxy.state.resolve import resolve
from zproxy.state.store import REMEMBERED
from zproxy.wire.headers import ConnectRequest, Headers
from zproxy.wire.hpack_blocks import Field

SERVER = workload("demo/server", "10.0.0.2")
CLIENT = workload("demo/client", "10.0.0.1")
GATEWAY = workload("demo/gateway", "10.0.0.3")
BEYOND = GatewayAddress(NetworkAddress("", "10.0.0.3"))
FAR = workload("demo/far", network="net2", network_gateway=BEYOND)
MESH = mesh(SERVER, CLIENT, GATEWAY, FAR)
WHO = SpiffeId("cluster.local", "shop", "buyer")
CLAIM = "k8s.cluster.name=c2,k8s.namespace.name=bank,k8s.deployment.name=vault"
TRUSTING = Settings(trust_labels=True)


def request(**headers: str) -> ConnectRequest:
    fields: tuple[Field, ...] = tuple(
        (name.replace("_", "-").encode(), value.encode(), False) for name, value in headers.items()
    )
    return ConnectRequest("10.0.0.2:80", Headers(fields))


@pytest.mark.parametrize(
    ("ip", "network", "settings", "name"),
    [
        ("10.0.0.1", "", DEFAULT_SETTINGS, "client"),
        ("10.0.0.1", "net2", DEFAULT_SETTINGS, "client"),
        ("10.0.0.3", "", DEFAULT_SETTINGS, "gateway"),
        ("10.0.0.3", "net2", DEFAULT_SETTINGS, "vault"),
        ("192.0.2.1", "", DEFAULT_SETTINGS, None),
        ("192.0.2.1", "net2", DEFAULT_SETTINGS, None),
        ("10.0.0.1", "net2", TRUSTING, "vault"),
        ("10.0.0.1", "", TRUSTING, "client"),
        ("192.0.2.1", "", TRUSTING, "vault"),
    ],
    ids=[
        "known",
        "known, and says that it is from elsewhere",
        "a gateway for itself",
        "a gateway for another network",
        "unknown",
        "unknown, and says that it is from elsewhere",
        "believed",
        "known, and the mesh knows better",
        "unknown and believed",
    ],
)
def test_whose_labels_count(ip: str, network: str, settings: Settings, name: str | None) -> None:
    headers = {"baggage": CLAIM} | ({"x_forwarded_network": network} if network else {})
    found = source_of(MESH, SERVER, ip, WHO, request(**headers), settings)
    assert (found and found.name) == name


def test_the_namespace_is_the_proven_one() -> None:
    headers = {"baggage": CLAIM, "x_forwarded_network": "net2"}
    found = source_of(MESH, SERVER, "10.0.0.3", WHO, request(**headers), DEFAULT_SETTINGS)
    assert found is not None
    assert (found.namespace, found.service_account) == ("shop", "buyer")


def test_relays_are_found_by_every_kind_of_reference() -> None:
    by_name = service("demo/waypoint.test", ports={15008: 15008})
    pod = behind(workload("demo/waypoint", "10.0.0.5"), by_name)
    reference = GatewayAddress(NamespacedHostname("demo", "waypoint.test"))
    web = replace(service("demo/web.test"), waypoint=reference)
    assert relays(mesh(by_name, pod, web, GATEWAY, FAR)) == {pod.uid, GATEWAY.uid}
    assert relays(mesh()) == frozenset()


def test_relays_are_not_forgotten_because_a_client_dials_everything() -> None:
    found = relays(MESH)
    for port in range(1, 2 * REMEMBERED + 2):
        resolve(MESH, CLIENT, Endpoint("10.0.0.2", port))
    assert relays(MESH) is found


def test_a_relay_that_is_unhealthy_is_one_all_the_same() -> None:
    gate = service("demo/gate.test", ports={15009: 15009}, visibility=Visibility.NAMESPACE)
    pod = behind(replace(GATEWAY, status=Status.UNHEALTHY), gate)
    far = replace(FAR, network_gateway=GatewayAddress(NamespacedHostname("demo", "gate.test"), 15009))
    assert relays(mesh(workload("another/first", "10.0.0.4"), gate, pod, far)) == {pod.uid}


WEB, API = service("demo/web.test"), service("demo/api.test")
SERVING = behind(SERVER, WEB, API)


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ('for="10.0.0.1:4000";host=api.test', API),
        ('for="10.0.0.1:4000";host="API.test"', API),
        ('for="10.0.0.1:4000";host=other.test', None),
        ('for="10.0.0.1:4000"', None),
        ("", None),
    ],
)
def test_a_host_selects_among_the_pods_own_services(forwarded: str, expected: object) -> None:
    known = mesh(WEB, API, SERVING, service("demo/other.test"))
    assert service_of(known, SERVING, None, request(forwarded=forwarded)) == expected


def test_an_authority_that_names_a_service_of_the_pod_says_more_than_a_header() -> None:
    known = mesh(WEB, API, SERVING)
    assert service_of(known, SERVING, WEB, request(forwarded="host=api.test")) is WEB
