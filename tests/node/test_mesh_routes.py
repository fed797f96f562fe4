"""Services, waypoints and other networks, end to end: what apps get, and what log, counters and maps say."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.gateway import running
from tests.support.meshed import (
    APP,
    ECHO,
    HOME,
    SUFFIX,
    WAYPOINT_NAME,
    WEB_V6,
    Meshed,
    account,
    beyond,
    meshed,
    vip,
    waypoint,
)
from tests.support.nodes import App, echo_all, wait_for
from tests.support.steered import counters, dialled, settled
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meshed]:
    with meshed(tmp_path_factory.mktemp("meshed")) as made:
        yield made


def said(line: str, **fields: str) -> None:
    """Check fields of an access log line; in names `__` stands for a dot."""
    for name, value in fields.items():
        assert f" {name.replace('__', '.')}={value} " in f"{line} ", line


def packed(ip: str) -> list[int]:
    return list(socket.inet_pton(socket.AF_INET6, f"::ffff:{ip}"))


def test_a_service_is_reached_by_its_address(world: Meshed) -> None:
    client, service = world.pods["client"].ip4, world.services["web"]
    with world.dial("web") as sock:
        assert sock.getpeername() == (service.vips[0].ip, 80)
        port = sock.getsockname()[1]
        sock.sendall(b"who?")
        name, source, _ = sock.recv(100).decode().split()
        in_map = [each["value"] for each in world.a.dump("zp_conn") if each["value"]["orig_port"] == 80]
        node = world.a if name == "one" else world.b
        arrived = counters(node, world.pods[name])
    assert (name in {"one", "two"}, source) == (True, client)
    assert [each["orig_ip"] for each in in_map] == [packed(service.vips[0].ip)]
    assert (arrived.open, arrived.inbound) == (0, 0), "by HBONE, which no map has to know of"
    settled(world.a, world.pods["client"])
    ip = world.pods[name].ip4
    said(
        world.line(port),
        dst__addr=f"{ip}:15008",
        dst__hbone_addr=f"{ip}:{APP}",
        dst__service=f'"web.{SUFFIX}"',
        dst__workload=f'"{name}"',
        dst__identity=f'"{account(name)}"',
    )
    labels = {"destination_service": f"web.{SUFFIX}", "destination_workload": name}
    wait_for(
        lambda: world.a.metric("istio_tcp_connections_closed", reporter="source", **labels) >= 1, "counted"
    )
    assert node.metric("istio_tcp_connections_opened", reporter="destination", **labels) >= 1


def test_a_service_is_reached_by_its_ipv6_address_at_endpoints_of_that_family(world: Meshed) -> None:
    with world.dial_ip(WEB_V6, 80) as sock:
        assert sock.getpeername()[:2] == (WEB_V6, 80)
        port = sock.getsockname()[1]
        sock.sendall(b"who?")
        name, source, _ = sock.recv(100).decode().split()
        held = dialled(world.a, world.pods["client"])
    pods = world.pods
    assert held == {Endpoint(pods["client"].ip6, port): Endpoint(WEB_V6, 80)}
    settled(world.a, pods["client"])
    assert (name in {"one", "two"}, source) == (True, pods["client"].ip6)
    line = world.a.access(f"src.addr=[{pods['client'].ip6}]:{port} ")[0]
    said(line, dst__addr=f"[{pods[name].ip6}]:15008", dst__hbone_addr=f"[{pods[name].ip6}]:{APP}")


@pytest.mark.parametrize("by", ["vip", "ip", "service", "workload"])
def test_a_waypoint_of_a_service_is_found_by_any_reference(world: Meshed, by: str) -> None:
    name = f"guarded-by-{by}"
    to = f"{world.services[name].vips[0].ip}:80"
    with waypoint(world, to) as way:
        answer, line = world.ask_service(name, b"hello")
    assert answer == b"waypoint 127.0.0.1 hello"
    (request,) = way.requests
    assert request.authority == to
    assert request.forwarded is not None
    assert request.forwarded.endswith(f";host={name}.{SUFFIX}")
    said(
        line,
        dst__addr=f"{world.pods['waypoint'].ip4}:15008",
        dst__hbone_addr=to,
        dst__service=f'"{name}.{SUFFIX}"',
        dst__workload='"named-waypoint"' if by == "workload" else '"waypoint"',
        dst__identity=f'"{account("waypoint")}"',
        bytes_sent="5",
        bytes_recv=str(len(answer)),
    )
    assert "error=" not in line


def test_a_host_name_is_looked_up_for_who_is_known_by_it_only(world: Meshed) -> None:
    def asked() -> float:
        return world.a.metric("istio_on_demand_dns", source_workload="client", hostname=WAYPOINT_NAME)

    before = asked()
    to = f"{world.services['guarded-by-workload'].vips[0].ip}:80"
    with waypoint(world, to):
        for _ in range(2):
            answer, _ = world.ask_service("guarded-by-workload", b"hello")
            assert answer == b"waypoint 127.0.0.1 hello"
    assert asked() - before == 2


def test_a_waypoint_of_a_workload_is_told_the_workload(world: Meshed) -> None:
    to = f"{world.pods['remote'].ip4}:{APP}"
    with waypoint(world, to) as way:
        answer, line = world.ask(world.pods["remote"].ip4, APP, b"hello")
    assert answer == b"waypoint 127.0.0.1 hello"
    assert [request.authority for request in way.requests] == [to]
    said(
        line,
        dst__hbone_addr=to,
        dst__addr=f"{world.pods['waypoint'].ip4}:15008",
        dst__workload='"waypoint"',
        dst__identity=f'"{account("waypoint")}"',
    )


def test_a_waypoint_that_is_not_there_is_not_gone_past(world: Meshed) -> None:
    answer, line = world.ask_service("guarded-by-ip", b"hello")
    assert answer == b""
    assert "nothing listens there" in line
    assert "dst.identity" not in line


def test_a_waypoint_of_another_identity_is_told_nothing(world: Meshed) -> None:
    name = "guarded-by-ip"
    to = f"{world.services[name].vips[0].ip}:80"
    impostor = world.played(
        "waypoint", account("impostor"), {to: world.connector("waypoint", "127.0.0.1", APP)}
    )
    with running(impostor):
        answer, line = world.ask_service(name, b"secret")
    assert (answer, impostor.requests) == (b"", [])
    assert f"presented {account('impostor')}; expected {account('waypoint')}" in line
    assert "dst.identity" not in line


@pytest.mark.parametrize("by", ["ip", "name"])
def test_another_network_is_reached_through_its_gateway(world: Meshed, by: str) -> None:
    labels = {"destination_service": f"remote-by-{by}.{SUFFIX}", "destination_workload": "echo"}
    names = ("connections_closed", "received_bytes", "sent_bytes")

    def counted() -> list[float]:
        return [world.a.metric(f"istio_tcp_{name}", reporter="source", **labels) for name in names]

    before = counted()
    client, to = world.pods["client"], Endpoint(world.services[f"remote-by-{by}"].vips[0].ip, 80)
    at_first = settled(world.a, client)
    authority = f"remote-by-{by}.{SUFFIX}:80"
    with beyond(world, authority) as (gateway, server):
        with world.dial(f"remote-by-{by}") as sock:
            port = sock.getsockname()[1]
            assert dialled(world.a, client) == {Endpoint(client.ip4, port): to}
            sock.sendall(b"hello")
            assert sock.recv(100) == b"remote 127.0.0.1 hello"
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(100) == b""
        assert settled(world.a, client) - at_first == (0, 1, 0, 0)
        line = world.line(port)
    (outer,), (inner,) = gateway.requests, server.requests
    assert (outer.authority, inner.authority) == (authority, authority)
    assert outer.headers.get("x-forwarded-network") is None
    assert inner.headers.get("x-forwarded-network") == HOME
    said(
        line,
        dst__addr=f"{world.pods['gateway'].ip4}:15008",
        dst__hbone_addr=authority,
        dst__service=f'"remote-by-{by}.{SUFFIX}"',
        dst__workload='"echo"',
        dst__namespace='"demo"',
        dst__identity=f'"{ECHO}"',
        dst__cluster='"far"',
        bytes_sent="5",
        bytes_recv="22",
    )
    assert "error=" not in line
    wanted = [then + new for then, new in zip(before, (1, 5, 22), strict=True)]
    wait_for(lambda: counted() == wanted, "counted once, with its bytes")


def test_a_pod_of_another_network_knows_who_it_is_that_comes_by_the_gateway(world: Meshed) -> None:
    authority = f"remote-pod.{SUFFIX}:80"
    far, gateway_ip = world.pods["far"].ip4, world.pods["gateway"].ip4
    way = {authority: world.connector("gateway", far, 15008)}
    with running(world.played("gateway", account("gateway"), way)):
        answer, line = world.ask_service("remote-pod", b"hello")
    assert counters(world.b, world.pods["far"]) == (0, 0, 0, 0), "a tunnel in a tunnel is none of the maps'"
    assert answer == f"far {gateway_ip} hello".encode()
    said(
        line,
        dst__addr=f"{gateway_ip}:15008",
        dst__hbone_addr=authority,
        dst__workload='"far"',
        dst__identity=f'"{account("far")}"',
    )
    inbound = world.b.access(f"dst.hbone_addr={authority} ")[-1]
    said(
        inbound,
        src__workload='"client"',
        src__identity=f'"{account("client")}"',
        dst__service=f'"remote-pod.{SUFFIX}"',
        dst__workload='"far"',
        bytes_sent=str(len(answer)),
        bytes_recv="5",
    )


def test_many_connections_through_a_gateway_arrive_intact(world: Meshed) -> None:
    """All at a time, each of another size, each with a half-close before anything is answered."""
    authority = f"remote-by-ip.{SUFFIX}:80"
    sizes = [0, 1, 100_000, 1 << 20, 3_000_000, *range(10_000, 150_000, 10_000)]
    answered: dict[int, bool] = {}
    at_first = settled(world.a, world.pods["client"])

    def carry(number: int) -> None:
        data = os.urandom(sizes[number])
        with world.dial("remote-by-ip") as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answered[number] = read_all(sock) == data

    threads = [threading.Thread(target=carry, args=(number,)) for number in range(len(sizes))]
    with closing(App(world.pods["remote"], 8081, echo_all)), beyond(world, authority, 8081):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        wait_for(
            lambda: all(row["state"] != "open" for row in world.a.client.call("connections")),
            "all have ended",
        )
    assert answered == dict.fromkeys(range(len(sizes)), True)
    assert settled(world.a, world.pods["client"]) - at_first == (0, len(sizes), 0, 0)
    rows = [row for row in world.a.client.call("connections") if row["bytes_sent"] == 3_000_000]
    assert [(row["state"], row["bytes_recv"], row["error"]) for row in rows] == [("closed", 3_000_000, "")]


def read_all(sock: socket.socket) -> bytes:
    got = bytearray()
    while chunk := sock.recv(1 << 20):
        got += chunk
    return bytes(got)


def test_a_gateway_cannot_stand_in_for_who_is_behind_it(world: Meshed) -> None:
    authority = f"remote-by-ip.{SUFFIX}:80"
    liar = world.played("remote", account("gateway"), {})
    way = {authority: world.connector("gateway", world.pods["remote"].ip4, 15008)}
    with running(liar), running(world.played("gateway", account("gateway"), way)):
        answer, line = world.ask_service("remote-by-ip", b"secret")
    assert (answer, liar.requests) == (b"", [])
    assert f"{authority} presented {account('gateway')}; expected {ECHO}" in line
    said(line, dst__hbone_addr=authority, bytes_sent="0")


def test_an_address_of_no_service_is_nobodys(world: Meshed) -> None:
    answer, line = world.ask(world.services["web"].vips[0].ip, 81, b"?")
    assert (answer, f" dst.addr={vip(1)}:81 " in line) == (b"", True)
    assert "no healthy upstream" in line
