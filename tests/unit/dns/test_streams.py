import socket
from collections.abc import Callable, Iterator

import dns.message
import pytest

from tests.support.dns_bench import DnsBench
from zproxy.config import Limits
from zproxy.dns.streams import Stream
from zproxy.dns.upstream import framed
from zproxy.model.addr import Endpoint


class Desk:
    """A stream whose queries the test answers itself."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - immutable
        self.bench = DnsBench(limits=limits)
        self.client, server = socket.socketpair()
        self.bench.keep(self.client)
        server.setblocking(False)
        self.taken: list[tuple[bytes, Callable[[bytes], None]]] = []
        self.ended: list[Stream] = []
        self.stream = Stream(server, None, self.bench.worker, self.take, self.ended.append)

    def take(self, wire: bytes, resolver: Endpoint | None, reply: Callable[[bytes], None]) -> None:
        self.taken.append((wire, reply))

    def has(self, *wires: bytes) -> Callable[[], bool]:
        return lambda: [wire for wire, _ in self.taken] == list(wires)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(Limits(dns_pipelined=2, dns_backlog_bytes=1000))
    yield made
    made.stream.close()
    made.bench.close()


def test_queries_in_pieces_and_in_one(desk: Desk) -> None:
    desk.client.sendall(framed(b"one")[:1])
    desk.bench.settle()
    desk.client.sendall(framed(b"one")[1:] + framed(b"two"))
    desk.bench.wait(desk.has(b"one", b"two"))


def test_answers_come_as_they_are_ready(desk: Desk) -> None:
    desk.client.sendall(framed(b"one") + framed(b"two"))
    desk.bench.wait(desk.has(b"one", b"two"))
    desk.taken[1][1](b"2")
    desk.taken[0][1](b"1")
    assert desk.client.recv(100) == framed(b"2") + framed(b"1")


def test_more_are_taken_when_there_is_room_again(desk: Desk) -> None:
    desk.client.sendall(framed(b"one") + framed(b"two") + framed(b"three"))
    desk.bench.settle()
    assert desk.has(b"one", b"two")()
    desk.taken[0][1](b"1")
    assert desk.has(b"one", b"two", b"three")()


def test_nothing_is_taken_while_answers_are_not(desk: Desk) -> None:
    desk.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    large = bytes(60000)
    for _ in range(20):
        desk.client.sendall(framed(b"q"))
        desk.bench.settle()
        if not desk.taken:
            break
        desk.taken.pop()[1](large)
    assert not desk.taken
    assert desk.ended == []
    desk.bench.advance(5.1)
    assert desk.ended == [desk.stream]


def test_who_asks_nothing_is_shown_out(desk: Desk) -> None:
    desk.client.sendall(b"\0")
    desk.bench.settle()
    desk.bench.advance(4.9)
    assert desk.ended == []
    desk.bench.advance(0.2)
    assert desk.ended == [desk.stream]


def test_who_waits_for_a_resolver_is_not(desk: Desk) -> None:
    desk.client.sendall(framed(b"one"))
    desk.bench.wait(desk.has(b"one"))
    desk.bench.advance(60)
    assert desk.ended == []
    desk.taken[0][1](b"1")
    desk.bench.advance(4.9)
    assert desk.ended == []
    desk.bench.advance(0.2)
    assert desk.ended == [desk.stream]


def test_an_end_waits_for_the_answers(desk: Desk) -> None:
    desk.client.sendall(framed(b"one"))
    desk.client.shutdown(socket.SHUT_WR)
    desk.bench.wait(desk.has(b"one"))
    desk.bench.settle()
    assert desk.ended == []
    desk.taken[0][1](b"1")
    assert desk.client.recv(100) == framed(b"1")
    assert desk.client.recv(100) == b""
    assert desk.ended == [desk.stream]


def test_an_answer_to_who_is_gone(desk: Desk) -> None:
    desk.client.sendall(framed(b"one") + framed(b"two"))
    desk.bench.wait(desk.has(b"one", b"two"))
    desk.client.close()
    desk.bench.settle()
    desk.taken[0][1](b"1")
    desk.taken[1][1](b"2")
    assert desk.ended == [desk.stream]


def test_no_answer_at_all_ends_it(desk: Desk) -> None:
    desk.client.sendall(framed(b"one"))
    desk.bench.wait(desk.has(b"one"))
    desk.taken[0][1](b"")
    assert desk.ended == [desk.stream]


def test_a_bug_ends_it(desk: Desk) -> None:
    desk.stream.abort("a bug")
    assert desk.ended == [desk.stream]
    assert len(desk.bench.worker.querying) == 0


def test_many_at_once_over_a_real_connection() -> None:
    bench = DnsBench()
    asked = [dns.message.make_query("productpage", "A") for _ in range(200)]
    replies = bench.ask_tcp(asked)
    assert [each.id for each in replies] == [each.id for each in asked]
    bench.close()
