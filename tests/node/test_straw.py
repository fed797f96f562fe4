"""The straw, end to end: real daemons, real namespaces, real eBPF, and one story told by four witnesses.

Each connection is checked by its bytes, its record on both nodes, its access log line and the maps.
"""

import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.nodes import App, TwoNodes, echo_all, exchange, peer_echo, two_nodes, wait_for

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("nodes")) as made:
        yield made


def address(nodes: TwoNodes, family: str) -> tuple[str, str]:
    """Return the client's and the server's address of a family."""
    if family == "v4":
        return nodes.client.ip4, nodes.server.ip4
    return nodes.client.ip6, nodes.server.ip6


def shown(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def sixteen(ip: str) -> list[int]:
    packed = socket.inet_pton(socket.AF_INET6, ip if ":" in ip else f"::ffff:{ip}")
    return list(packed)


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_connection_is_the_same_to_apps_log_records_and_maps(nodes: TwoNodes, family: str) -> None:
    client_ip, server_ip = address(nodes, family)
    port = 7001 if family == "v4" else 7002
    app = App(nodes.server, port, peer_echo)
    with nodes.dial(port, server_ip) as sock:
        assert sock.getpeername()[:2] == (server_ip, port)
        source_port = sock.getsockname()[1]
        in_map = [e["value"] for e in nodes.a.dump("zp_conn") if e["value"]["orig_port"] == port]
        sock.sendall(b"who am I?")
        assert sock.recv(1000) == f"{client_ip} who am I?".encode()
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1000) == b""
    app.close()

    assert [(e["orig_ip"], e["src_ip"], e["src_port"]) for e in in_map] == [
        (sixteen(server_ip), sixteen(client_ip), source_port)
    ]
    assert not [e for e in nodes.a.dump("zp_conn") if e["value"]["orig_port"] == port]
    assert nodes.a.dump("zp_tuple") == []
    hbone_addr = shown(server_ip, port)
    outbound = nodes.a.access(f"dst.hbone_addr={hbone_addr} ")[0]
    inbound = nodes.b.access(f"dst.hbone_addr={hbone_addr} ")[0]
    assert f"src.addr={shown(client_ip, source_port)} " in outbound
    assert f"dst.addr={shown(server_ip, 15008)} " in outbound
    assert f'direction="outbound" bytes_sent=9 bytes_recv={len(client_ip) + 10} duration=' in outbound
    assert f'direction="inbound" bytes_sent={len(client_ip) + 10} bytes_recv=9 duration=' in inbound
    for line in (outbound, inbound):
        assert "\tinfo\taccess\tconnection complete\tsrc.addr=" in line
        assert 'src.identity="spiffe://cluster.local/ns/demo/sa/client"' in line
        assert 'dst.identity="spiffe://cluster.local/ns/demo/sa/server"' in line
        assert "error=" not in line
    record = record_of(nodes.a.client.call("connections"), hbone_addr)
    assert (record["state"], record["bytes_sent"], record["src"]) == (
        "closed", 9, shown(client_ip, source_port),
    )  # fmt: skip


def record_of(rows: list[dict[str, Any]], hbone_addr: str) -> dict[str, Any]:
    return next(row for row in reversed(rows) if row["hbone_addr"] == hbone_addr)


def test_four_connections_and_a_second_port_share_one_tunnel(nodes: TwoNodes) -> None:
    apps = [App(nodes.server, port, peer_echo) for port in (7011, 7012)]
    for port in (7011, 7011, 7011, 7011, 7012):
        assert exchange(nodes.dial(port), b"x").endswith(b" x")
    for app in apps:
        app.close()
    tried = {f"{nodes.server.ip4}:{port}" for port in (7011, 7012)}
    rows = [row for row in nodes.a.client.call("connections") if row["hbone_addr"] in tried]
    assert len(rows) == 5
    used = {row["tunnel"] for row in rows}
    assert len(used) == 1
    tunnel = next(t for t in nodes.a.client.call("tunnels") if t["id"] in used)
    assert tunnel["remote"] == f"{nodes.server.ip4}:15008"
    assert tunnel["streams_total"] >= 5


def test_v4_mapped_destination_is_steered_as_v4(nodes: TwoNodes) -> None:
    app = App(nodes.server, 7021, peer_echo)
    sock = nodes.client.socket(socket.AF_INET6)
    sock.connect((f"::ffff:{nodes.server.ip4}", 7021))
    assert sock.getpeername()[:2] == (f"::ffff:{nodes.server.ip4}", 7021)
    sock.sendall(b"mapped")
    assert sock.recv(100) == f"{nodes.client.ip4} mapped".encode()
    sock.close()
    app.close()
    assert nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:7021 ")


def test_a_mark_does_not_walk_past_the_mesh(nodes: TwoNodes) -> None:
    """Istio's own exemption mark, which any container may set (CAP_NET_RAW is enough since Linux 5.17)."""
    app = App(nodes.server, 7031, peer_echo)
    for mark in (0x539, 0x111):
        sock = nodes.client.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.connect((nodes.server.ip4, 7031))
        sock.sendall(b"marked")
        assert sock.recv(100).endswith(b" marked")
        sock.close()
    app.close()
    assert len(nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:7031 ", 2)) == 2


@pytest.mark.parametrize("direction", ["up", "down"])
def test_100_mb_arrive_intact(nodes: TwoNodes, direction: str) -> None:
    port = 7041 if direction == "up" else 7042
    data = os.urandom(1 << 20) * 100
    digest = hashlib.sha256(data).hexdigest().encode()

    def judge(sock: socket.socket, _: object) -> None:
        seen = hashlib.sha256()
        while chunk := sock.recv(1 << 20):
            seen.update(chunk)
        sock.sendall(seen.hexdigest().encode())

    def give(sock: socket.socket, _: object) -> None:
        sock.sendall(data)

    app = App(nodes.server, port, judge if direction == "up" else give)
    with nodes.dial(port) as sock:
        if direction == "up":
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == digest
        else:
            assert hashlib.sha256(read_all(sock)).hexdigest().encode() == digest
    app.close()
    line = nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:{port} ")[0]
    assert f"bytes_{'sent' if direction == 'up' else 'recv'}={len(data)} " in line


def read_all(sock: socket.socket) -> bytes:
    got = bytearray()
    while chunk := sock.recv(1 << 20):
        got += chunk
    return bytes(got)


def test_half_close_works(nodes: TwoNodes) -> None:
    app = App(nodes.server, 7051, echo_all)
    with nodes.dial(7051) as sock:
        sock.sendall(b"everything I have to say")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"everything I have to say"
    app.close()


def test_1000_short_connections_in_a_row(nodes: TwoNodes) -> None:
    app = App(nodes.server, 7061, lambda sock, _: sock.sendall(sock.recv(1)))
    for _ in range(1000):
        assert exchange(nodes.dial(7061), b"!") == b"!"
    app.close()
    lines = nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:7061 ", 1000)
    assert len(lines) == 1000
    assert not [line for line in lines if "error=" in line]


def test_plaintext_from_outside_reaches_the_app_with_its_source(nodes: TwoNodes) -> None:
    """A peer that is not enrolled: the server pod's own node, seen from an address of no pod."""
    app = App(nodes.server, 7071, peer_echo)
    assert exchange(unmeshed_dial(nodes, 7071), b"plain") == f"{nodes.client.ip4} plain".encode()
    app.close()
    line = nodes.b.access(f"dst.addr={nodes.server.ip4}:7071 ")[0]
    assert 'direction="inbound"' in line
    assert "identity" not in line
    assert nodes.b.dump("zp_in") == []


def unmeshed_dial(nodes: TwoNodes, port: int) -> socket.socket:
    """Connect from the client's namespace with a socket that its daemon's steering exempts."""
    from zproxy.steering.steering import Steering

    steering = Steering.open(nodes.a.name)
    try:
        sock = nodes.client.socket()
        try:
            steering.exempt(sock.fileno())
            sock.connect((nodes.server.ip4, port))
        except OSError:
            sock.close()
            raise
        return sock
    finally:
        steering.close()


def test_the_mesh_ports_are_no_targets(nodes: TwoNodes) -> None:
    for port in (15001, 15006):
        with pytest.raises(ConnectionError):
            exchange(unmeshed_dial(nodes, port), b"?")
    assert (
        nodes.b.access(f"dst.addr={nodes.server.ip4}:15001 ")[0].count(
            "attempted recursive call to ourselves"
        )
        == 1
    )
    with pytest.raises(ConnectionError):
        exchange(nodes.dial(15001, nodes.client.ip4), b"?")  # the pod's own address is not steered
    assert "no original destination" in nodes.a.access(f"dst.addr={nodes.client.ip4}:15001 ")[0]


def test_nobody_listens_is_a_reset_and_says_so_on_both_sides(nodes: TwoNodes) -> None:
    with pytest.raises(ConnectionError):
        exchange(nodes.dial(7081), b"?")
    assert 'error="http status: 503"' in nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:7081 ")[0]
    assert "Connection refused" in nodes.b.access(f"dst.hbone_addr={nodes.server.ip4}:7081 ")[0]


def test_500_connections_at_once(nodes: TwoNodes) -> None:
    app = App(nodes.server, 7091, peer_echo)
    socks = [nodes.dial(7091) for _ in range(500)]
    for number, sock in enumerate(socks):
        sock.sendall(b"%d" % number)
    for number, sock in enumerate(socks):
        assert sock.recv(100).endswith(b" %d" % number)
    for sock in socks:  # only now: a stream that ends makes room for one that still waits
        sock.close()
    app.close()
    tunnels = [t for t in nodes.a.client.call("tunnels") if t["remote"] == f"{nodes.server.ip4}:15008"]
    assert len(tunnels) == 5  # 100 streams each, as ztunnel's pool allows


def test_reset_of_the_app_is_a_reset_for_the_peer(nodes: TwoNodes) -> None:
    reached = threading.Event()
    outcome: list[BaseException | bytes] = []

    def handle(sock: socket.socket, _: object) -> None:
        reached.set()
        try:
            outcome.append(sock.recv(10))
        except OSError as error:
            outcome.append(error)

    app = App(nodes.server, 7095, handle)
    sock = nodes.dial(7095)
    assert reached.wait(10)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    wait_for(lambda: outcome, "the server app's socket ends")
    assert isinstance(outcome[0], ConnectionResetError)
    app.close()


def test_neither_pod_has_a_firewall_rule(nodes: TwoNodes) -> None:
    for pod in (nodes.client, nodes.server):
        assert pod.execute("nft", "list", "ruleset").stdout == ""
        assert not [x for x in pod.execute("iptables-save").stdout.splitlines() if x.startswith("-A")]


def test_secrets_are_in_no_log(nodes: TwoNodes) -> None:
    for node in (nodes.a, nodes.b):
        text = Path(node.log).read_text()
        assert "PRIVATE KEY" not in text
        assert "Traceback" not in text
