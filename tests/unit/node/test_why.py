"""`zproxy why` in the daemon: whom it asks, what it asks, and what it says when it cannot."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.inline import InlineDriver
from tests.support.mesh import behind, mesh, service, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from zproxy.errors import ConfigError
from zproxy.model.pod import DEFAULT_OPTIONS, PodOptions, UdpPolicy
from zproxy.model.policy import Action, Authorization, PolicyScope
from zproxy.model.settings import DEFAULT_SETTINGS
from zproxy.node.why import Why
from zproxy.node.workers import PlacedStraw, PodWorker
from zproxy.state.policy import authorize

CLIENT, SERVER = workload("demo/client", CLIENT_IP), workload("demo/server", SERVER_IP)
WEB = service("demo/web.demo.svc.cluster.local", "10.96.0.1")


class Stage:
    """A plane whose client pod is enrolled. The pods are on loopback, which is not steered: see `asked`."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        unused: Any = None
        worker = PodWorker(InlineDriver(0, plane.worker), plane.connections, unused)
        self.pod = SimpleNamespace(
            name="demo/client",
            workload=CLIENT,
            options=DEFAULT_OPTIONS,
            straw=PlacedStraw(worker, plane.client_straw),
        )
        manager: Any = SimpleNamespace(node="node-a", pods={"demo/client": self.pod})
        decide = partial(authorize, DEFAULT_SETTINGS.compat)
        self.why = Why([worker], manager, lambda: plane.mesh, DEFAULT_SETTINGS, decide)

    def ask(self, destination: str, protocol: str = "tcp", source: str = "demo/client") -> dict[str, Any]:
        return answer(lambda: self.why.why(source, destination, protocol))

    def section(self, found: dict[str, Any], title: str) -> list[dict[str, Any]]:
        (steps,) = (each["steps"] for each in found["sections"] if each["title"] == title)
        return list(steps)


def answer(make: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> dict[str, Any]:
    return asyncio.run(make())


@pytest.fixture
def stage() -> Iterator[Stage]:
    with closing(Plane()) as plane:
        plane.mesh = mesh(CLIENT, behind(SERVER, WEB), WEB)
        yield Stage(plane)


def test_a_service_is_explained_from_its_name_to_the_far_side(stage: Stage) -> None:
    found = stage.ask("web")
    assert [section["title"] for section in found["sections"]] == [
        "name",
        "steering",
        "route",
        "now",
        "receiving side: demo/server",
    ]
    assert found["allowed"]
    assert found["sentence"] == (
        "demo/client may reach 10.96.0.1:80: by HBONE to demo/server at 127.0.0.2:15008, "
        "where no policy is against it"
    )
    assert stage.section(found, "now")[0]["detail"] == "one to 127.0.0.2:15008 will be dialled"


def test_what_is_open_already_is_told(stage: Stage) -> None:
    stage.plane.pair()
    (now, *_) = stage.section(stage.ask("web:80"), "now")
    assert now["outcome"] == "open"
    assert "127.0.0.2:15008, with 1 streams, spiffe://cluster.local/ns/demo/sa/server" in now["detail"]


def test_the_balancer_s_view_of_an_endpoint_is_told(stage: Stage) -> None:
    balancer = stage.plane.client.balancer
    for _ in range(3):
        balancer.failed(SERVER.uid, stage.plane.worker.poller.clock())
    balancer.took(SERVER.uid)
    known = [
        step["detail"] for step in stage.section(stage.ask("web"), "now") if step["subject"] == "balancer"
    ]
    assert len(known) == 1
    assert known[0].startswith("demo/server: 1 connections, ")


def test_a_port_that_is_not_open_is_told(stage: Stage) -> None:
    now = stage.plane.worker.poller.clock()
    for at in (1.0, 2.0, 3.0):
        stage.plane.client.balancer.failed(SERVER.uid, now + at, 8080)
    known = [
        step["detail"] for step in stage.section(stage.ask("web"), "now") if step["subject"] == "balancer"
    ]
    assert len(known) == 1
    assert "3 failures in a row, left out for" in known[0]


def test_of_several_ways_the_refused_one_is_explained(stage: Stage) -> None:
    shut = workload("demo/shut", "10.0.0.3", authorization_policies=("demo/deny",))
    deny = Authorization("deny", "demo", PolicyScope.WORKLOAD_SELECTOR, Action.DENY, ((),))
    stage.plane.mesh = mesh(CLIENT, behind(SERVER, WEB), behind(shut, WEB), WEB, deny)
    found = stage.ask("web.demo")
    assert not found["allowed"]
    assert found["sentence"] == (
        "demo/client may reach 10.96.0.1:80 by 1 of 2 ways only: "
        "demo/shut answers 401: explicitly denied by: demo/deny"
    )
    assert [step["outcome"] for step in stage.section(found, "all ways")] == ["allowed", "refused"]


def test_what_its_own_node_refuses(stage: Stage) -> None:
    found = stage.ask("web:81")
    assert not found["allowed"]
    assert found["sentence"].startswith(
        "demo/client may not reach 10.96.0.1:81: its own node refuses it: no healthy"
    )


def test_what_is_not_steered_or_no_part_of_the_mesh_is_allowed(stage: Stage) -> None:
    assert stage.ask("demo/server:80")["sentence"] == (
        "demo/client reaches 127.0.0.2:80 past the mesh: 127.0.0.2 is loopback, which is never steered"
    )
    found = stage.ask("192.0.2.1:443")
    assert found["sentence"].endswith("it goes to 192.0.2.1:443 in the clear, past the mesh")
    assert stage.section(found, "receiving side")[0]["outcome"] == "not known"


def test_udp_is_steering_s_alone(stage: Stage) -> None:
    assert "may send UDP to 10.96.0.1:80: UDP is not carried" in stage.ask("web", "udp")["sentence"]
    stage.pod.options = PodOptions(udp=UdpPolicy.BLOCK)
    found = stage.ask("web", "udp")
    assert not found["allowed"]
    assert "may not send UDP to 10.96.0.1:80: UDP that leaves the pod is blocked" in found["sentence"]


def test_names_are_answered_for_pods_with_dns(stage: Stage) -> None:
    stage.pod.options = PodOptions(dns=False)
    assert "goes to its own resolver: it was enrolled with --no-dns" in stage.ask("web", "dns")["sentence"]
    stage.pod.options = PodOptions(dns=True)
    assert stage.ask("web", "dns")["sentence"] == (
        "a query of demo/client for web is answered by the mesh: 10.96.0.1"
    )
    assert stage.ask("example.com", "dns")["sentence"].endswith("goes on to the resolver it was sent to")
    assert "its DNS is steered to the straw" in stage.ask("192.0.2.1:53")["sentence"]


@pytest.mark.parametrize(
    ("destination", "protocol", "source", "says"),
    [
        ("web", "sctp", "demo/client", "unknown protocol 'sctp'; write one of tcp, udp, dns"),
        ("web", "tcp", "demo/other", "demo/other is not enrolled on node node-a"),
        (
            "example.com:80",
            "tcp",
            "demo/client",
            "the mesh does not know example.com, so the pod's own resolver",
        ),
        ("demo/server", "tcp", "demo/client", "which port of demo/server? write demo/server:PORT"),
        ("10.96.0.1", "dns", "demo/client", "10.96.0.1 is an address and no name"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(
    stage: Stage, destination: str, protocol: str, source: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        stage.ask(destination, protocol, source)
    assert says in str(caught.value)


def test_a_service_with_several_ports_has_them_named(stage: Stage) -> None:
    stage.plane.mesh = mesh(CLIENT, service("demo/two.test", "10.96.0.2", ports={80: 80, 443: 443}))
    with pytest.raises(ConfigError, match=r"which port of two.test\? write two.test:PORT, one of 80, 443"):
        stage.ask("two.test")


def test_a_connection_is_explained_by_its_number(stage: Stage) -> None:
    near, far = stage.plane.pair()
    numbers = {
        connection.direction.value: connection.id for connection in stage.plane.connections.open_ones()
    }
    outbound = answer(lambda: stage.why.why_connection(numbers["outbound"]))
    assert outbound["sentence"].startswith(
        f"connection {numbers['outbound']} of demo/client is open; now it is allowed"
    )
    inbound = answer(lambda: stage.why.why_connection(numbers["inbound"]))
    assert inbound["sentence"].endswith("now it is allowed: no policy is against it")
    near.close()
    far.close()
    stage.plane.ended(2)
    ended = answer(lambda: stage.why.why_connection(numbers["outbound"]))
    assert "of demo/client has ended; now it is allowed" in ended["sentence"]
    with pytest.raises(ConfigError, match="no connection 999: `zproxy connections` lists"):
        answer(lambda: stage.why.why_connection(999))
