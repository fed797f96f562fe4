"""The record of connections."""

import threading
from itertools import count

from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.observe.connections import Connection, Connections

SRC, DST = Endpoint("10.0.0.1", 1000), Endpoint("10.0.0.2", 80)


class Sink:
    def __init__(self) -> None:
        self.seen: list[Connection] = []

    def ended(self, connection: Connection, now: float) -> None:
        self.seen.append(connection)


def test_a_connection_ends_once_whoever_says_so_again() -> None:
    sink = Sink()
    connections = Connections(sink, keep_ended=10, max_series=8)
    one = connections.open("demo/a", Direction.OUTBOUND, SRC, DST, now=1.0)
    connections.end(one, 2.0, "broke", "RESET")
    connections.end(one, 3.0)
    assert sink.seen == [one]
    assert (one.state, one.error, one.reason, one.duration_s) == ("failed", "broke", "RESET", 1.0)
    totals = connections.totals
    assert (totals.opened, totals.closed, totals.failed) == (1, 1, 1)


def test_rows_show_ended_and_open_ones() -> None:
    connections = Connections(Sink(), keep_ended=10, max_series=8)
    done = connections.open("demo/a", Direction.OUTBOUND, SRC, DST, now=1.0)
    done.bytes_sent = 5
    connections.end(done, 1.5)
    connections.open("demo/a", Direction.INBOUND, DST, SRC, now=2.0)
    rows = list(connections.rows(now=4.0))
    assert [(row["state"], row["duration_ms"], row["direction"]) for row in rows] == [
        ("closed", 500, "outbound"),
        ("open", 2000, "inbound"),
    ]
    assert rows[0]["src"] == "10.0.0.1:1000"
    assert connections.totals.bytes_sent == 5
    assert connections.live() == 1


def test_only_the_last_ended_ones_are_kept() -> None:
    connections = Connections(Sink(), keep_ended=3, max_series=8)
    for number in range(10):
        connections.end(connections.open("demo/a", Direction.OUTBOUND, SRC, DST, now=number), number + 1.0)
    assert [row["id"] for row in connections.rows(now=20.0)] == [8, 9, 10]


def test_who_waits_for_idle_is_told_once_with_the_last_connection() -> None:
    sink = Sink()
    connections = Connections(sink, keep_ended=3, max_series=8)
    told: list[int] = []
    connections.when_idle(lambda: told.append(0))  # nothing is open: at once
    assert told == [0]
    one, two = (connections.open("demo/a", Direction.OUTBOUND, SRC, DST, now=0.0) for _ in range(2))
    connections.when_idle(lambda: told.append(len(sink.seen)))
    connections.end(one, 1.0)
    assert told == [0]
    connections.end(two, 1.0)
    assert told == [0, 2], "its own line is written before"
    connections.end(connections.open("demo/a", Direction.OUTBOUND, SRC, DST, now=1.0), 2.0)
    assert told == [0, 2]


def test_several_workers_never_give_one_number_twice() -> None:
    numbers = count(1)
    workers = [Connections(Sink(), 10_000, 8, numbers) for _ in range(4)]
    given: list[list[int]] = [[] for _ in workers]
    begin = threading.Barrier(len(workers))

    def work(index: int) -> None:
        begin.wait(10)
        for _ in range(2000):
            opened = workers[index].open("demo/a", Direction.OUTBOUND, SRC, DST, now=0.0)
            given[index].append(opened.id)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(workers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(number for each in given for number in each) == list(range(1, 8001))


def test_failures_are_counted_by_reason() -> None:
    connections = Connections(Sink(), keep_ended=3, max_series=8)
    for error, reason in (("a", "LIMIT"), ("b", "LIMIT"), ("c", "DENY"), ("", "")):
        one = connections.open("demo/a", Direction.OUTBOUND, SRC, DST, now=1.0)
        connections.end(one, 2.0, error, reason)
    assert connections.totals.reasons == {"LIMIT": 2, "DENY": 1}
