"""Rows of docs/equality.md that take a daemon: what it does with what steering brings it."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.netns import batch
from tests.support.nodes import TwoNodes, exchange, two_nodes
from zproxy.errors import ZproxyError
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("nodes")) as made:
        yield made


def counted(node: str, reason: str) -> int:
    steering = Steering.open(node)
    try:
        return steering.stats()[reason]
    finally:
        steering.close()


def ask(sock: socket.socket, to: tuple[str, int] | tuple[str, int, int, int]) -> None:
    """Connect and ask; a reset can meet either."""
    sock.connect(to)
    exchange(sock, b"?")


@pytest.mark.parametrize("family", [4, 6])
def test_an_app_that_dials_15001_itself_is_reset_and_counted(nodes: TwoNodes, family: int) -> None:
    own = nodes.client.ip4 if family == 4 else nodes.client.ip6
    before = counted(nodes.a.name, "handover_missing")
    with pytest.raises(ConnectionError):
        exchange(nodes.dial(15001, own), b"?")
    assert counted(nodes.a.name, "handover_missing") == before + 1
    shown = own if family == 4 else f"[{own}]"
    line = nodes.a.access(f"dst.addr={shown}:15001 ")[0]
    assert "no original destination" in line


@pytest.mark.parametrize("port", [15001, 15006])
@pytest.mark.parametrize("family", [4, 6])
def test_the_straw_s_ports_are_refused_from_outside(nodes: TwoNodes, port: int, family: int) -> None:
    to = nodes.server.ip4 if family == 4 else nodes.server.ip6
    steering = Steering.open(nodes.a.name)
    try:
        with nodes.client.socket(socket.AF_INET if family == 4 else socket.AF_INET6) as sock:
            steering.exempt(sock.fileno())
            with pytest.raises(ConnectionError):
                ask(sock, (to, port))
    finally:
        steering.close()
    shown = to if family == 4 else f"[{to}]"
    assert "attempted recursive call to ourselves" in nodes.b.access(f"dst.addr={shown}:{port} ")[0]


def test_a_link_local_destination_is_refused_with_its_reason(nodes: TwoNodes) -> None:
    """The address alone does not say on which link, and no workload has one."""
    batch(nodes.client.name, ["addr add fe80::77:1/64 dev eth0 nodad"])
    scope = nodes.client.run(lambda: socket.if_nametoindex("eth0"))
    try:
        with nodes.client.socket(socket.AF_INET6) as sock, pytest.raises(ConnectionError):
            ask(sock, ("fe80::77:9", 80, 0, scope))
    finally:
        batch(nodes.client.name, ["addr del fe80::77:1/64 dev eth0"])
    assert "[fe80::77:9]:80 is link-local" in nodes.a.access("dst.addr=[fe80::77:9]:80 ")[0]


def test_listeners_that_share_a_port_share_what_the_mesh_brings(nodes: TwoNodes) -> None:
    answers: set[bytes] = set()
    listeners = [shared(nodes, 7301) for _ in range(2)]
    servers = [threading.Thread(target=serve, args=(listeners[n], b"%d" % n)) for n in range(2)]
    for server in servers:
        server.start()
    for _ in range(64):
        answers.add(exchange(nodes.dial(7301), b"?"))
        if len(answers) == 2:
            break
    for listener, server in zip(listeners, servers, strict=True):
        listener.shutdown(socket.SHUT_RDWR)
        server.join(5)
        listener.close()
    assert answers == {b"0", b"1"}


def shared(nodes: TwoNodes, port: int) -> socket.socket:
    listener = nodes.server.socket()
    listener.settimeout(None)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((nodes.server.ip4, port))
    listener.listen()
    return listener


def serve(listener: socket.socket, name: bytes) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock:
            sock.recv(16)
            sock.sendall(name)


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
def test_an_app_that_listens_on_a_port_of_the_straw_first_keeps_the_pod_out_of_the_mesh(
    nodes: TwoNodes, port: int
) -> None:
    """Enrolment says which port; with SO_REUSEPORT as without, and nothing is steered to the app."""
    nodes.b.client.call("unenroll", pod="demo/server")
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with nodes.server.socket() as squatter:
                squatter.setsockopt(socket.SOL_SOCKET, option, 1)
                squatter.bind((nodes.server.ip4, port))
                squatter.listen()
                with pytest.raises(ZproxyError, match=f"port {port} of demo/server is taken"):
                    nodes.enroll_server()
        assert nodes.b.client.call("pods") == []
    finally:
        nodes.enroll_server()
