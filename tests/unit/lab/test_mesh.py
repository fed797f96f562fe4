"""The lab's mesh file, read as the daemon reads it."""

from pathlib import Path

from zproxy.lab.layout import make_layout
from zproxy.lab.mesh import mesh_text
from zproxy.model.workload import Protocol
from zproxy.sources import file
from zproxy.state.store import Mesh


def test_the_daemon_reads_two_hbone_workloads_with_identities_of_their_own(tmp_path: Path) -> None:
    mesh = _load(tmp_path)
    assert {str(workload.identity) for workload in mesh.workloads} == {
        "spiffe://cluster.local/ns/demo/sa/client",
        "spiffe://cluster.local/ns/demo/sa/server",
    }
    server = mesh.by_ip("fd00:10:244:2::5")
    assert server is not None
    assert (server.pod, server.protocol, server.node) == ("demo/server", Protocol.HBONE, "node-b")
    assert server.uid == "Kubernetes//Pod/demo/server"


def test_the_service_leads_to_the_server_pod_and_to_nobody_else(tmp_path: Path) -> None:
    mesh = _load(tmp_path)
    (service,) = mesh.services
    assert (service.key, service.ports) == (
        "demo/server.demo.svc.cluster.local",
        ((80, 8080), (8080, 8080), (8081, 8081)),
    )
    assert [vip.ip for vip in service.vips] == ["10.96.0.80", "fd00:10:96::80"]
    (endpoint,) = mesh.endpoints(service.key)
    assert endpoint.pod == "demo/server"


def _load(tmp_path: Path) -> Mesh:
    path = tmp_path / "mesh.yaml"
    path.write_text(mesh_text(make_layout()))
    return file.load(path)
