"""UDP that leaves in the clear, beside TCP that does not: what the wire, the log and the maps say agrees."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.nodes import App, Node, TwoNodes, exchange, peer_echo, two_nodes
from tests.support.wire import TCP, UDP, Capture, Packet, capture

pytestmark = pytest.mark.root

PORT = 7443


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("nodes")) as made:
        yield made


def listed(node: Node, *words: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "zproxy", "--node", node.name, "udp", *words, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def row_of(node: Node, port: int, *words: str) -> dict[str, Any]:
    (row,) = (row for row in listed(node, *words) if row["port"] == port)
    return row


def counters(node: Node) -> list[int]:
    """Return what the kernel counts of the client pod: UDP, and TCP refused and steered."""
    (entry,) = node.dump("zp_podstat")
    names = ("udp_packets", "udp_bytes", "udp_blocked", "refused", "opened")
    return [entry["value"][name] for name in names]


def clear_udp(packets: list[Packet]) -> list[Packet]:
    """Return the packets that are UDP, and check that TCP among them is between straws only."""
    assert {packet.dport for packet in packets if packet.protocol == TCP} <= {15008}
    return [packet for packet in packets if packet.protocol == UDP]


def ask(nodes: TwoNodes, seen: Capture, texts: list[bytes]) -> list[Packet]:
    """Try UDP first and then TCP, as a client of HTTP/3 does; return what UDP left."""
    with nodes.client.socket(kind=socket.SOCK_DGRAM) as quic:
        for text in texts:
            quic.sendto(text, (nodes.server.ip4, PORT))
    assert exchange(nodes.dial(PORT), b"hello").endswith(b" hello")
    return clear_udp(seen.until_now(nodes.client))


def test_udp_is_recorded_then_blocked_and_tcp_is_carried_all_the_while(nodes: TwoNodes) -> None:
    app = App(nodes.server, PORT, peer_echo)
    opened = nodes.a.metric("istio_tcp_connections_opened", reporter="source")
    sent = nodes.a.metric("istio_tcp_received_bytes", reporter="source")
    before = counters(nodes.a)
    texts = [b"x" * 1200, b"y" * 7]
    with (
        nodes.server.socket(kind=socket.SOCK_DGRAM) as sink,
        capture(nodes.server) as seen,
    ):
        sink.bind((nodes.server.ip4, PORT))
        left = ask(nodes, seen, texts)
        assert [sink.recv(2048) for _ in texts] == texts
        row = row_of(nodes.a, PORT)
        assert (row["pod"], row["workload"]) == ("demo/client", "demo/server")
        assert (row["destination"], row["port"]) == (nodes.server.ip4, PORT)
        assert (row["packets"], row["bytes"], row["blocked"]) == (2, sum(p.length for p in left), 0)

        nodes.a.client.call("enroll", pod="demo/client", netns=nodes.client.name, options={"udp": "block"})
        assert ask(nodes, seen, texts) == []
        row = row_of(nodes.a, PORT, "demo/client")
        total = 2 * sum(p.length for p in left)
        assert (row["packets"], row["bytes"], row["blocked"]) == (4, total, 2)
    app.close()
    grown = [new - old for old, new in zip(before, counters(nodes.a), strict=True)]
    assert grown == [4, total, 2, 0, 2]
    lines = nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:{PORT} ", count=2)
    assert ["bytes_sent=5 " in line for line in lines] == [True, True]
    assert nodes.a.metric("istio_tcp_connections_opened", reporter="source") == opened + 2
    assert nodes.a.metric("istio_tcp_received_bytes", reporter="source") == sent + 10


def test_the_daemon_may_be_gone(nodes: TwoNodes) -> None:
    """Pins do what they did, and are read as before; only the names of workloads are missing."""
    with nodes.client.socket(kind=socket.SOCK_DGRAM) as app:
        app.sendto(b"before", (nodes.server.ip4, 9))
        nodes.a.stop()
        app.sendto(b"after", (nodes.server.ip4, 9))
    row = row_of(nodes.a, 9)
    assert (row["pod"], row["workload"], row["packets"]) == ("demo/client", None, 2)
    nodes.a.start()


def test_an_unenrolled_pod_leaves_no_rows(nodes: TwoNodes) -> None:
    with nodes.server.socket(kind=socket.SOCK_DGRAM) as app:
        app.sendto(b"hello", (nodes.client.ip4, 9))
    assert [row["pod"] for row in listed(nodes.b)] == ["demo/server"]
    nodes.b.client.call("unenroll", pod="demo/server")
    assert listed(nodes.b) == []
    nodes.enroll_server()
