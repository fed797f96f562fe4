"""Endpoints of a service, end to end: shared, tried again, left out, and kept to."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.meshed import APP, SUFFIX, Meshed, meshed
from tests.support.netns import batch
from tests.support.nodes import exchange, wait_for
from tests.support.steered import counters, dialled, settled
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meshed]:
    with meshed(tmp_path_factory.mktemp("meshed")) as made:
        yield made


def who(world: Meshed, name: str, source_ip: str = "") -> str:
    """Ask a service once; return which app answered."""
    return exchange(world.dial(name, source_ip=source_ip), b"x").split()[0].decode()


def opened(world: Meshed, service: str, workload: str) -> float:
    return world.a.metric(
        "istio_tcp_connections_opened",
        reporter="source",
        destination_service=f"{service}.{SUFFIX}",
        destination_workload=workload,
    )


def arrivals(world: Meshed) -> float:
    """Return how many connections have reached `two`, as its own node counts them."""
    return world.b.metric("istio_tcp_connections_opened", reporter="destination", destination_workload="two")


def test_the_first_request_reaches_one_endpoint_and_many_reach_both(world: Meshed) -> None:
    before = {name: opened(world, "web", name) for name in ("one", "two")}
    arrived = arrivals(world)
    client = world.pods["client"]
    steered = settled(world.a, client)

    def new(name: str) -> float:
        return opened(world, "web", name) - before[name]

    first = who(world, "web")
    wait_for(lambda: new("one") + new("two") == 1, "counted")
    assert new(first) == 1
    counted = Counter([first, *(who(world, "web") for _ in range(50))])
    assert set(counted) == {"one", "two"}
    assert counted.total() == 51
    wait_for(lambda: new("one") + new("two") == 51, "all are counted")
    assert new("one") == counted["one"]
    assert arrivals(world) - arrived == counted["two"]
    assert settled(world.a, client) - steered == (0, 51, 0, 0)
    assert counters(world.b, world.pods["two"]).inbound == 0, "all by HBONE"
    for name in ("one", "two"):
        line = world.a.access(f"dst.addr={world.pods[name].ip4}:15008 ")[-1]
        assert f'dst.service="web.{SUFFIX}" dst.workload="{name}"' in line


def test_open_connections_are_spread_evenly(world: Meshed) -> None:
    client, to = world.pods["client"], Endpoint(world.services["web"].vips[0].ip, 80)
    settled(world.a, client)
    held = [world.dial("web") for _ in range(60)]
    for sock in held:
        sock.sendall(b"x")
    counted = Counter(sock.recv(100).split()[0] for sock in held)
    assert dialled(world.a, client) == {Endpoint(*sock.getsockname()): to for sock in held}
    assert counters(world.a, client).open == 60
    for sock in held:
        sock.close()
    settled(world.a, client)
    assert sorted(counted) == [b"one", b"two"]
    assert min(counted.values()) >= 26


def test_an_endpoint_that_is_not_there_is_replaced_and_soon_left_out(world: Meshed) -> None:
    """Nothing of it shows to the app; three failures in a row are enough."""
    retries = world.a.metric("zproxy_connect_retries")
    ejections = world.a.metric("zproxy_endpoint_ejections")
    steered = settled(world.a, world.pods["client"])
    assert {who(world, "sick") for _ in range(60)} == {"one"}
    tried = world.a.metric("zproxy_connect_retries") - retries
    assert tried == 3
    assert settled(world.a, world.pods["client"]) - steered == (0, 60, 0, 0), "the app's connects, no other"
    assert world.a.metric("zproxy_endpoint_ejections") - ejections == 1

    def sent() -> list[str]:
        lines = world.a.lines(f'dst.service="sick.{SUFFIX}"')
        return [line for line in lines if 'direction="outbound"' in line]

    wait_for(lambda: len(sent()) == 60, "all have ended")
    assert not [line for line in sent() if "error=" in line]


def test_a_plain_endpoint_is_as_good_as_any_other(world: Meshed) -> None:
    assert {who(world, "halting") for _ in range(40)} == {"plain", "two"}
    line = world.a.access(f"dst.addr={world.pods['plain'].ip4}:{APP} ")[-1]
    assert f'dst.service="halting.{SUFFIX}" dst.workload="plain"' in line
    assert "identity" not in line.partition("dst.addr")[2]


def test_a_client_keeps_its_endpoint(world: Meshed) -> None:
    pod = world.pods["client"]
    sources = [pod.ip4, *(f"{pod.ip4.rpartition('.')[0]}.{number}" for number in range(200, 216))]
    batch(pod.name, [f"addr add {ip}/16 dev eth0" for ip in sources[1:]])
    homes = {ip: who(world, "sticky", ip) for ip in sources}
    for _ in range(3):
        assert {ip: who(world, "sticky", ip) for ip in sources} == homes
    assert set(homes.values()) == {"one", "two"}
