"""Metrics: what a scrape says must be what the records say, at every moment of a connection's life."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.mesh import mesh, workload
from tests.support.plane import CLIENT_IP, Plane
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.observe.log import LineWriter
from zproxy.observe.metrics import Family, Metrics, families, merge


class Scraper:
    """A plane's metrics, read back by a parser that is not ours."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._writer = LineWriter(os.open(os.devnull, os.O_WRONLY))
        self._metrics = Metrics([self._read], self._writer)

    def scrape(self) -> dict[tuple[str, str], float]:
        """Return the sums by sample name and reporter or role."""
        sums: dict[tuple[str, str], float] = {}
        text = asyncio.run(self._metrics.text())
        for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call] # the library's
            for sample in family.samples:
                who = sample.labels.get("reporter") or sample.labels.get("role", "")
                sums[sample.name, who] = sums.get((sample.name, who), 0) + sample.value
        return sums

    async def _read(self) -> list[Family]:
        return families(self._plane.connections)

    def close(self) -> None:
        self._writer.close()
        os.close(self._writer._fd)


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


@pytest.fixture
def scraper(plane: Plane) -> Iterator[Scraper]:
    made = Scraper(plane)
    yield made
    made.close()


def figures(sums: dict[tuple[str, str], float], reporter: str) -> list[float]:
    names = ("connections_opened", "connections_closed", "received_bytes", "sent_bytes")
    return [sums[f"istio_tcp_{name}_total", reporter] for name in names]


def test_bytes_count_during_the_life_of_a_connection_and_once(plane: Plane, scraper: Scraper) -> None:
    near, far = plane.pair()
    near.sendall(b"x" * 11)
    assert len(plane.receive(far, 11)) == 11
    far.sendall(b"y" * 22)
    assert len(plane.receive(near, 22)) == 22
    open_sums = scraper.scrape()
    assert figures(open_sums, "source") == figures(open_sums, "destination") == [1, 0, 11, 22]
    assert scraper.scrape() == open_sums, "a scrape changes nothing"
    near.close()
    far.close()
    plane.ended(2)
    closed_sums = scraper.scrape()
    assert figures(closed_sums, "source") == figures(closed_sums, "destination") == [1, 1, 11, 22]


def test_nothing_is_shown_of_what_never_happened(scraper: Scraper) -> None:
    assert {name for name, _ in scraper.scrape()} == {
        "zproxy_log_lines_dropped_total", "zproxy_tunnels_opened_total", "zproxy_tunnels_open",
    }  # fmt: skip


def test_an_early_refusal_is_counted_with_its_reason(plane: Plane, scraper: Scraper) -> None:
    plane.dial(port=15008)
    plane.ended(1)
    sums = scraper.scrape()
    assert sums["zproxy_early_denials_total", "source"] == 1
    assert sums["zproxy_connection_failures_total", "source"] == 1
    assert not [name for name, _ in sums if name.startswith("istio_")]


def test_a_failure_has_its_flag_with_the_labels_of_its_peers(plane: Plane, scraper: Scraper) -> None:
    plane.dial(port=4444)
    plane.ended(2)
    text = asyncio.run(scraper._metrics.text())
    failed = [line for line in text.splitlines() if line.startswith("istio_tcp_connections_failed_total{")]
    assert len(failed) == 2
    assert all('response_flags="CONNECT"' in line and line.endswith(" 1.0") for line in failed)
    labels = 'reason="CONNECT",reporter="source",response_flags="CONNECT"'
    assert f"zproxy_connection_failures_total{{{labels}}} 1.0" in text
    assert "# EOF" in text


def test_tunnels_are_counted_by_role(plane: Plane, scraper: Scraper) -> None:
    plane.pair()
    sums = scraper.scrape()
    for role in ("client", "server"):
        assert (sums["zproxy_tunnels_opened_total", role], sums["zproxy_tunnels_open", role]) == (1, 1)
    plane.client.pool.close()
    plane.wait(lambda: not plane.server.tunnels)
    sums = scraper.scrape()
    for role in ("client", "server"):
        assert (sums["zproxy_tunnels_opened_total", role], sums["zproxy_tunnels_open", role]) == (1, 0)


def test_a_pod_that_dials_itself_reports_both_ends_apart(plane: Plane, scraper: Scraper) -> None:
    plane.mesh = mesh(workload("demo/client", CLIENT_IP), plane.mesh.workloads[1])
    pod = plane.server
    one = pod.connections
    for direction in Direction:
        connection = one.open(pod.name, direction, Endpoint("127.0.0.2", 1), Endpoint("127.0.0.2", 2), 0.0)
        connection.peers = pod.peers(direction, pod.workload, pod.workload, 2)
        connection.bytes_sent, connection.bytes_recv = (5, 7) if direction is Direction.OUTBOUND else (7, 5)
        one.end(connection, 1.0)
    sums = scraper.scrape()
    assert figures(sums, "source") == figures(sums, "destination") == [1, 1, 5, 7]


def test_what_left_the_mesh_is_shown_no_more(plane: Plane, scraper: Scraper) -> None:
    near, far = plane.pair()
    near.close()
    far.close()
    plane.ended(2)
    plane.connections.on_mesh(plane.mesh.workloads)
    assert figures(scraper.scrape(), "source") == [1, 1, 0, 0]
    plane.connections.on_mesh(plane.mesh.workloads[:1])
    assert not [name for name, _ in scraper.scrape() if name.startswith("istio_")]
    plane.pair()
    assert figures(scraper.scrape(), "source") == [1, 0, 0, 0], "who comes back begins anew"


def counter(name: str, *rows: tuple[str, int]) -> Family:
    return Family(name, "help", ("role",), [((role,), value) for role, value in rows])


def test_rows_of_the_same_labels_are_one_whichever_worker_they_come_from() -> None:
    merged = merge(
        [
            [counter("one", ("client", 1), ("server", 2)), counter("two")],
            [counter("one", ("server", 10)), counter("two", ("client", 5))],
            [counter("one", ("client", 100)), counter("three", ("client", 7))],
        ]
    )
    assert merged == [
        counter("one", ("client", 101), ("server", 12)),
        counter("two", ("client", 5)),
        counter("three", ("client", 7)),
    ]


def test_merging_leaves_what_it_was_given_as_it_was() -> None:
    parts = [[counter("one", ("client", 1))], [counter("one", ("client", 2))]]
    assert merge(parts) == merge(parts) == [counter("one", ("client", 3))]
    assert parts[0][0].rows == [(("client",), 1)]
