"""Daemons come and go: pods are refused meanwhile, never in the clear, and taken up again afterwards."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nodes import App, TwoNodes, exchange, peer_echo, two_nodes, wait_for
from zproxy.errors import ZproxyError

pytestmark = pytest.mark.root


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path) as made:
        yield made


def works(nodes: TwoNodes, port: int) -> bool:
    return exchange(nodes.dial(port), b"x").endswith(b" x")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_without_a_daemon_pods_are_refused_at_once_and_a_new_one_takes_them_up(
    nodes: TwoNodes, number: int
) -> None:
    app = App(nodes.server, 7201, peer_echo)
    assert works(nodes, 7201)
    cookies = {entry["key"] for entry in nodes.a.dump("zp_pods")}
    nodes.a.stop(number)
    with pytest.raises(ConnectionRefusedError):
        nodes.dial(7201)
    assert {entry["key"] for entry in nodes.a.dump("zp_pods")} == cookies
    nodes.a.start()
    assert [pod["pod"] for pod in nodes.a.client.call("pods")] == ["demo/client"]
    assert works(nodes, 7201)
    assert not nodes.a.lines("eBPF programs loaded")[1:], "a restart adopts what is pinned"

    nodes.b.stop(number)
    with pytest.raises(ConnectionError):
        works(nodes, 7201)
    nodes.b.start()
    assert works(nodes, 7201)
    app.close()


def test_inbound_plaintext_is_reset_at_once_while_the_daemon_is_away(nodes: TwoNodes) -> None:
    app = App(nodes.server, 7211, peer_echo)
    nodes.a.client.call("unenroll", pod="demo/client")
    assert works(nodes, 7211)  # in the clear, through 15006
    nodes.b.stop(signal.SIGKILL)
    with pytest.raises(ConnectionRefusedError):
        nodes.dial(7211)
    app.close()


def test_enrolment_leaves_existing_connections_alone(nodes: TwoNodes) -> None:
    for node, pod in ((nodes.a, "demo/client"), (nodes.b, "demo/server")):
        node.client.call("unenroll", pod=pod)
    app = App(nodes.server, 7221, keep_talking)
    early = nodes.dial(7221)
    early.sendall(b"before")
    assert early.recv(100) == b"before"
    nodes.enroll_client()
    nodes.enroll_server()
    early.sendall(b"after")
    assert early.recv(100) == b"after"
    late = nodes.dial(7221)
    late.sendall(b"tunnelled")
    assert late.recv(100) == b"tunnelled"
    early.close()
    late.close()
    app.close()
    lines = nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:7221 ")
    assert len(lines) == 1, "only the connection made after enrolment went through the straw"


def keep_talking(sock: socket.socket, _: object) -> None:
    while data := sock.recv(1000):
        sock.sendall(data)


def test_unenrolled_pods_are_as_before(nodes: TwoNodes) -> None:
    app = App(nodes.server, 7231, peer_echo)
    before = state_of(nodes)
    for node, pod in ((nodes.a, "demo/client"), (nodes.b, "demo/server")):
        node.client.call("unenroll", pod=pod)
    assert works(nodes, 7231)
    bare = state_of(nodes)
    assert "15001" not in bare
    assert "100" not in bare
    nodes.enroll_client()
    nodes.enroll_server()
    assert state_of(nodes) == before
    app.close()


def state_of(nodes: TwoNodes) -> str:
    """Return listeners, rules, routes and sysctls of both pods."""
    keys = ["net.ipv4.tcp_fwmark_accept", "net.ipv4.fwmark_reflect", "net.ipv4.tcp_tw_reuse"]
    texts = []
    for pod in (nodes.client, nodes.server):
        texts.append(pod.execute("ss", "-Hltn").stdout)
        texts += [pod.execute("ip", family, "rule").stdout for family in ("-4", "-6")]
        texts += [
            pod.execute("sh", "-c", f"ip {family} route show table 100 2>/dev/null || true").stdout
            for family in ("-4", "-6")
        ]
        texts.append(pod.execute("sysctl", *keys).stdout)
    return "\n".join(sorted("\n".join(texts).splitlines()))


def test_enrolling_twice_changes_nothing(nodes: TwoNodes) -> None:
    before = nodes.a.client.call("pods")
    row = nodes.a.client.call("enroll", pod="demo/client", netns=nodes.client.name)
    assert row["changed"] is False
    assert nodes.a.client.call("pods") == before


def test_port_in_use_inside_the_pod_is_named_and_nothing_is_left(nodes: TwoNodes) -> None:
    nodes.a.client.call("unenroll", pod="demo/client")
    bare = state_of(nodes)
    squatter, own_name = nodes.client.listen(15006), Path("/proc/self/comm").read_text().strip()
    with pytest.raises(ZproxyError, match=f"port 15006 of demo/client is taken: {own_name} "):
        nodes.enroll_client()
    squatter.close()
    assert state_of(nodes) == bare
    assert nodes.a.client.call("pods") == []
    assert nodes.a.dump("zp_pods") == []


def test_a_second_daemon_for_the_node_says_who_runs(nodes: TwoNodes) -> None:
    command = [sys.executable, "-m", "zproxy", "run", "--node", nodes.a.name]
    command += ["--config", str(nodes.a.config), "--ca-dir", str(nodes.a.ca)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert nodes.a.process is not None
    assert f"runs already (pid {nodes.a.process.pid})" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_pod_of_another_daemon_is_refused(nodes: TwoNodes) -> None:
    with pytest.raises(ZproxyError, match="is on node"):
        nodes.b.client.call("enroll", pod="demo/client", netns=nodes.client.name)


def test_open_connections_end_within_the_drain(nodes: TwoNodes) -> None:
    """SIGTERM lets what is under way finish: the answer still comes, then the daemon goes."""
    app = App(nodes.server, 7241, peer_echo)
    sock = nodes.dial(7241)
    wait_for(
        lambda: any(row["state"] == "open" for row in nodes.b.client.call("connections")), "the stream is up"
    )
    assert nodes.a.process is not None
    nodes.a.process.send_signal(signal.SIGTERM)
    wait_for(lambda: nodes.a.lines("stopping"), "the daemon begins to stop")
    assert exchange(sock, b"last words").endswith(b" last words")
    nodes.a.stop()
    app.close()
