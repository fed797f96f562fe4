"""The mesh from what Kubernetes has."""

from typing import Any

import pytest

from tests.support.kubeobjects import (
    Object,
    kube_endpoint,
    kube_namespace,
    kube_pod,
    kube_service,
    kube_slice,
)
from zproxy.kube.ledger import key_of
from zproxy.kube.objects import read_namespace, read_node, read_pod, read_service, read_slice
from zproxy.kube.translate import Place, Snapshot, local_pods, records_of
from zproxy.model.workload import Locality, NetworkMode, Protocol, ServicePort, Status, Workload
from zproxy.state.store import Mesh

HERE = Place("node-a", "cluster.local")
KEY = "demo/web.demo.svc.cluster.local"


def snapshot(**kinds: list[Object]) -> Snapshot:
    read: dict[str, Any] = {
        "pods": read_pod,
        "namespaces": read_namespace,
        "nodes": read_node,
        "services": read_service,
        "slices": read_slice,
    }
    return Snapshot(
        **{
            kind: {key_of(item): reader(item) for item in kinds.get(kind, [])}
            for kind, reader in read.items()
        }
    )


def mesh(place: Place = HERE, **kinds: list[Object]) -> Mesh:
    return Mesh.of(*records_of(snapshot(**kinds), place))


def workload(made: Mesh, pod: str) -> Workload:
    found = made.by_pod(pod)
    assert found is not None
    return found


def test_a_pod_is_a_workload() -> None:
    reference = {"kind": "ReplicaSet", "name": "web-1a2b", "controller": True}
    pod = kube_pod(
        "demo/web-1a2b-xyz",
        "10.0.0.1",
        "fd00::1",
        node="node-b",
        labels={"pod-template-hash": "1a2b", "app": "shop"},
        ownerReferences=[reference],
        generateName="web-1a2b-",
        serviceAccountName="web",
    )
    labels = {"topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": "z1"}
    made = mesh(pods=[pod], nodes=[{"metadata": {"name": "node-b", "labels": labels}}])
    assert workload(made, "demo/web-1a2b-xyz") == Workload(
        uid="Kubernetes//Pod/demo/web-1a2b-xyz",
        name="web-1a2b-xyz",
        namespace="demo",
        service_account="web",
        workload_ips=("10.0.0.1", "fd00::1"),
        node="node-b",
        canonical_name="shop",
        canonical_revision="latest",
        workload_name="web",
        workload_type="deployment",
        locality=Locality("r1", "z1"),
    )
    assert made.by_ip("fd00::1") is made.by_ip("10.0.0.1") is not None


@pytest.mark.parametrize(
    ("node", "annotated", "labelled", "protocol"),
    [
        ("node-a", False, False, Protocol.TCP),
        ("node-a", False, True, Protocol.HBONE),
        ("node-a", True, True, Protocol.HBONE),
        ("node-a", True, False, Protocol.HBONE),
        ("node-b", False, True, Protocol.TCP),
        ("node-b", True, False, Protocol.HBONE),
    ],
)
def test_hbone_is_for_those_who_take_it_and_for_those_who_are_to_be_enrolled_here(
    node: str, annotated: bool, labelled: bool, protocol: Protocol
) -> None:
    annotations = {"ambient.istio.io/redirection": "enabled"} if annotated else {}
    pod = kube_pod("demo/web", "10.0.0.1", node=node, annotations=annotations)
    made = mesh(pods=[pod], namespaces=[kube_namespace("demo", "ambient" if labelled else "")])
    assert workload(made, "demo/web").protocol is protocol


def test_a_pod_whose_app_speaks_hbone() -> None:
    pod = kube_pod("demo/gate", "10.0.0.1", labels={"networking.istio.io/tunnel": "http"})
    found = workload(mesh(pods=[pod]), "demo/gate")
    assert found.native_tunnel
    assert found.protocol is Protocol.HBONE


def test_a_pod_on_its_nodes_network_is_not_found_by_that_address() -> None:
    annotations = {"ambient.istio.io/redirection": "enabled"}
    made = mesh(pods=[kube_pod("demo/agent", "192.0.2.1", hostNetwork=True, annotations=annotations)])
    found = workload(made, "demo/agent")
    assert found.network_mode is NetworkMode.HOST_NETWORK
    assert found.protocol is Protocol.TCP
    assert made.by_ip("192.0.2.1") is None


@pytest.mark.parametrize("ready", [True, False])
def test_readiness_is_health(ready: bool) -> None:
    made = mesh(pods=[kube_pod("demo/web", "10.0.0.1", ready=ready)])
    assert workload(made, "demo/web").status is (Status.HEALTHY if ready else Status.UNHEALTHY)


def test_pods_that_have_ended_or_have_no_address_are_left_out_but_here_they_may_be_enrolled_at_birth() -> (
    None
):
    pods = [
        kube_pod("demo/done", "10.0.0.1", phase="Succeeded"),
        kube_pod("demo/newborn", ready=False),
        kube_pod("demo/elsewhere", node="node-b"),
        kube_pod("demo/unscheduled", node=""),
    ]
    assert [each.name for each in mesh(pods=pods).workloads] == ["newborn"]


def web(*pods: Object, endpoints: list[Object], **spec: Any) -> Mesh:
    return mesh(
        pods=list(pods),
        services=[kube_service("demo/web", "10.96.0.1", **spec)],
        slices=[kube_slice("demo/web-1", "web", endpoints)],
    )


def test_endpoints_are_pods_by_reference() -> None:
    made = web(
        kube_pod("demo/a", "10.0.0.1"),
        endpoints=[kube_endpoint("10.0.0.1", "a"), kube_endpoint("10.0.0.2", "b")],
    )
    assert [each.name for each in made.endpoints(KEY)] == ["a"]
    assert workload(made, "demo/a").service_ports == (ServicePort(KEY, 80, 8080),)
    assert made.services_at("10.96.0.1")[0].key == KEY


def test_each_endpoint_has_its_own_number_for_a_named_target_port() -> None:
    made = mesh(
        pods=[kube_pod("demo/old", "10.0.0.1"), kube_pod("demo/new", "10.0.0.2")],
        services=[kube_service("demo/web", "10.96.0.1", ports={"http": (80, "web"), "admin": (81, 9000)})],
        slices=[
            kube_slice("demo/w1", "web", [kube_endpoint("10.0.0.1", "old")], {"http": 8080, "admin": 9000}),
            kube_slice(
                "demo/w2", "web", [kube_endpoint("10.0.0.2", "new")], {"http": 8081, "admin": 9000, "x": 1}
            ),
        ],
    )
    assert [port.target_port for port in workload(made, "demo/old").service_ports] == [8080, 9000]
    assert [port.target_port for port in workload(made, "demo/new").service_ports] == [8081, 9000]


def test_the_slices_of_two_families_say_the_same_once() -> None:
    made = mesh(
        pods=[kube_pod("demo/a", "10.0.0.1", "fd00::1")],
        services=[kube_service("demo/web", "10.96.0.1")],
        slices=[
            kube_slice("demo/w4", "web", [kube_endpoint("10.0.0.1", "a")]),
            kube_slice("demo/w6", "web", [kube_endpoint("fd00::1", "a")], family="IPv6"),
        ],
    )
    assert workload(made, "demo/a").services == (KEY,)
    assert len(workload(made, "demo/a").service_ports) == 1


@pytest.mark.parametrize(
    ("pod_ready", "endpoint_ready", "publish", "is_in"),
    [
        (True, True, False, True),
        (True, False, False, False),
        (False, True, False, True),
        (False, False, False, True),
        (True, False, True, True),
    ],
)
def test_an_endpoint_that_is_not_ready_is_left_out_and_a_pod_that_is_not_stays_in_sight(
    pod_ready: bool, endpoint_ready: bool, publish: bool, is_in: bool
) -> None:
    made = web(
        kube_pod("demo/a", "10.0.0.1", ready=pod_ready),
        endpoints=[kube_endpoint("10.0.0.1", "a", ready=endpoint_ready)],
        publishNotReadyAddresses=publish,
    )
    assert bool(made.endpoints(KEY)) is is_in


def test_an_endpoint_that_is_no_pod_is_known_by_its_address_alone() -> None:
    made = web(endpoints=[kube_endpoint("192.0.2.1", ready=None), kube_endpoint("192.0.2.2", ready=False)])
    first, second = made.endpoints(KEY)
    assert first.uid == "Kubernetes/discovery.k8s.io/EndpointSlice/demo/web-1/192.0.2.1"
    assert (first.protocol, first.status, second.status) == (Protocol.TCP, Status.HEALTHY, Status.UNHEALTHY)
    assert made.by_ip("192.0.2.1") is None, "others may have that address as well"


def test_what_belongs_to_nothing_is_left_out() -> None:
    made = mesh(
        services=[{"metadata": {"name": "ext", "namespace": "demo"}, "spec": {"type": "ExternalName"}}],
        slices=[
            kube_slice("demo/orphan", "none", [kube_endpoint("192.0.2.1")]),
            kube_slice("demo/bag", "", [kube_endpoint("192.0.2.2")]),
            kube_slice("demo/ext-1", "ext", [kube_endpoint("192.0.2.3")]),
        ],
    )
    assert (made.workloads, made.services) == ((), ())


def test_a_service_is_named_in_the_clusters_domain_and_follows_its_namespace() -> None:
    annotation = {"networking.istio.io/traffic-distribution": "PreferSameZone"}
    made = mesh(
        Place("node-a", "corp.example"),
        services=[kube_service("demo/web", "10.96.0.1")],
        namespaces=[kube_namespace("demo", **annotation)],
    )
    (service,) = made.services
    assert service.hostname == "web.demo.svc.corp.example"
    assert service.load_balancer.routing_preferences


def test_the_pods_of_a_node_with_their_namespaces() -> None:
    made = snapshot(
        pods=[kube_pod("demo/a"), kube_pod("demo/b", node="node-b"), kube_pod("lost/c")],
        namespaces=[kube_namespace("demo", "ambient")],
    )
    assert [(pod.name, namespace.mode) for pod, namespace in local_pods(made, "node-a")] == [
        ("a", "ambient"),
        ("c", ""),
    ]
