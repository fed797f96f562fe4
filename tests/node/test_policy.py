"""Policy on the wire: who gets through, who does not, and what a change does to open connections."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from tests.support.local_config import yaml_of
from tests.support.nodes import App, Node, TwoNodes, enduring, exchange, peer_echo, two_nodes, wait_for
from tests.support.steered import dialled, settled
from zproxy.model.addr import Endpoint
from zproxy.model.policy import (
    Action,
    Authorization,
    Match,
    PolicyScope,
    StringKind,
    StringMatch,
)

pytestmark = pytest.mark.root

CLIENT = "cluster.local/ns/demo/sa/client"
ALLOW_CLIENT = Authorization(
    "allow-client", "demo", rules=(((Match(principals=(StringMatch(StringKind.EXACT, CLIENT),)),),),)
)
ALLOW_OTHERS = replace(
    ALLOW_CLIENT, rules=(((Match(principals=(StringMatch(StringKind.SUFFIX, "/sa/other"),)),),),)
)
DENY_CLIENT = replace(ALLOW_CLIENT, name="deny-client", action=Action.DENY)
UNPROVEN = (Match(not_principals=(StringMatch(StringKind.PRESENCE),)),)
STRICT = Authorization(
    "istio_converted_static_strict",
    "istio-system",
    PolicyScope.WORKLOAD_SELECTOR,
    Action.DENY,
    ((UNPROVEN,),),
)
"""What istiod makes of a PeerAuthentication with mode STRICT."""
STRICT_BUT_7503 = replace(
    STRICT,
    name="converted_peer_authentication_lax",
    rules=((UNPROVEN, (Match(not_destination_ports=(7503,)),)),),
)
"""And of one that leaves a port out."""
REJECTED = "connection closed due to policy rejection: "
CHANGED = "connection closed due to policy change: "


def echo(sock: socket.socket, _: Any) -> None:
    """Send back what comes, piece by piece."""
    while data := sock.recv(65536):
        sock.sendall(data)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("nodes")) as made:
        yield made


@pytest.fixture(autouse=True)
def open_mesh(nodes: TwoNodes) -> None:
    """Each test begins without policies."""
    govern(nodes)


def read_again(node: Node, text: str) -> None:
    """Give `node` another mesh, and wait until it has decided about its open connections."""
    assert node.process is not None
    said = "the mesh was read again"
    before = len(node.lines(said))
    node.config.write_text(text)
    node.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(node.lines(said)) > before, "the mesh is read again")


def govern(nodes: TwoNodes, *policies: Authorization, named: tuple[str, ...] = ()) -> None:
    """Let `policies` hold, and the server name those in `named`; the server's node hears of it first."""
    client, server = nodes.workloads()
    for node in (nodes.b, nodes.a):
        read_again(node, yaml_of(client, replace(server, authorization_policies=named), *policies))


def denials(node: Node, reporter: str) -> Callable[[], float]:
    """Return what counts the denials that `node` reports from now on."""

    def count() -> float:
        return node.metric("istio_tcp_connections_failed", reporter=reporter, response_flags="DENY")

    before = count()
    return lambda: count() - before


def test_who_is_allowed_gets_through_and_who_is_not_gets_a_401(nodes: TwoNodes) -> None:
    with closing(App(nodes.server, 7501, peer_echo)):
        govern(nodes, ALLOW_CLIENT)
        assert exchange(nodes.dial(7501), b"x") == f"{nodes.client.ip4} x".encode()
        counted = denials(nodes.b, "destination")
        govern(nodes, ALLOW_OTHERS)
        before = settled(nodes.a, nodes.client), settled(nodes.b, nodes.server)
        with pytest.raises(ConnectionError):
            exchange(nodes.dial(7501), b"x")
        assert settled(nodes.a, nodes.client) - before[0] == (0, 1, 0, 0), "steered, and refused beyond"
        assert settled(nodes.b, nodes.server) == before[1], "HBONE, and the app was never asked"
        (line,) = nodes.b.access(f'error="{REJECTED}allow policies exist, but none allowed"')
        assert "\terror\taccess\tconnection complete\t" in line
        assert f"dst.hbone_addr={nodes.server.ip4}:7501" in line
        assert f'src.identity="spiffe://{CLIENT}"' in line
        assert "bytes_sent=0 bytes_recv=0" in line
        lines = nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:7501 ", 2)
        assert 'error="http status: 401"' in lines[1]
        assert counted() == 1


def test_a_denial_names_the_policy_and_goes_before_what_allows(nodes: TwoNodes) -> None:
    with closing(App(nodes.server, 7502, peer_echo)):
        govern(nodes, ALLOW_CLIENT, DENY_CLIENT)
        with pytest.raises(ConnectionError):
            exchange(nodes.dial(7502), b"x")
        (line,) = nodes.b.access(f'error="{REJECTED}explicitly denied by: demo/deny-client"')
        assert f"dst.hbone_addr={nodes.server.ip4}:7502" in line


def test_strict_mtls_resets_what_comes_in_the_clear_but_for_ports_that_are_left_out(nodes: TwoNodes) -> None:
    with closing(App(nodes.server, 7503, peer_echo)), closing(App(nodes.server, 7504, peer_echo)):
        govern(nodes, STRICT, named=(STRICT.key,))
        assert exchange(nodes.dial(7503), b"x") == f"{nodes.client.ip4} x".encode(), "mTLS is let through"
        nodes.a.client.call("unenroll", pod="demo/client")
        try:
            counted = denials(nodes.b, "destination")
            before = settled(nodes.b, nodes.server)
            with pytest.raises(ConnectionError):
                exchange(nodes.dial(7503), b"x")
            assert settled(nodes.b, nodes.server) - before == (0, 0, 0, 1), (
                "brought to the straw, not past it"
            )
            (line,) = nodes.b.access(f'error="{REJECTED}explicitly denied by: {STRICT.key}"')
            assert f"dst.addr={nodes.server.ip4}:7503" in line
            assert "identity" not in line
            assert counted() == 1
            govern(nodes, STRICT_BUT_7503, named=(STRICT_BUT_7503.key,))
            assert exchange(nodes.dial(7503), b"x") == f"{nodes.client.ip4} x".encode()
            with pytest.raises(ConnectionError):
                exchange(nodes.dial(7504), b"x")
            govern(nodes)
            assert exchange(nodes.dial(7504), b"x") == f"{nodes.client.ip4} x".encode(), "PERMISSIVE"
            assert settled(nodes.b, nodes.server) - before == (0, 0, 0, 4)
        finally:
            nodes.enroll_client()


def test_a_change_ends_what_is_not_allowed_any_more_and_nothing_else(nodes: TwoNodes) -> None:
    with closing(App(nodes.server, 7505, enduring(echo))), closing(App(nodes.server, 7506, enduring(echo))):
        ended, kept = nodes.dial(7505), nodes.dial(7506)
        for sock in (ended, kept):
            sock.sendall(b"before")
            assert sock.recv(100) == b"before"
        counted = denials(nodes.b, "destination")
        open_ones = {Endpoint(*sock.getsockname()): Endpoint(*sock.getpeername()) for sock in (ended, kept)}
        assert dialled(nodes.a, nodes.client) == open_ones
        govern(
            nodes, replace(DENY_CLIENT, rules=((*DENY_CLIENT.rules[0], (Match(destination_ports=(7505,)),)),))
        )
        with pytest.raises(ConnectionError):
            exchange(ended, b"after")
        assert list(dialled(nodes.a, nodes.client)) == [Endpoint(*kept.getsockname())]
        with kept:
            kept.sendall(b"after")
            assert kept.recv(100) == b"after"
        (line,) = nodes.b.access(f'error="{CHANGED}explicitly denied by: demo/deny-client"')
        assert "\terror\taccess\tconnection complete\t" in line
        assert f"dst.hbone_addr={nodes.server.ip4}:7505" in line
        assert "bytes_sent=6 bytes_recv=6" in line
        assert counted() == 1
        assert settled(nodes.a, nodes.client).refused == 0
        told = "1 connections of demo/server closed because they are no longer allowed"
        wait_for(lambda: nodes.b.lines(told), "it is told")
        (line,) = nodes.a.access(f"{nodes.server.ip4}:7505 ")
        assert "bytes_sent=6 bytes_recv=6" in line
        assert 'error="the peer reset the stream: CANCEL"' in line


def test_a_connection_in_the_clear_ends_when_the_mesh_learns_of_its_destination(nodes: TwoNodes) -> None:
    client, server = nodes.workloads()
    with closing(App(nodes.server, 7507, enduring(echo))):
        read_again(nodes.a, yaml_of(client))
        before = settled(nodes.b, nodes.server)
        held = nodes.dial(7507)
        held.sendall(b"clear")
        assert held.recv(100) == b"clear"
        counted = denials(nodes.a, "source")
        read_again(nodes.a, yaml_of(client, server))
        assert dialled(nodes.a, nodes.client) == {
            Endpoint(*held.getsockname()): Endpoint(nodes.server.ip4, 7507)
        }
        with pytest.raises(ConnectionError):
            exchange(held, b"after")
        assert settled(nodes.b, nodes.server) - before == (0, 0, 0, 1), "it came in the clear"
        at = f"{nodes.server.ip4}:7507"
        (line,) = nodes.a.access(f'error="{CHANGED}{at} is reached by HBONE at demo/server now')
        assert "bytes_sent=5 bytes_recv=5" in line
        assert counted() == 1
        with nodes.dial(7507) as sock:
            sock.sendall(b"secret")
            assert sock.recv(100) == b"secret"
        wait_for(lambda: [r for r in nodes.b.client.call("connections") if r["hbone_addr"] == at], "by HBONE")
        assert settled(nodes.b, nodes.server) - before == (0, 0, 0, 1), "and this one did not"


def test_a_policy_that_is_named_and_missing_refuses_is_counted_and_told_once(nodes: TwoNodes) -> None:
    with closing(App(nodes.server, 7508, peer_echo)):
        govern(nodes, named=("demo/gone",))
        for _ in range(2):
            with pytest.raises(ConnectionError):
                exchange(nodes.dial(7508), b"x")
        nodes.b.access(f'error="{REJECTED}missing policy: demo/server names demo/gone"', 2)
        told = "refuses connections that policy demo/gone should decide about"
        (line,) = wait_for(lambda: nodes.b.lines(told), "it is told")
        assert "\twarn\t" in line
        assert nodes.b.metric("zproxy_policy_failures", cause="missing", policy="demo/gone") == 2


def test_a_dry_run_is_told_and_lets_pass(nodes: TwoNodes) -> None:
    with closing(App(nodes.server, 7509, peer_echo)):
        govern(nodes, replace(DENY_CLIENT, dry_run=True))
        assert exchange(nodes.dial(7509), b"x") == f"{nodes.client.ip4} x".encode()
        sentence = f"it would deny {CLIENT} to {nodes.server.ip4}:7509"
        wait_for(lambda: nodes.b.lines(f"dry run of demo/deny-client: {sentence}"), "it is told")
