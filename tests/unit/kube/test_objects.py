"""What is kept of objects: what is missing has the API's default, what is not used is not kept."""

from typing import Any

import pytest

from tests.support.kubeobjects import kube_endpoint, kube_namespace, kube_pod, kube_service, kube_slice
from zproxy.kube.objects import (
    Endpoint,
    Namespace,
    Node,
    ServicePort,
    read_namespace,
    read_node,
    read_pod,
    read_service,
    read_slice,
)


def test_a_pod() -> None:
    pod = read_pod(kube_pod("demo/web", "10.0.0.1", "FD00::0:1", uid="u1", serviceAccountName="web"))
    assert (pod.key, pod.uid, pod.node, pod.service_account) == ("demo/web", "u1", "node-a", "web")
    assert pod.ips == ("10.0.0.1", "fd00::1")
    assert pod.is_ready
    assert not (pod.is_over)
    assert not (pod.host_network)
    assert not (pod.redirected)
    assert not (pod.has_sidecar)
    assert not (pod.native_tunnel)
    assert (pod.mode, pod.dns, pod.bypass_inbound) == ("", None, False)


def test_a_pod_that_was_made_a_moment_ago() -> None:
    pod = read_pod({"metadata": {"name": "web", "namespace": "demo", "uid": "u"}, "spec": {}})
    assert (pod.node, pod.ips, pod.service_account, pod.is_ready) == ("", (), "default", False)


@pytest.mark.parametrize(
    ("more", "ready"),
    [({}, True), ({"ready": False}, False), ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, False)],
)
def test_readiness(more: dict[str, Any], ready: bool) -> None:
    assert read_pod(kube_pod("demo/web", "10.0.0.1", **more)).is_ready is ready


@pytest.mark.parametrize(
    ("phase", "over"),
    [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True), ("Unknown", False)],
)
def test_phases(phase: str, over: bool) -> None:
    assert read_pod(kube_pod("demo/web", phase=phase)).is_over is over


@pytest.mark.parametrize(
    ("labels", "name", "revision"),
    [
        ({}, "web", "latest"),
        ({"app": "a", "version": "v"}, "a", "v"),
        (
            {"app": "a", "app.kubernetes.io/name": "b", "app.kubernetes.io/version": "2", "version": "v"},
            "b",
            "2",
        ),
        (
            {
                "app": "a",
                "app.kubernetes.io/name": "b",
                "service.istio.io/canonical-name": "c",
                "service.istio.io/canonical-revision": "3",
                "app.kubernetes.io/version": "2",
            },
            "c",
            "3",
        ),
        ({"app": ""}, "web", "latest"),
    ],
)
def test_canonical_names(labels: dict[str, str], name: str, revision: str) -> None:
    pod = read_pod(kube_pod("demo/web", labels=labels))
    assert (pod.canonical_name, pod.canonical_revision) == (name, revision)


@pytest.mark.parametrize(
    ("text", "dns"), [("true", True), ("false", False), ("False", False), ("maybe", None)]
)
def test_annotations_of_enrolment(text: str, dns: bool | None) -> None:
    annotations = {
        "ambient.istio.io/dns-capture": text,
        "ambient.istio.io/bypass-inbound-capture": text,
        "ambient.istio.io/redirection": "enabled",
        "sidecar.istio.io/status": "{}",
    }
    labels = {"istio.io/dataplane-mode": "ambient", "networking.istio.io/tunnel": "http"}
    pod = read_pod(kube_pod("demo/web", annotations=annotations, labels=labels, hostNetwork=True))
    assert (pod.dns, pod.bypass_inbound) == (dns, dns is True)
    assert pod.redirected
    assert pod.has_sidecar
    assert pod.native_tunnel
    assert pod.host_network
    assert pod.mode == "ambient"


def test_namespaces_and_nodes_need_their_metadata_only() -> None:
    annotation = {"networking.istio.io/traffic-distribution": "PreferClose"}
    assert read_namespace(kube_namespace("demo", "ambient", **annotation)) == Namespace(
        "ambient", "preferclose"
    )
    assert read_namespace({"metadata": {"name": "demo"}}) == Namespace("", "")
    labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}
    assert read_node({"metadata": {"name": "n", "labels": labels}}) == Node("r", "z", "")


def test_a_service() -> None:
    ports: dict[str, tuple[int, int | str]] = {"http": (80, 8080), "admin": (81, "admin")}
    service = read_service(
        kube_service("demo/web", "10.96.0.1", "fd00::a", ports=ports, sessionAffinity="ClientIP")
    )
    assert service.cluster_ips == ("10.96.0.1", "fd00::a")
    assert service.ports == (ServicePort("http", 80, 8080), ServicePort("admin", 81, 0))
    assert service.client_affinity
    assert not (service.is_local)
    assert not (service.publish_not_ready)
    assert not (service.is_external_name)


def test_a_service_has_tcp_ports_only_and_a_target_like_the_port() -> None:
    item = kube_service("kube-system/dns", "10.96.0.10")
    item["spec"]["ports"] = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"port": 9153},
    ]
    assert read_service(item).ports == (ServicePort("dns-tcp", 53, 53), ServicePort("", 9153, 9153))


def test_services_without_an_address() -> None:
    assert read_service(kube_service("demo/headless")).cluster_ips == ()
    external = read_service({"metadata": {"name": "e", "namespace": "d"}, "spec": {"type": "ExternalName"}})
    assert external.is_external_name
    assert (external.cluster_ips, external.ports) == ((), ())
    old = {"metadata": {"name": "o", "namespace": "d"}, "spec": {"clusterIP": "10.96.0.7"}}
    assert read_service(old).cluster_ips == ("10.96.0.7",)


def test_a_slice() -> None:
    endpoints = [
        kube_endpoint("10.0.0.1", "web-1"),
        kube_endpoint("10.0.0.2", "web-2", ready=False),
        kube_endpoint("192.0.2.1", ready=None),
    ]
    item = kube_slice("demo/web-abc", "web", endpoints, {"http": 8080})
    item["ports"] += [{"name": "u", "port": 1, "protocol": "UDP"}, {"name": "all", "port": None}, {"port": 9}]
    found = read_slice(item)
    assert (found.namespace, found.name, found.service) == ("demo", "web-abc", "web")
    assert found.ports == (("http", 8080), ("", 9))
    assert found.endpoints == (
        Endpoint("10.0.0.1", True, "demo/web-1"),
        Endpoint("10.0.0.2", False, "demo/web-2"),
        Endpoint("192.0.2.1", True, ""),
    )


def test_a_slice_of_host_names_has_no_addresses() -> None:
    item = kube_slice("demo/web-abc", "web", [kube_endpoint("db.example.com")], family="FQDN")
    assert read_slice(item).endpoints == ()
    assert read_slice({"metadata": {"name": "x", "namespace": "d"}, "addressType": "IPv4"}).service == ""
