"""Two live daemons read their mesh files again, when told and by themselves, and connections go on."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_config import yaml_of
from tests.support.mesh import workload
from tests.support.nodes import App, Node, TwoNodes, echo_all, exchange, peer_echo, two_nodes, wait_for
from zproxy.config import RUN_ROOT

pytestmark = pytest.mark.root


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path) as made:
        yield made


def hang_up(node: Node, said: str) -> None:
    """Send SIGHUP and wait until the log has one more line with `said`."""
    assert node.process is not None
    before = len(node.lines(said))
    node.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(node.lines(said)) > before, f"a line with {said!r}")


def rows(node: Node, command: str, **fields: Any) -> list[dict[str, Any]]:
    return [r for r in node.client.call(command) if fields.items() <= r.items()]


def test_a_mesh_is_read_again_and_a_bad_file_changes_nothing(nodes: TwoNodes) -> None:
    node = nodes.a
    with closing(App(nodes.server, 7401, echo_all)), closing(App(nodes.server, 7402, peer_echo)):
        with nodes.dial(7401) as held:
            held.sendall(b"before ")
            wait_for(lambda: rows(node, "connections", state="open"), "the connection is up")
            nodes.write_mesh(workload("demo/new", "10.9.9.9", node="elsewhere"))
            hang_up(node, "read again and has 3 workloads")
            assert rows(node, "workloads", name="new")
            node.config.write_text("workloads: [")
            hang_up(node, "the mesh stays as it was: ")
            assert rows(node, "workloads", name="new")
            held.sendall(b"after")
            held.shutdown(socket.SHUT_WR)
            assert held.recv(100) == b"before after"
        (tunnel,) = rows(node, "tunnels", role="client")
        assert exchange(nodes.dial(7402), b"x") == f"{nodes.client.ip4} x".encode()
        assert [row["id"] for row in rows(node, "tunnels", role="client")] == [tunnel["id"]]


def test_a_changed_file_is_taken_by_itself_when_a_link_is_turned_too(nodes: TwoNodes, tmp_path: Path) -> None:
    node = nodes.a
    volume = tmp_path / "volume"  # as kubelet mounts a ConfigMap
    for version, text in (
        ("1", yaml_of(*nodes.workloads(), workload("demo/new", "10.9.9.9"))),
        ("2", "workloads: ["),
        ("3", yaml_of(*nodes.workloads())),
    ):
        (volume / version).mkdir(parents=True)
        (volume / version / "mesh.yaml").write_text(text)

    def turn(link: Path, to: str) -> None:
        new = link.with_name("..new")
        new.symlink_to(to)
        new.rename(link)

    turn(volume / "..data", "1")
    turn(node.config, str(volume / "..data" / "mesh.yaml"))
    wait_for(lambda: node.lines("read again and has 3 workloads"), "the first version is taken")
    assert rows(node, "workloads", name="new")
    turn(volume / "..data", "2")
    wait_for(lambda: node.lines("the mesh stays as it was: "), "the second version is refused")
    assert rows(node, "workloads", name="new")
    turn(volume / "..data", "3")
    wait_for(lambda: node.lines("read again and has 2 workloads"), "the third version is taken")
    assert rows(node, "workloads", name="new") == []
    assert len(node.lines("the mesh stays as it was: ")) == 1


def answer(sock: socket.socket, peer: Any) -> None:
    """Answer, unless the connection is reset."""
    with contextlib.suppress(ConnectionResetError):
        peer_echo(sock, peer)


def test_a_pod_that_left_the_mesh_is_reached_by_no_tunnel_any_more(nodes: TwoNodes) -> None:
    node = nodes.a
    with closing(App(nodes.server, 7411, answer)):
        held = nodes.dial(7411)
        wait_for(lambda: rows(node, "tunnels", state="open"), "the tunnel is up")
        node.config.write_text(yaml_of(nodes.workloads()[0]))
        hang_up(node, "read again and has 1 workloads")
        with pytest.raises(ConnectionError):
            exchange(held, b"?")
        (line,) = node.access("the pod at the end of the tunnel left the mesh")
        assert f"dst.hbone_addr={nodes.server.ip4}:7411" in line
        assert rows(node, "tunnels") == []
        nodes.write_mesh()
        hang_up(node, "read again and has 2 workloads")
        assert exchange(nodes.dial(7411), b"x") == f"{nodes.client.ip4} x".encode()
        assert len(rows(node, "tunnels", state="open")) == 1


def test_a_hang_up_while_it_starts_does_not_end_a_daemon(nodes: TwoNodes) -> None:
    node = nodes.a
    node.stop()
    node.launch()
    assert node.process is not None
    lock, pid = RUN_ROOT / node.name / "lock", str(node.process.pid)
    wait_for(lambda: lock.read_text().strip() == pid, "the daemon has the node's lock")
    node.process.send_signal(signal.SIGHUP)
    wait_for(node.is_ready, "the daemon answers")
    assert rows(node, "pods", pod="demo/client")
