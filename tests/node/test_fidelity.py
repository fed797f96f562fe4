"""What ztunnel does and apps rely on, end to end: one story in bytes, log, records, metrics and maps."""

import resource
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Namespace
from tests.support.nodes import App, Node, TwoNodes, exchange, peer_echo, two_nodes, wait_for
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

CLIENT = "spiffe://cluster.local/ns/demo/sa/client"
SERVER = "spiffe://cluster.local/ns/demo/sa/server"
FIGURES = ("connections_opened", "connections_closed", "received_bytes", "sent_bytes")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("nodes")) as made:
        yield made


def traffic(node: Node, reporter: str) -> list[float]:
    """Return opened, closed, received and sent of the mTLS connections from client to server."""
    labels = {
        "reporter": reporter,
        "source_workload": "client",
        "source_principal": CLIENT,
        "destination_workload": "server",
        "destination_principal": SERVER,
        "connection_security_policy": "mutual_tls",
        "response_flags": "-",
    }
    return [node.metric(f"istio_tcp_{name}", **labels) for name in FIGURES]


def grown(before: list[float], after: list[float]) -> list[float]:
    return [new - old for old, new in zip(before, after, strict=True)]


def row_of(node: Node, hbone_addr: str) -> dict[str, Any]:
    rows = node.client.call("connections")
    return next(row for row in reversed(rows) if row["hbone_addr"] == hbone_addr)


def test_bytes_log_records_metrics_and_maps_agree_while_it_lives_and_after(nodes: TwoNodes) -> None:
    app = App(nodes.server, 7201, lambda sock, _: answer(sock, b"x" * 11, b"y" * 22))
    before = {node: traffic(node, who) for node, who in ((nodes.a, "source"), (nodes.b, "destination"))}
    addr = f"{nodes.server.ip4}:7201"
    with nodes.dial(7201) as sock:
        sock.sendall(b"x" * 11)
        assert sock.recv(100) == b"y" * 22
        for node, who in ((nodes.a, "source"), (nodes.b, "destination")):
            assert grown(before[node], traffic(node, who)) == [1, 0, 11, 22], "counted during its life"
        assert [e["value"]["orig_port"] for e in nodes.a.dump("zp_conn")].count(7201) == 1
        out, into = row_of(nodes.a, addr), row_of(nodes.b, addr)
        assert (out["state"], out["bytes_sent"], out["bytes_recv"]) == ("open", 11, 22)
        assert (into["state"], into["bytes_sent"], into["bytes_recv"]) == ("open", 22, 11)
    app.close()
    assert "bytes_sent=11 bytes_recv=22 " in nodes.a.access(f"dst.hbone_addr={addr} ")[0]
    assert "bytes_sent=22 bytes_recv=11 " in nodes.b.access(f"dst.hbone_addr={addr} ")[0]
    for node, who in ((nodes.a, "source"), (nodes.b, "destination")):
        assert grown(before[node], traffic(node, who)) == [1, 1, 11, 22], "and not once more at its end"
    assert (row_of(nodes.a, addr)["state"], row_of(nodes.b, addr)["state"]) == ("closed", "closed")
    assert 7201 not in [e["value"]["orig_port"] for e in nodes.a.dump("zp_conn")]


def answer(sock: socket.socket, question: bytes, reply: bytes) -> None:
    got = b""
    while len(got) < len(question) and (data := sock.recv(100)):
        got += data
    assert got == question
    sock.sendall(reply)
    sock.recv(1)


def test_a_failure_has_its_flag_on_both_sides(nodes: TwoNodes) -> None:
    name = "istio_tcp_connections_failed"
    before = [node.metric(name, response_flags="CONNECT") for node in (nodes.a, nodes.b)]
    with pytest.raises(ConnectionError):
        exchange(nodes.dial(7202), b"?")
    nodes.b.access(f"dst.hbone_addr={nodes.server.ip4}:7202 ")
    nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:7202 ")
    after = [node.metric(name, response_flags="CONNECT") for node in (nodes.a, nodes.b)]
    assert grown(before, after) == [1, 1]


def test_an_early_refusal_is_counted(nodes: TwoNodes) -> None:
    labels = {"reporter": "source", "reason": "DENY"}
    before = nodes.a.metric("zproxy_early_denials", **labels)
    with pytest.raises(ConnectionError):
        exchange(nodes.dial(15008), b"?")
    line = nodes.a.access(f"dst.addr={nodes.server.ip4}:15008 direction=")[0]
    assert "\twarn\taccess\tconnection failed\t" in line
    assert "attempted recursive call to ourselves" in line
    assert nodes.a.metric("zproxy_early_denials", **labels) == before + 1


def ip_of(pod: Namespace, family: str) -> str:
    return pod.ip4 if family == "v4" else pod.ip6


def shown(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


@contextmanager
def outside(nodes: TwoNodes, family: str) -> Iterator[str]:
    """Give the server's namespace an address that the mesh does not know, and yield it."""
    ip, prefix = ("10.99.9.9", "32") if family == "v4" else ("fd99::9", "128")
    words = ["dev", "lo"] if family == "v4" else ["dev", "lo", "nodad"]
    nodes.server.execute("ip", "addr", "add", f"{ip}/{prefix}", *words)
    try:
        yield ip
    finally:
        nodes.server.execute("ip", "addr", "del", f"{ip}/{prefix}", "dev", "lo")


@pytest.mark.parametrize("family", ["v4", "v6", "mapped"])
def test_an_unknown_destination_is_passed_through_in_plain(nodes: TwoNodes, family: str) -> None:
    port = {"v4": 7211, "v6": 7212, "mapped": 7213}[family]
    real = "v6" if family == "v6" else "v4"
    app = App(nodes.server, port, peer_echo)
    with outside(nodes, real) as ip:
        dialled = f"::ffff:{ip}" if family == "mapped" else ip
        got = exchange(nodes.dial(port, dialled), b"hello")
        assert got == f"{ip_of(nodes.client, real)} hello".encode()
        line = nodes.a.access(f"dst.addr={shown(ip, port)} ")[0]
    app.close()
    assert "identity" not in line
    assert 'direction="outbound" bytes_sent=5 bytes_recv=' in line


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_plain_traffic_reaches_the_app_with_its_source(nodes: TwoNodes, family: str) -> None:
    port = 7221 if family == "v4" else 7222
    app = App(nodes.server, port, peer_echo)
    with past_the_mesh(nodes, port, family) as sock:
        sock.sendall(b"plain")
        assert sock.recv(100) == f"{ip_of(nodes.client, family)} plain".encode()
    app.close()
    line = nodes.b.access(f"dst.addr={shown(ip_of(nodes.server, family), port)} ")[0]
    assert 'direction="inbound"' in line
    assert "identity" not in line


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_plain_traffic_to_a_port_where_no_app_is_ends_in_a_reset(nodes: TwoNodes, family: str) -> None:
    port = 7223 if family == "v4" else 7224
    with pytest.raises(ConnectionError):
        ask_past_the_mesh(nodes, port, family)
    line = nodes.b.access(f"dst.addr={shown(ip_of(nodes.server, family), port)} ")[0]
    assert "Connection refused" in line


@contextmanager
def past_the_mesh(nodes: TwoNodes, port: int, family: str) -> Iterator[socket.socket]:
    """Connect from the client's namespace with a socket that its daemon's steering exempts."""
    steering = Steering.open(nodes.a.name)
    try:
        with nodes.client.socket(socket.AF_INET if family == "v4" else socket.AF_INET6) as sock:
            steering.exempt(sock.fileno())
            sock.connect((ip_of(nodes.server, family), port))
            yield sock
    finally:
        steering.close()


def ask_past_the_mesh(nodes: TwoNodes, port: int, family: str) -> None:
    """The reset can meet any of these calls; an end of file would be taken for an answer."""
    with past_the_mesh(nodes, port, family) as sock:
        sock.sendall(b"?")
        assert sock.recv(1) == b"!", "the connection ended in order"


def test_a_reader_that_stalls_stops_its_sender_and_nobody_else(nodes: TwoNodes) -> None:
    """Both connections share a tunnel; what the stalled one may hold is bounded by its windows."""
    app = App(nodes.server, 7231, stall)
    brisk = App(nodes.server, 7232, peer_echo)
    assert exchange(nodes.dial(7232), b"first").endswith(b" first")
    before = [memory(node) for node in (nodes.a, nodes.b)]
    with nodes.dial(7231) as sock:
        sock.setblocking(False)
        sent = 0
        while select.select([], [sock], [], 1.0)[1]:
            sent += sock.send(bytes(1 << 20))
            assert sent < 128 << 20, "nothing ever stopped the sender"
        kept = grown(before, [memory(node) for node in (nodes.a, nodes.b)])
        assert max(kept) < 16 << 20, "a window of 4 MiB, and what TLS and allocator need for it"
        assert exchange(nodes.dial(7232), b"meanwhile").endswith(b" meanwhile")
        used = {row_of(nodes.a, f"{nodes.server.ip4}:{port}")["tunnel"] for port in (7231, 7232)}
        assert len(used) == 1
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    nodes.b.access(f"dst.hbone_addr={nodes.server.ip4}:7231 ")
    app.close()
    brisk.close()


def memory(node: Node) -> float:
    """Return the resident bytes of a node's daemon."""
    assert node.process is not None
    pages = int(Path(f"/proc/{node.process.pid}/statm").read_text().split()[1])
    return float(pages * resource.getpagesize())


def stall(sock: socket.socket, _: Any) -> None:
    """Take nothing until the client is gone."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    poll.poll(15_000)


def test_registry_only_resets_what_the_mesh_does_not_know(nodes: TwoNodes) -> None:
    nodes.a.stop()
    nodes.a.options = ("--outbound-policy", "registry_only")
    nodes.a.start()
    app = App(nodes.server, 7241, peer_echo)
    with outside(nodes, "v4") as ip:
        with pytest.raises(ConnectionError):
            exchange(nodes.dial(7241, ip), b"?")
        line = nodes.a.access(f"dst.addr={ip}:7241 ")[0]
    assert "is no part of the mesh, and the outbound policy is registry_only" in line
    assert exchange(nodes.dial(7241), b"known").endswith(b" known")
    app.close()
    assert nodes.a.metric("zproxy_early_denials", reporter="source", reason="DENY") == 1
    nodes.a.stop()
    nodes.a.options = ()
    nodes.a.start()
    wait_for(lambda: nodes.a.client.call("pods"), "the pod is enrolled again")
