"""Workloads that are known by their host names only."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.support.ca import shared_ca, spiffe
from tests.support.mesh import behind, mesh, service, workload
from tests.support.plane import CLIENT_IP, Plane
from zproxy.model.addr import Endpoint
from zproxy.model.service import IpFamilies
from zproxy.model.workload import Protocol
from zproxy.net.names import Answer, NameWaiter
from zproxy.observe.access import line

VIP = Endpoint("10.96.0.1", 80)
WEB = service("demo/db.test", VIP.ip)
HOST, OTHER = "db.example.com", "127.0.0.32"
DB_IP = "127.0.0.31"


class Book:
    """Stands for Names: what it was told at once, and nothing of what it was not."""

    def __init__(self) -> None:
        self.known: dict[str, Answer] = {}
        self.waiting: dict[NameWaiter, str] = {}

    def find(self, hostname: str, waiter: NameWaiter) -> None:
        if hostname in self.known:
            waiter.on_name(self.known[hostname])
        else:
            self.waiting[waiter] = hostname

    def give_up(self, hostname: str, waiter: NameWaiter) -> None:
        self.waiting.pop(waiter, None)

    def close(self) -> None:
        pass


@pytest.fixture
def plane() -> Iterator[Plane]:
    with closing(Plane()) as made:
        named = behind(workload("demo/db", hostname=HOST, protocol=Protocol.TCP), WEB)
        made.mesh = mesh(WEB, workload("demo/client", CLIENT_IP), named)
        made.worker.names = Book()  # type: ignore[assignment] # stands in for the real one
        yield made


def book(plane: Plane) -> Book:
    found: Book = plane.worker.names  # type: ignore[assignment]
    return found


def app_at(plane: Plane, ip: str) -> socket.socket:
    app = plane.keep(socket.create_server((ip, 0)))
    plane.routes[Endpoint(ip, 8080)] = app.getsockname()[1]
    return app


def test_a_name_is_dialled_at_its_address(plane: Plane) -> None:
    app = app_at(plane, DB_IP)
    near = plane.dial(*VIP, said=b"hello")
    (waiter,) = book(plane).waiting
    waiter.on_name(Answer((DB_IP,), ""))
    assert plane.receive(plane.accept(app), 5) == b"hello"
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    near.close()
    text = line(plane.ended(1)[0], plane.now)
    assert f' dst.addr={DB_IP}:8080 dst.service="db.test" dst.workload="db"' in text


def test_hbone_goes_by_the_name_as_its_authority(plane: Plane) -> None:
    named = behind(workload("demo/db", hostname=HOST), WEB)
    plane.mesh = mesh(WEB, workload("demo/client", CLIENT_IP), named)
    book(plane).known[HOST] = Answer((DB_IP,), "")
    server = plane.serve_raw(shared_ca().credentials(spiffe("demo", "db")), DB_IP)
    plane.routes[Endpoint(DB_IP, 15008)] = server.port
    plane.dial(*VIP)
    plane.wait(lambda: bool(server.peers and server.peers[0].requests))
    assert server.peers[0].requests[0].authority == f"{HOST}:8080"


@pytest.mark.parametrize(
    ("families", "ips", "expected"),
    [
        (IpFamilies.AUTOMATIC, ("fd00::1", DB_IP), DB_IP),
        (IpFamilies.IPV4_ONLY, ("fd00::1", DB_IP), DB_IP),
        (IpFamilies.AUTOMATIC, ("fd00::1",), ""),
        (IpFamilies.IPV6_ONLY, (DB_IP,), ""),
    ],
)
def test_only_families_that_pod_and_service_have_are_dialled(
    plane: Plane, families: IpFamilies, ips: tuple[str, ...], expected: str
) -> None:
    service = replace(WEB, ip_families=families)
    named = behind(workload("demo/db", hostname=HOST, protocol=Protocol.TCP), service)
    plane.mesh = mesh(service, workload("demo/client", CLIENT_IP), named)
    book(plane).known[HOST] = Answer(ips, "")
    app = app_at(plane, DB_IP)
    near = plane.dial(*VIP, said=b"x")
    if expected:
        assert plane.receive(plane.accept(app), 1) == b"x"
    else:
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1)
        record = plane.ended(1)[0]
        assert record.reason == "DNS"
        assert "no address of a family that could be dialled" in record.error


def test_a_name_that_is_nobodys_is_an_error(plane: Plane) -> None:
    book(plane).known[HOST] = Answer((), "Name or service not known")
    near = plane.dial(*VIP)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == (
        f"no address for demo/db: {HOST}: Name or service not known", "DNS",
    )  # fmt: skip


def test_an_answer_that_does_not_come_is_given_up(plane: Plane) -> None:
    near = plane.dial(*VIP)
    plane.advance(5.1)
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert plane.ended(1)[0].error == f"no address for demo/db: {HOST}: DNS took longer than 5 s"
    assert book(plane).waiting == {}
    assert not plane.client.relays


def test_another_endpoint_is_tried_where_a_name_is_nobodys(plane: Plane) -> None:
    named = behind(workload("demo/db", hostname=HOST, protocol=Protocol.TCP), WEB)
    other = behind(workload("demo/other", OTHER, protocol=Protocol.TCP), WEB)
    plane.mesh = mesh(WEB, workload("demo/client", CLIENT_IP), named, other)
    book(plane).known[HOST] = Answer((), "Name or service not known")
    app = app_at(plane, OTHER)
    for _ in range(10):
        plane.dial(*VIP, said=b"x")
        assert plane.receive(plane.accept(app), 1) == b"x"
    assert plane.connections.totals.balancing.retries > 0


def test_an_app_that_leaves_meanwhile_is_forgotten(plane: Plane) -> None:
    near = plane.dial(*VIP)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    near.close()
    assert "broke" in plane.ended(1)[0].error
    assert book(plane).waiting == {}
    assert not plane.client.relays
