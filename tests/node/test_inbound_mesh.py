"""What reaches a pod by HBONE in other ways than by its address, and what must reach nobody."""

import errno
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from tests.support.nodes import App, Node, exchange, peer_echo, wait_for
from tests.support.sandwich import APP, HOSTNAME, NAMED_APP, TUNNEL_PORT, VIPS, Arrival, Sandwich, sandwich
from tests.support.steered import dialled, settled
from zproxy.model.addr import Endpoint
from zproxy.wire.proxy_protocol import IDENTITY_TLV

pytestmark = pytest.mark.root

CLIENT_ID = "spiffe://cluster.local/ns/demo/sa/client"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandwich]:
    with sandwich(tmp_path_factory.mktemp("sandwich")) as made:
        yield made


@pytest.mark.parametrize("name", VIPS)
def test_a_waypoint_behind_its_own_proxy_gets_what_was_meant_for_its_service(
    world: Sandwich, name: str
) -> None:
    pods, arrivals = world.pods, list[Arrival]()
    at = "::" if name == "plain" else "127.0.0.1"
    before = [
        settled(node, pods[who]) for node, who in ((world.a, "client"), (world.b, name), (world.b, "server"))
    ]
    with (
        closing(App(pods["server"], APP, peer_echo)),
        closing(App(pods[name], TUNNEL_PORT, world.passing_on(name, arrivals), at)),
        world.dial("client", VIPS[name], 80) as sock,
    ):
        sock.sendall(b"hello")
        assert sock.recv(100) == f"{pods[name].ip4} hello".encode()
        held = dialled(world.a, pods["client"])
        assert held == {Endpoint(*sock.getsockname()): Endpoint(VIPS[name], 80)}
    after = [
        settled(node, pods[who]) for node, who in ((world.a, "client"), (world.b, name), (world.b, "server"))
    ]
    changes = [now - then for now, then in zip(after, before, strict=True)]
    assert changes == [(0, 1, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0)], (
        "what apps dialled, and nothing in the clear"
    )
    (arrival,) = arrivals
    if name == "plain":
        assert (arrival.ip, arrival.header) == (pods["client"].ip4, b"")
    else:
        source, port, *meant = arrival.ends
        assert (source, meant) == (pods["client"].ip4, [VIPS[name], 80])
        assert port > 0
        assert arrival.tlv == (IDENTITY_TLV, CLIENT_ID.encode())
        assert arrival.ip == "127.0.0.1"
    sent = world.a.access(f"dst.hbone_addr={VIPS[name]}:80 ")[-1]
    came = world.b.access(f"dst.hbone_addr={VIPS[name]}:80 ")[-1]
    for line in (sent, came):
        assert f' src.identity="{CLIENT_ID}" ' in line
        assert f' dst.workload="{name}" ' in line
        assert "error=" not in line
    answered = len(f"{pods[name].ip4} hello")
    assert f" bytes_sent=5 bytes_recv={answered} " in f"{sent} "
    assert f" bytes_sent={answered} bytes_recv=5 " in f"{came} "
    counted = {"reporter": "destination", "destination_workload": name}
    wait_for(lambda: world.b.metric("istio_tcp_connections_closed", **counted) == 1, "it is counted")
    assert world.b.metric("istio_tcp_connections_opened", **counted) == 1


@pytest.mark.parametrize(("port", "app"), [(80, APP), (81, NAMED_APP)], ids=["target port", "named port"])
def test_a_service_s_name_leads_to_the_port_of_this_endpoint(world: Sandwich, port: int, app: int) -> None:
    server = world.pods["server"]
    before = settled(world.b, server)
    with closing(App(server, app, peer_echo)):
        tunnel = world.tunnel()
        with closing(tunnel.peer):
            answer = tunnel.ask(f"{HOSTNAME}:{port}", b"hello")
    assert answer == (200, f"{world.pods['stranger'].ip4} hello".encode())
    assert settled(world.b, server) == before
    line = world.b.access(f"dst.hbone_addr={HOSTNAME}:{port} ")[-1]
    assert f' dst.service="{HOSTNAME}" ' in line
    assert ' dst.workload="server" ' in line
    assert ' src.identity="spiffe://cluster.local/ns/demo/sa/stranger" ' in line


def test_what_a_client_says_of_itself_is_not_believed(world: Sandwich) -> None:
    server = world.pods["server"]
    claimed = "k8s.cluster.name=x,k8s.namespace.name=demo,k8s.deployment.name=king,service.name=king"
    with closing(App(server, APP, peer_echo)):
        tunnel = world.tunnel()
        with closing(tunnel.peer):
            assert tunnel.ask(f"{server.ip4}:{APP}", b"hello", claimed)[0] == 200
    mine = f"dst.hbone_addr={server.ip4}:{APP} "

    def written() -> list[str]:
        return [line for line in world.b.lines(f"src.addr={world.pods['stranger'].ip4}:") if mine in line]

    (line,) = wait_for(written, "it is in the log")
    assert ' src.identity="spiffe://cluster.local/ns/demo/sa/stranger" ' in line
    assert "king" not in line
    assert world.b.metric("istio_tcp_connections_opened", source_workload="king") == 0


@pytest.mark.parametrize(
    ("authority", "status", "sentence"),
    [
        ("{other}:8080", 400, "ip mismatch: {server} != {other}"),
        ("plain-guarded.test:80", 400, "hostname mismatch: demo/server is no endpoint of demo/plain-guarded"),
        (f"{HOSTNAME}:82", 503, f"requested service {HOSTNAME}:82 found, but cannot resolve port"),
        ("nobody.test:80", 503, "no service or workload for hostname: 'nobody.test:80'"),
    ],
)
def test_what_is_not_of_this_pod_is_answered_and_written_down(
    world: Sandwich, authority: str, status: int, sentence: str
) -> None:
    ips = {"server": world.pods["server"].ip4, "other": world.pods["plain"].ip4}
    asked = authority.format(**ips)
    before = {who: settled(world.b, world.pods[who]) for who in ("server", "plain")}
    tunnel = world.tunnel()
    with closing(tunnel.peer):
        assert tunnel.ask(asked, b"") == (status, b"")
    assert {who: settled(world.b, world.pods[who]) for who in before} == before
    assert sentence.format(**ips) in world.b.access(sentence.format(**ips))[-1]


def test_a_client_of_another_trust_domain_is_reset(world: Sandwich) -> None:
    server = world.pods["server"]
    before = settled(world.a, world.pods["alien"]), settled(world.b, server)
    with closing(App(server, APP, peer_echo)), pytest.raises(ConnectionResetError):
        exchange(world.dial("alien", server.ip4, APP), b"hello")
    assert settled(world.a, world.pods["alien"]) - before[0] == (0, 1, 0, 0)
    assert settled(world.b, server) == before[1]
    line = world.b.access(f"src.addr={world.pods['alien'].ip4}:")[-1]
    assert "clusterset.local" in line
    sent = world.a.access(f"dst.hbone_addr={server.ip4}:{APP} ")[-1]
    assert ' src.workload="alien" ' in sent
    assert " bytes_recv=0 " in f"{sent} "


CLOSED = 4
REFUSED, RESET = "refused", "reset"
OWN, LOOPBACK, OTHER = "own address", "127.0.0.1", "another pod"


def outcome(world: Sandwich, who: str, ip: str, port: int) -> str:
    """Say how an attempt ends; an answer would be a third way."""
    try:
        with world.dial(who, ip, port) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = sock.recv(65536)
            assert b"HTTP" not in answer
            while answer:
                answer = sock.recv(65536)
            return RESET
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return REFUSED
        if isinstance(error, ConnectionError):
            return RESET
        raise


def is_idle(node: Node) -> bool:
    return bool(node.client.call("status")["connections_open"] == 0)


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053, CLOSED])
@pytest.mark.parametrize(
    ("who", "to"),
    [("client", OWN), ("client", LOOPBACK), ("client", OTHER), ("stranger", OTHER)],
    ids=["captured, own address", "captured, 127.0.0.1", "captured, another pod", "stranger, a pod"],
)
def test_nobody_gets_anything_out_of_the_mesh_s_own_ports(
    world: Sandwich, who: str, to: str, port: int
) -> None:
    ip = {OWN: world.pods[who].ip4, LOOPBACK: "127.0.0.1", OTHER: world.pods["server"].ip4}[to]
    expected = REFUSED if port == CLOSED and to in {OWN, LOOPBACK} else RESET
    pods = (world.a, world.pods["client"]), (world.b, world.pods["server"])
    before = [settled(*pod) for pod in pods]
    assert outcome(world, who, ip, port) == expected
    for node in world.nodes:
        wait_for(partial(is_idle, node), "nothing goes round")
    client, server = (settled(*pod) - then for pod, then in zip(pods, before, strict=True))
    assert client == (0, int(who == "client" and to == OTHER), 0, 0)
    assert server == (0, 0, 0, int(who == "stranger" and port != 15008)), "15008 takes nothing in the clear"


def test_a_pod_s_own_ports_stay_its_own(world: Sandwich) -> None:
    """The control: what is refused above is refused for what it asks, and not because nobody would answer."""
    client = world.pods["client"]
    with closing(App(client, APP, peer_echo)):
        assert exchange(world.dial("client", client.ip4, APP), b"x") == f"{client.ip4} x".encode()
        assert exchange(world.dial("stranger", client.ip4, APP), b"x").endswith(b" x")
