"""Workers and the straws on them, as the control plane sees them."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.support.inline import InlineDriver
from tests.support.mesh import workload
from tests.support.netns import namespace
from tests.support.plane import Plane
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.net import netlink
from zproxy.net.sockets import SocketFactory
from zproxy.node.workers import Figures, PlacedStraw, PodWorker, least_loaded
from zproxy.observe.metrics import families
from zproxy.proxy.straw import Straw

SRC, DST = Endpoint("10.0.0.1", 1000), Endpoint("10.0.0.2", 80)


@pytest.fixture
def plane() -> Iterator[Plane]:
    with closing(Plane()) as made:
        yield made


def worker_of(plane: Plane, number: int = 0, straw: Straw | None = None) -> PodWorker:
    made: Any = straw
    return PodWorker(InlineDriver(number, plane.worker), plane.connections, lambda *_: made)


def test_a_straw_is_made_on_its_worker_and_known_by_plain_values(plane: Plane) -> None:
    worker = worker_of(plane, 2, plane.client_straw)
    unused: Any = None
    straw = asyncio.run(worker.open_straw(workload("demo/client"), unused))
    assert straw.worker is worker
    assert straw.ports == [listener.port for listener in plane.client_straw.listeners]
    assert straw.plaintext_fd == plane.client_straw.plaintext_fd


def test_a_straw_s_tunnels_are_looked_at_with_the_worker_s_time(plane: Plane) -> None:
    plane.pair()
    straw = PlacedStraw(worker_of(plane), plane.client_straw)
    assert asyncio.run(straw.tunnels(lambda tunnel, now: (tunnel.role, now))) == [("client", plane.now)]


def test_a_drained_straw_takes_nothing_new_and_a_closed_one_has_nothing(plane: Plane) -> None:
    plane.pair()
    straw = PlacedStraw(worker_of(plane), plane.client_straw)
    asyncio.run(straw.drain())
    with pytest.raises(ConnectionRefusedError):
        plane.dial()
    assert plane.connections.live() == 2
    asyncio.run(straw.close("the pod was unenrolled"))
    plane.ended(2)
    assert asyncio.run(straw.tunnels(lambda tunnel, _: tunnel)) == []


def test_figures_are_what_was_counted(plane: Plane) -> None:
    worker = worker_of(plane)
    one, two, _ = (plane.connections.open("demo/a", Direction.OUTBOUND, SRC, DST, 0.0) for _ in range(3))
    one.bytes_sent, one.bytes_recv = 5, 6
    plane.connections.end(one, 1.0)
    plane.connections.end(two, 1.0, "broke", "RESET")
    assert asyncio.run(worker.figures()) == Figures(1, 3, 2, 1, 5, 6, Counter(RESET=1))
    assert [row["state"] for row in asyncio.run(worker.connections())] == ["closed", "failed", "open"]


def test_metrics_are_read_on_the_worker(plane: Plane) -> None:
    plane.pair()
    found = asyncio.run(worker_of(plane).metrics())
    assert found == families(plane.connections)
    opened = next(family for family in found if family.name == "istio_tcp_connections_opened")
    assert sum(value for _, value in opened.rows) == 2


def test_waiting_for_idle_ends_with_the_last_connection(plane: Plane) -> None:
    worker = worker_of(plane)

    async def main() -> bool:
        await worker.idle()  # nothing is open: at once
        one, two = (plane.connections.open("demo/a", Direction.OUTBOUND, SRC, DST, 0.0) for _ in range(2))
        waiter = asyncio.ensure_future(worker.idle())
        await asyncio.sleep(0)
        plane.connections.end(one, 1.0)
        await asyncio.sleep(0)
        early = waiter.done()
        plane.connections.end(two, 1.0)
        await asyncio.wait_for(waiter, 10)
        return early

    assert asyncio.run(main()) is False


def test_an_idle_that_comes_when_nobody_waits_any_more_harms_nothing(plane: Plane) -> None:
    worker = worker_of(plane)
    one = plane.connections.open("demo/a", Direction.OUTBOUND, SRC, DST, 0.0)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.idle(), 0.01)
        plane.connections.end(one, 1.0)

    asyncio.run(main())
    assert plane.connections.live() == 0


@pytest.mark.parametrize(
    ("on", "number"), [([], 0), ([0], 1), ([0, 1], 2), ([0, 1, 2], 0), ([1, 1, 2], 0), ([0, 0, 1, 2, 2], 1)]
)
def test_a_pod_goes_to_the_worker_with_the_fewest_and_the_first_of_several(
    plane: Plane, on: list[int], number: int
) -> None:
    workers = [worker_of(plane, each) for each in range(3)]
    straws = [PlacedStraw(workers[each], plane.client_straw) for each in on]
    assert least_loaded(workers, straws) is workers[number]


@pytest.mark.root
def test_a_straw_s_listeners_are_known_opened_again_and_missed() -> None:
    def taking() -> set[int]:
        return {each.inode for each in netlink.listening()} | set(netlink.taking_datagrams(15053))

    with closing(Plane()) as plane, namespace() as pod:
        plane.server.sockets = SocketFactory(pod.netns, lambda fd: None)
        straw = PlacedStraw(worker_of(plane), Straw(plane.server))
        lost: list[bool] = []
        asyncio.run(straw.when_lost(lambda: lost.append(True)))
        before = asyncio.run(straw.sockets())
        assert before == pod.run(taking)
        pod.execute("ss", "-K", "-t", "state", "listening", "sport", "=", ":15006")
        plane.worker.poller.run_batch(1.0)
        assert lost == [True]
        asyncio.run(straw.reopen())
        after = asyncio.run(straw.sockets())
        assert len(before & after) == 4
        assert after == pod.run(taking)
        assert os.fstat(straw.plaintext_fd).st_ino in after - before
        asyncio.run(straw.close("over"))
