"""Application tunnels, names and waypoints: a CONNECT for something else than the pod's own address."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.support.ca import CLIENT, shared_ca
from tests.support.mesh import mesh, service, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from tests.support.raw import RawPeer
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.policy import Action, Authorization, Match
from zproxy.model.service import GatewayAddress, NetworkAddress
from zproxy.model.settings import Compat
from zproxy.model.workload import ApplicationTunnel, AppProtocol, ServicePort, Workload
from zproxy.proxy.authorize import REJECTED
from zproxy.state.policy import Attempt, Verdict, authorize
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace
from zproxy.wire.proxy_protocol import header
from zproxy.wire.stream import Stream

SOURCE, LOCAL = workload("demo/client", CLIENT_IP), workload("demo/server", SERVER_IP)
VIP = "10.96.0.1"
BEHIND = GatewayAddress(NetworkAddress("", SERVER_IP))
GUARDED = service("demo/guarded.test", VIP, waypoint=BEHIND)
TUNNEL_PORT = 15088


@pytest.fixture
def plane() -> Iterator[Plane]:
    with closing(Plane()) as made:
        yield made


def know(plane: Plane, local: Workload, *more: Any) -> None:
    """Let the mesh have another record of the server pod."""
    plane.mesh = mesh(SOURCE, local, *more)


def ask(plane: Plane, authority: str) -> tuple[RawPeer, Stream]:
    """Send one CONNECT to the server pod."""
    to = Endpoint(SERVER_IP, plane.hbone_port)
    peer = plane.dial_raw(to, shared_ca().credentials(CLIENT), CLIENT_IP)
    plane.wait(lambda: peer.wire.is_ready)
    return peer, peer.request(authority)


def exchanged(plane: Plane, authority: str, app: Any, said: bytes = b"hello") -> bytes:
    """Ask for `authority`, and say something; return all that the app then has, and answer it."""
    peer, stream = ask(plane, authority)
    far = plane.accept(app)
    plane.wait(lambda: peer.answers.get(stream.id, (0,))[0] == 200)
    peer.wire.budget(stream)
    peer.send(stream, said, end=True)
    got = plane.receive(far, 1 << 16)
    far.sendall(b"answer")
    plane.wait(lambda: peer.received == b"answer")
    return got


def refused(plane: Plane, authority: str) -> tuple[int, str]:
    """Ask for `authority`; return the status and what the record says."""
    before = len(plane.lines.ended_connections)
    peer, stream = ask(plane, authority)
    plane.wait(lambda: stream.id in peer.answers)
    records = plane.ended(before + 1)
    found = next(each for each in records if each.hbone_addr == authority)
    assert found.direction is Direction.INBOUND
    return peer.answers[stream.id][0], found.error


@pytest.mark.parametrize(
    ("port", "asked"), [(TUNNEL_PORT, TUNNEL_PORT), (None, 80)], ids=["port", "any port"]
)
def test_an_application_tunnel_takes_what_is_meant_for_anybody(
    plane: Plane, port: int | None, asked: int
) -> None:
    know(plane, replace(LOCAL, application_tunnel=ApplicationTunnel(AppProtocol.NONE, port)))
    app = plane.serve(asked)
    assert exchanged(plane, f"{VIP}:80", app) == b"hello"
    assert plane.server.sockets.sources == [CLIENT_IP]  # type: ignore[attr-defined]


def test_a_proxy_header_comes_first_and_says_who_and_where_to(plane: Plane) -> None:
    know(plane, replace(LOCAL, application_tunnel=ApplicationTunnel(AppProtocol.PROXY, TUNNEL_PORT)), GUARDED)
    app = plane.keep(socket.create_server(("127.0.0.1", 0)))
    plane.routes[Endpoint("127.0.0.1", TUNNEL_PORT)] = app.getsockname()[1]
    got = exchanged(plane, f"{VIP}:80", app)
    connection = next(iter(plane.connections.rows(plane.now)))
    source = Endpoint.parse(str(connection["src"]))
    assert got == header(source, Endpoint(VIP, 80), SOURCE.identity) + b"hello"
    assert plane.server.sockets.sources == ["127.0.0.1"]  # type: ignore[attr-defined]


def test_policy_is_asked_about_the_tunnel_s_port(plane: Plane) -> None:
    know(plane, replace(LOCAL, application_tunnel=ApplicationTunnel(AppProtocol.NONE, TUNNEL_PORT)))
    asked: list[Attempt] = []

    def decide(mesh: Mesh, attempt: Attempt, trace: Trace | None = None) -> Verdict:
        asked.append(attempt)
        return Verdict(False, "it is not wanted")

    plane.decide = decide
    assert refused(plane, f"{VIP}:80") == (401, f"{REJECTED}it is not wanted")
    (attempt,) = asked
    assert (attempt.target, attempt.source_ip) == (Endpoint(SERVER_IP, TUNNEL_PORT), CLIENT_IP)


def test_a_waypoint_takes_what_is_meant_for_its_service_and_nothing_else(plane: Plane) -> None:
    know(plane, LOCAL, GUARDED, service("demo/other.test", "10.96.0.2"))
    app = plane.serve(80)
    assert exchanged(plane, f"{VIP}:80", app) == b"hello"
    peer, stream = ask(plane, "10.96.0.2:80")
    plane.wait(lambda: stream.id in peer.answers)
    assert peer.answers[stream.id][0] == 400


def test_a_service_s_name_is_known_by_its_endpoints(plane: Plane) -> None:
    key = "demo/web.test"
    ports = (ServicePort(key, 80, 8080), ServicePort(key, 81, 9000))
    know(
        plane,
        replace(LOCAL, services=(key,), service_ports=ports),
        service(key, ports={80: 8080, 81: 0}),
        service("demo/other.test"),
    )
    for port, target in ((80, 8080), (81, 9000)):
        assert exchanged(plane, f"web.test:{port}", plane.serve(target)) == b"hello"
    status, error = refused(plane, "other.test:80")
    assert (status, "hostname mismatch" in error) == (400, True)


def test_the_port_of_a_tunnel_may_not_be_one_of_ours(plane: Plane) -> None:
    know(plane, replace(LOCAL, application_tunnel=ApplicationTunnel(AppProtocol.NONE, 15006)))
    status, error = refused(plane, f"{VIP}:80")
    assert (status, "attempted recursive call to ourselves: 127.0.0.2:15006" in error) == (503, True)


def test_a_denial_of_the_asked_port_is_none_of_the_tunnel_s(plane: Plane) -> None:
    """What policy sees is the port that the app gets, so that no name of another port walks past it."""
    deny = Authorization("deny", "demo", action=Action.DENY, rules=((((Match(destination_ports=(80,))),),),))
    plane.decide = partial(authorize, Compat.ZPROXY)
    know(plane, replace(LOCAL, application_tunnel=ApplicationTunnel(AppProtocol.NONE, TUNNEL_PORT)), deny)
    assert exchanged(plane, f"{VIP}:80", plane.serve(TUNNEL_PORT)) == b"hello"
