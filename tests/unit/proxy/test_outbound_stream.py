"""Services, waypoints, and what happens when an endpoint cannot be reached."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.support.ca import shared_ca, spiffe
from tests.support.mesh import behind, mesh, service, workload
from tests.support.plane import CLIENT_IP, Plane
from tests.support.raw import RawPeer, RawServer
from zproxy.model.addr import Endpoint
from zproxy.model.service import GatewayAddress, NetworkAddress
from zproxy.model.settings import Settings
from zproxy.model.workload import Protocol, Workload
from zproxy.observe.access import line
from zproxy.proxy.balancer import FAILURES
from zproxy.state.store import Mesh

VIP = Endpoint("10.96.0.1", 80)
WEB = service("demo/web.demo.svc.cluster.local", VIP.ip)
ONE, TWO = "127.0.0.21", "127.0.0.22"
WAY_IP = "127.0.0.23"


@pytest.fixture
def plane() -> Iterator[Plane]:
    with closing(Plane()) as made:
        yield made


def pods(protocol: Protocol = Protocol.HBONE) -> list[Workload]:
    return [
        behind(workload(f"demo/{name}", ip, service_account="web", protocol=protocol), WEB)
        for name, ip in (("one", ONE), ("two", TWO))
    ]


def web(*endpoints: Workload) -> Mesh:
    return mesh(WEB, workload("demo/client", CLIENT_IP), *endpoints)


def play(plane: Plane, ip: str, identity: str = spiffe("demo", "web")) -> RawServer:
    server = plane.serve_raw(shared_ca().credentials(identity), ip)
    plane.routes[Endpoint(ip, 15008)] = server.port
    return server


def requests(*servers: RawServer) -> list[RawPeer]:
    """Return a tunnel for each CONNECT that arrived."""
    return [peer for server in servers for peer in server.peers for _ in peer.requests]


def accept(plane: Plane, count: int, *servers: RawServer) -> None:
    """Wait for `count` CONNECTs in all and answer each with 200."""
    plane.wait(lambda: len(requests(*servers)) == count)
    for peer in {id(peer): peer for peer in requests(*servers)}.values():
        for stream in peer.streams:
            if not stream.is_answered:
                peer.wire.respond(stream, 200)
    plane.wait(lambda: all(relay.is_open for relay in plane.client.relays))  # type: ignore[attr-defined]


def test_a_service_leads_to_an_endpoint_and_is_what_records_name(plane: Plane) -> None:
    one, _ = pods()
    plane.mesh = web(one)
    server = play(plane, ONE)
    near = plane.dial(*VIP)
    accept(plane, 1, server)
    (request,) = server.peers[0].requests
    assert request.authority == f"{ONE}:8080"
    assert request.forwarded == (f'for="{CLIENT_IP}:{near.getsockname()[1]}";host=web.demo.svc.cluster.local')
    near.close()
    server.peers[0].wire.end(server.peers[0].streams[0])
    text = line(plane.ended(1)[0], plane.now)
    assert f" dst.addr={ONE}:15008 dst.hbone_addr={ONE}:8080 " in text
    assert 'dst.service="web.demo.svc.cluster.local" dst.workload="one"' in text
    assert f'dst.identity="{spiffe("demo", "web")}"' in text


def test_idle_endpoints_are_all_used(plane: Plane) -> None:
    plane.mesh = web(*pods())
    servers = play(plane, ONE), play(plane, TWO)
    for count in range(1, 31):
        plane.dial(*VIP)
        accept(plane, count, *servers)
    sizes = [len(requests(server)) for server in servers]
    assert sum(sizes) == 30
    assert min(sizes) >= 13, "least request keeps open connections even"


def test_the_addressed_service_is_named_where_a_port_belongs_to_several(plane: Plane) -> None:
    other = replace(service("demo/aaa.test", "10.96.0.2"))
    pod = behind(workload("demo/one", ONE, service_account="web"), other, WEB)
    plane.mesh = mesh(WEB, other, workload("demo/client", CLIENT_IP), pod)
    server = play(plane, ONE)
    plane.dial(*VIP)
    accept(plane, 1, server)
    (record,) = plane.connections.open_ones()
    assert record.peers is not None
    assert record.peers.party.service == WEB.key


def test_an_endpoint_may_prove_an_identity_of_the_service_and_that_one_is_recorded(plane: Plane) -> None:
    other = spiffe("elsewhere", "web")
    named = replace(WEB, subject_alt_names=(other,))
    one = behind(workload("demo/one", ONE, service_account="web"), named)
    plane.mesh = mesh(named, workload("demo/client", CLIENT_IP), one)
    server = play(plane, ONE, other)
    plane.dial(*VIP)
    accept(plane, 1, server)
    (record,) = plane.connections.open_ones()
    assert record.peers is not None
    assert str(record.peers.destination_identity) == other


def test_before_the_tunnel_is_up_nobody_has_proven_anything(plane: Plane) -> None:
    one, _ = pods()
    plane.mesh = web(one)
    server = play(plane, ONE)
    server.is_mute = True
    plane.dial(*VIP)
    (record,) = plane.connections.open_ones()
    assert record.peers is not None
    assert record.peers.destination is one
    assert record.peers.destination_identity is None


@pytest.mark.parametrize("by", ["service", "workload"])
def test_a_waypoint_is_told_what_the_app_dialled(plane: Plane, by: str) -> None:
    reference = GatewayAddress(NetworkAddress("", WAY_IP))
    way = workload("demo/waypoint", WAY_IP)
    one, two = pods()
    if by == "service":
        plane.mesh = mesh(replace(WEB, waypoint=reference), workload("demo/client", CLIENT_IP), one, way)
        to = VIP
    else:
        plane.mesh = web(replace(one, waypoint=reference), two, way)
        to = Endpoint(ONE, 8080)
    server = play(plane, WAY_IP, spiffe("demo", "waypoint"))
    near = plane.dial(*to)
    accept(plane, 1, server)
    assert server.peers[0].requests[0].authority == str(to)
    near.close()
    server.peers[0].wire.end(server.peers[0].streams[0])
    text = line(plane.ended(1)[0], plane.now)
    assert f" dst.addr={WAY_IP}:15008 dst.hbone_addr={to} " in text
    assert 'dst.workload="waypoint"' in text
    assert f'dst.identity="{spiffe("demo", "waypoint")}"' in text
    assert ('dst.service="web.demo.svc.cluster.local"' in text) is (by == "service")


@pytest.mark.parametrize("protocol", list(Protocol))
def test_an_endpoint_that_cannot_be_reached_is_replaced_and_then_left_out(
    plane: Plane, protocol: Protocol
) -> None:
    plane.mesh = web(*pods(protocol))
    dead = Endpoint(ONE, 15008 if protocol is Protocol.HBONE else 8080)
    plane.routes[dead] = 1
    balancing = plane.connections.totals.balancing
    if protocol is Protocol.HBONE:
        server = play(plane, TWO)
    else:
        app = plane.keep(socket.create_server((TWO, 0)))
        plane.routes[Endpoint(TWO, 8080)] = app.getsockname()[1]
    kept = []
    for count in range(1, 41):
        near = plane.dial(*VIP, said=b"once")
        kept.append(near)
        if protocol is Protocol.HBONE:
            accept(plane, count, server)
            peer = server.peers[-1]
            plane.wait(lambda peer=peer: peer.data.get(peer.streams[-1].id, b"") == b"once")  # type: ignore[misc]
        else:
            assert plane.receive(plane.accept(app), 4) == b"once"
        plane.now += 0.01
    assert plane.lines.ended_connections == []
    assert balancing.retries == FAILURES
    assert balancing.ejections == 1
    assert plane.client.balancer.standing(pods()[1].uid, plane.now).open == 40
    for near in kept:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        near.close()
    plane.ended(40)
    assert plane.client.balancer.standing(pods()[1].uid, plane.now).open == 0


def test_an_endpoint_whose_app_is_not_there_is_replaced_and_nothing_said_is_lost(plane: Plane) -> None:
    plane.mesh = web(*pods())
    servers = play(plane, ONE), play(plane, TWO)
    warm = []
    while not all(server.peers for server in servers):  # what is said goes along where there is a tunnel
        warm.append(plane.dial(*VIP))
        accept(plane, len(warm), *servers)
    near = plane.dial(*VIP, said=b"said before")
    plane.wait(lambda: any(peer.received == b"said before" for peer in requests(*servers)))
    first = next(peer for peer in requests(*servers) if peer.received == b"said before")
    first.wire.respond(first.streams[-1], 503, end=True)
    plane.wait(lambda: len(requests(*servers)) == len(warm) + 2)
    second = next(peer for peer in requests(*servers) if peer is not first)
    second.wire.respond(second.streams[-1], 200)
    near.sendall(b" and after")
    plane.wait(lambda: second.data.get(second.streams[-1].id, b"") == b"said before and after")
    near.close()
    plane.wait(lambda: bool(second.ended))
    second.wire.end(second.streams[-1])
    record = plane.ended(1)[0]
    assert (record.error, record.bytes_sent) == ("", len(b"said before and after"))


def test_a_plain_endpoint_may_take_over_what_was_said(plane: Plane) -> None:
    one = pods()[0]
    two = replace(pods()[1], protocol=Protocol.TCP)
    plane.mesh = web(one, two)
    server = play(plane, ONE)
    app = plane.keep(socket.create_server((TWO, 0)))
    plane.routes[Endpoint(TWO, 8080)] = app.getsockname()[1]
    plane.dial(ONE, 8080)
    accept(plane, 1, server)
    while len(requests(server)) < 2:
        near = plane.dial(*VIP, said=b"said ")
        plane.wait(lambda: len(requests(server)) == 2 or plane.has_waiting(app))
        if plane.has_waiting(app):
            plane.accept(app)
    peer = server.peers[0]
    plane.wait(lambda: peer.received == b"said ")
    peer.wire.respond(peer.streams[-1], 503, end=True)
    near.sendall(b"on")
    assert plane.receive(plane.accept(app), 7) == b"said on"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_tried_elsewhere(plane: Plane, status: int) -> None:
    plane.mesh = web(*pods())
    servers = play(plane, ONE), play(plane, TWO)
    near = plane.dial(*VIP)
    plane.wait(lambda: len(requests(*servers)) == 1)
    (peer,) = requests(*servers)
    peer.wire.respond(peer.streams[0], status, end=True)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert plane.ended(1)[0].error == f"http status: {status}"
    assert len(requests(*servers)) == 1
    assert plane.connections.totals.balancing.retries == 0


@pytest.mark.parametrize("how", ["silence", "loss"])
def test_an_endpoint_that_takes_connects_and_does_not_answer_is_left_out(plane: Plane, how: str) -> None:
    plane.mesh = web(*pods())
    silent, server = play(plane, ONE), play(plane, TWO)
    balancer, uid = plane.client.balancer, pods()[0].uid
    for lost in range(1, FAILURES + 1):
        while not unanswered(silent):
            plane.dial(*VIP)
            plane.wait(lambda: bool(unanswered(silent) or unanswered(server)))
            answer(server)
        plane.wait(lambda: waiting(plane) == 1)
        plane.advance(15.1 if how == "silence" else 0.1)
        if how == "loss":
            silent.peers[-1].sock.shutdown(socket.SHUT_RDWR)
        plane.ended(lost)
        answer(silent)
    assert balancer.standing(uid, plane.now).ejected_s > 0
    assert plane.connections.totals.balancing.retries == 0


def waiting(plane: Plane) -> int:
    """Return how many connections have had no answer yet."""
    return sum(not relay.is_open for relay in plane.client.relays)  # type: ignore[attr-defined] # streams all


def unanswered(server: RawServer) -> bool:
    return any(not stream.is_answered and not peer.is_cut for peer in server.peers for stream in peer.streams)


def answer(server: RawServer) -> None:
    for peer in server.peers:
        for stream in peer.streams:
            peer.wire.respond(stream, 200) if not stream.is_answered else None


def test_a_break_after_the_answer_is_not_tried_elsewhere(plane: Plane) -> None:
    plane.mesh = web(*pods())
    servers = play(plane, ONE), play(plane, TWO)
    near = plane.dial(*VIP)
    accept(plane, 1, *servers)
    requests(*servers)[0].sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert plane.ended(1)[0].reason == "TUNNEL_CLOSED"
    assert len(requests(*servers)) == 1


@pytest.mark.parametrize("retries", [0, 1])
def test_only_so_many_others_are_tried(retries: int) -> None:
    with closing(Plane(settings=Settings(connect_retries=retries))) as plane:
        three = behind(workload("demo/three", "127.0.0.24", service_account="web"), WEB)
        plane.mesh = web(*pods(), three)
        for ip in (ONE, TWO, "127.0.0.24"):
            plane.routes[Endpoint(ip, 15008)] = 1
        near = plane.dial(*VIP)
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1)
        record = plane.ended(1)[0]
        assert "Connection refused" in record.error
        assert record.peers is not None
        assert plane.connections.totals.balancing.retries == retries
        assert not plane.client.relays


def test_who_is_not_who_it_should_be_is_replaced(plane: Plane) -> None:
    plane.mesh = web(*pods())
    impostor, server = play(plane, ONE, spiffe("demo", "impostor")), play(plane, TWO)
    for count in range(1, 11):
        plane.dial(*VIP, said=b"secret")
        accept(plane, count, server)
    assert requests(impostor) == []
    assert plane.connections.totals.balancing.retries > 0


def test_a_workload_that_was_dialled_itself_has_no_substitute(plane: Plane) -> None:
    plane.mesh = web(*pods())
    plane.routes[Endpoint(ONE, 15008)] = 1
    play(plane, TWO)
    near = plane.dial(ONE, 8080)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert plane.connections.totals.balancing.retries == 0


def test_a_tunnel_to_who_left_the_mesh_is_dropped_and_others_stay(plane: Plane) -> None:
    one, two = pods()
    plane.mesh = before = web(one, two)
    servers = play(plane, ONE), play(plane, TWO)
    for ip in (ONE, TWO):
        plane.dial(ip, 8080)
    accept(plane, 2, *servers)
    plane.mesh = web(one, replace(two, uid="another"))
    plane.client_straw.on_mesh(before)
    assert "left the mesh" in plane.ended(1)[0].error
    assert [tunnel.remote.ip for tunnel in plane.client.pool.tunnels()] == [ONE]
