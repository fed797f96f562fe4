"""Whole daemons under Kubernetes: labels enrol, traffic is carried, annotations say so, nothing is lost."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import foreign
from tests.support.apiserver import ApiServer, api_server
from tests.support.kubeobjects import kube_endpoint, kube_namespace, kube_pod, kube_service, kube_slice
from tests.support.netns import PREFIX, Namespace, pair
from tests.support.nodes import App, Node, TwoNodes, exchange, peer_echo, wait_for

pytestmark = pytest.mark.root

PORT = 7301
VIP = "10.96.77.1"
CLIENT_UID, SERVER_UID = (f"0a1b2c3d-0000-4000-8000-{number:012x}" for number in (1, 2))
REDIRECTION = "ambient.istio.io/redirection"


class Cluster:
    """Two nodes whose daemons know an API server and no file; a pod on each, with a process and a cgroup."""

    def __init__(self, directory: Path, server: ApiServer, nodes: TwoNodes) -> None:
        self.server = server
        self.nodes = nodes
        kubeconfig = str(server.kubeconfig(directory / "kubeconfig"))
        for node in (nodes.a, nodes.b):
            node.has_file = False
            node.options = ("--kubernetes", "--kubeconfig", kubeconfig, "--reconcile-interval", "1")
        server.put("namespaces", kube_namespace("demo"))
        server.put("pods", self.client())
        server.put("pods", self.pod("demo/server", nodes.server, nodes.b, SERVER_UID))
        server.put("services", kube_service("demo/web", VIP, ports={"http": (80, "web")}))
        endpoints = [kube_endpoint(nodes.server.ip4, "server")]
        server.put("endpointslices", kube_slice("demo/web-1", "web", endpoints, {"http": PORT}))

    def client(self, **more: Any) -> dict[str, Any]:
        return self.pod("demo/client", self.nodes.client, self.nodes.a, CLIENT_UID, **more)

    def pod(self, key: str, at: Namespace, node: Node, uid: str, **more: Any) -> dict[str, Any]:
        return kube_pod(key, *at.ips, uid=uid, node=node.name, **more)

    def label(self, mode: str = "") -> None:
        self.server.put("namespaces", kube_namespace("demo", mode))

    def annotations(self) -> list[str | None]:
        pods = (self.server.get("pods", key)["metadata"] for key in ("demo/client", "demo/server"))
        return [(each.get("annotations") or {}).get(REDIRECTION) for each in pods]

    def enrolled(self) -> list[str]:
        rows = (row for node in (self.nodes.a, self.nodes.b) for row in node.client.call("pods"))
        return [row["pod"] for row in rows if row["state"] == "enrolled"]

    def protocols(self, node: Node) -> set[str]:
        return {row["protocol"] for row in node.client.call("workloads")}

    def is_in(self) -> bool:
        """Tell whether both pods are in the mesh, and both nodes know."""
        nodes = (self.nodes.a, self.nodes.b)
        return self.annotations() == ["enabled"] * 2 and all(
            self.protocols(each) == {"HBONE"} for each in nodes
        )

    def talk(self, ip: str | None = None, port: int = PORT) -> bytes:
        return exchange(self.nodes.dial(port, ip), b"hello")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        server = stack.enter_context(api_server(tmp_path, token="a-token"))
        nodes = TwoNodes(tmp_path, *stack.enter_context(pair()))
        kubepods = stack.enter_context(foreign.cgroup(f"{PREFIX}kubepods"))
        for at, uid in ((nodes.client, CLIENT_UID), (nodes.server, SERVER_UID)):
            own = stack.enter_context(foreign.cgroup(f"pod{uid}", kubepods))
            process = subprocess.Popen(["ip", "netns", "exec", at.name, "sleep", "infinity"])
            stack.callback(process.wait)
            stack.callback(process.kill)
            (own / "cgroup.procs").write_text(str(process.pid))
        for node in (nodes.b, nodes.a):
            stack.callback(node.clean)
        made = Cluster(tmp_path, server, nodes)
        app = App(nodes.server, PORT, peer_echo)
        stack.callback(app.close)
        nodes.start()
        yield made


def test_a_label_takes_pods_in_and_out_and_traffic_follows(cluster: Cluster) -> None:
    nodes = cluster.nodes
    answer = f"{nodes.client.ip4} hello".encode()
    assert cluster.enrolled() == []
    assert cluster.protocols(nodes.a) == {"TCP"}
    assert cluster.talk() == answer

    cluster.label("ambient")
    wait_for(cluster.is_in, "both pods in the mesh")
    assert cluster.enrolled() == ["demo/client", "demo/server"]
    assert cluster.talk() == answer
    assert nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:{PORT} ")
    assert cluster.talk(VIP, 80) == answer
    (line,) = nodes.a.access('dst.service="web.demo.svc.cluster.local"')
    assert f"dst.hbone_addr={nodes.server.ip4}:{PORT} " in line

    cluster.label()
    wait_for(lambda: cluster.annotations() == [None, None], "annotations gone")
    assert cluster.enrolled() == []
    wait_for(lambda: cluster.protocols(nodes.a) == {"TCP"}, "node a knows")
    assert cluster.talk() == answer
    assert len(nodes.a.access("dst.hbone_addr=")) == 2, "only what was dialled in the mesh went through it"


def test_a_pod_may_stay_out_and_choose_its_dns(cluster: Cluster) -> None:
    label = {"istio.io/dataplane-mode": "none"}
    cluster.server.put("pods", cluster.client(labels=label))
    cluster.label("ambient")
    wait_for(lambda: cluster.annotations()[1] == "enabled", "the server in the mesh")
    assert cluster.enrolled() == ["demo/server"]
    cluster.server.put("pods", cluster.client(annotations={"ambient.istio.io/dns-capture": "false"}))
    wait_for(cluster.is_in, "the client in the mesh")
    (row,) = cluster.nodes.a.client.call("pods")
    assert row["dns"] is False
    assert f"pod{CLIENT_UID}" in row["cgroup"]


def test_while_the_api_server_is_away_pods_stay_in_and_what_is_missed_is_made_up_for(
    cluster: Cluster,
) -> None:
    nodes = cluster.nodes
    cluster.label("ambient")
    wait_for(cluster.is_in, "both pods in the mesh")
    cluster.server.drop()
    cluster.label()
    cluster.server.compact()
    wait_for(lambda: len(nodes.a.lines("it is tried again")) >= 5, "node a noticed")
    assert cluster.talk() == f"{nodes.client.ip4} hello".encode()
    assert nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:{PORT} ")
    cluster.server.start()
    wait_for(lambda: cluster.annotations() == [None, None], "annotations gone", 60)
    assert cluster.enrolled() == []


def test_a_daemon_that_restarts_takes_its_pods_up_again(cluster: Cluster) -> None:
    nodes = cluster.nodes
    cluster.label("ambient")
    wait_for(cluster.is_in, "both pods in the mesh")
    nodes.a.stop()
    nodes.a.start()
    assert cluster.talk() == f"{nodes.client.ip4} hello".encode()
    assert not nodes.a.lines("not enrolled again")
    nodes.a.stop()
    cluster.label()
    nodes.a.start()
    wait_for(lambda: cluster.annotations() == [None, None], "annotations gone")
    assert cluster.enrolled() == []
