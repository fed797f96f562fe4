"""The lab's mesh file, read as the daemon reads it."""

from pathlib import Path

from zproxy.lab.layout import make_layout
from zproxy.lab.mesh import mesh_text
from zproxy.model.workload import Protocol
from zproxy.sources import file


def test_the_daemon_reads_two_hbone_workloads_with_identities_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(mesh_text(make_layout()))
    mesh = file.load(path)
    assert {str(workload.identity) for workload in mesh.workloads} == {
        "spiffe://cluster.local/ns/demo/sa/client",
        "spiffe://cluster.local/ns/demo/sa/server",
    }
    server = mesh.by_ip("fd00:10:244:2::5")
    assert server is not None
    assert (server.pod, server.protocol, server.node) == ("demo/server", Protocol.HBONE, "node-b")
    assert server.uid == "Kubernetes//Pod/demo/server"
