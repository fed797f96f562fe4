import socket
from collections.abc import Iterator

import dns.edns
import dns.message
import pytest

from tests.support.dns_bench import RESOLVER, DnsBench
from zproxy.dns.message import Query, parse, with_id
from zproxy.dns.upstream import DatagramAsk, StreamAsk, Trouble, framed, taken
from zproxy.model.addr import Endpoint


@pytest.fixture
def bench() -> Iterator[DnsBench]:
    made = DnsBench()
    yield made
    made.close()


BY_TCP = Endpoint("127.0.0.1", 1)
"""Nobody listens there, unless the test says where somebody does."""


class Heard:
    """What came of a query."""

    def __init__(self) -> None:
        self.results: list[bytes | Trouble] = []
        self.forged = 0

    def done(self, result: bytes | Trouble) -> None:
        self.results.append(result)

    def forge(self) -> None:
        self.forged += 1


def query(name: str = "a.test") -> Query:
    return parse(dns.message.make_query(name, "A").to_wire())


def reply_to(wire: bytes) -> bytes:
    return dns.message.make_response(dns.message.from_wire(wire)).to_wire()


def ask(bench: DnsBench, heard: Heard, asked: Query) -> DatagramAsk:
    return DatagramAsk(bench.worker, bench.sockets, asked, RESOLVER, heard.done, heard.forge)  # type: ignore[arg-type] # stand-ins


def ask_tcp(bench: DnsBench, heard: Heard, asked: Query) -> StreamAsk:
    return StreamAsk(bench.worker, bench.sockets, asked, BY_TCP, heard.done)  # type: ignore[arg-type] # likewise


def listening(bench: DnsBench) -> socket.socket:
    sock = bench.keep(socket.create_server(("127.0.0.1", 0)))
    bench.sockets.at[BY_TCP] = sock.getsockname()
    return sock


def test_the_id_is_drawn_anew_and_given_back(bench: DnsBench) -> None:
    upstream, heard, asked = bench.upstream(), Heard(), query()
    drawn, ports = set(), set()
    for _ in range(8):
        ask(bench, heard, asked)
        wire, sender = upstream.recvfrom(4096)
        drawn.add(wire[:2])
        ports.add(sender)
        upstream.sendto(reply_to(wire), sender)
    bench.wait(lambda: len(heard.results) == 8)
    assert all(result == with_id(reply_to(asked.wire), asked.id) for result in heard.results)
    assert len(drawn) > 4
    assert len(ports) > 1
    assert len(bench.worker.asking) == 0


def test_what_is_forged_is_as_if_it_had_never_come(bench: DnsBench) -> None:
    upstream, heard = bench.upstream(), Heard()
    ask(bench, heard, query())
    wire, sender = upstream.recvfrom(4096)
    good = reply_to(wire)
    for forged in (
        b"",
        with_id(good, 1 ^ int.from_bytes(good[:2], "big")),
        good.replace(b"test", b"best"),
        wire,
    ):
        upstream.sendto(forged, sender)
    bench.wait(lambda: heard.forged == 4)
    assert heard.results == []
    elsewhere = bench.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    elsewhere.sendto(good, sender)
    bench.settle()
    assert heard.results == []
    upstream.sendto(good, sender)
    bench.wait(lambda: len(heard.results) == 1)
    assert heard.forged == 4


def test_a_flood_of_forged_answers_does_not_keep_the_worker(bench: DnsBench) -> None:
    upstream, heard = bench.upstream(), Heard()
    ask(bench, heard, query())
    wire, sender = upstream.recvfrom(4096)
    for _ in range(40):
        upstream.sendto(wire, sender)
    upstream.sendto(reply_to(wire), sender)
    bench.worker.poller.run_batch()
    assert 0 < heard.forged < 40
    bench.wait(lambda: len(heard.results) == 1)


def test_a_closed_port_is_told_at_once(bench: DnsBench) -> None:
    for ask_by in (ask, ask_tcp):
        heard = Heard()
        ask_by(bench, heard, query())
        bench.wait(lambda heard=heard: len(heard.results) == 1)  # type: ignore[misc]
        (trouble,) = heard.results
        assert isinstance(trouble, Trouble)
        assert trouble.code == dns.edns.EDECode.NETWORK_ERROR
        assert "refused" in trouble.text


def test_silence_ends(bench: DnsBench) -> None:
    bench.upstream()
    listening(bench)
    for ask_by in (ask, ask_tcp):
        heard = Heard()
        ask_by(bench, heard, query())
        bench.settle()
        assert heard.results == []
        bench.advance(4.1)
        (trouble,) = heard.results
        assert isinstance(trouble, Trouble)
        assert "took longer than 4 s" in trouble.text


def test_over_tcp_the_answer_may_come_in_pieces(bench: DnsBench) -> None:
    server, heard, asked = listening(bench), Heard(), query()
    ask_tcp(bench, heard, asked)
    bench.settle()
    peer, _ = server.accept()
    bench.keep(peer)
    bench.settle()
    wire = taken(bytearray(peer.recv(4096)))
    assert wire is not None
    data = framed(reply_to(wire))
    for at in range(len(data)):
        assert heard.results == []
        peer.sendall(data[at : at + 1])
        bench.settle() if at in {0, 1, len(data) - 2} else None
    bench.wait(lambda: heard.results == [with_id(reply_to(asked.wire), asked.id)])


@pytest.mark.parametrize("said", [b"", framed(b"something else"), b"\x00\xffshort"])
def test_over_tcp_something_else_is_no_answer(bench: DnsBench, said: bytes) -> None:
    server, heard = listening(bench), Heard()
    ask_tcp(bench, heard, query())
    bench.settle()
    with server.accept()[0] as peer:
        peer.recv(1, socket.MSG_PEEK)
        peer.sendall(said)
        peer.shutdown(socket.SHUT_WR)
        bench.wait(lambda: len(heard.results) == 1)
    assert isinstance(heard.results[0], Trouble)


def test_who_gives_up_hears_nothing(bench: DnsBench) -> None:
    upstream, heard = bench.upstream(), Heard()
    given_up = ask(bench, heard, query())
    wire, sender = upstream.recvfrom(4096)
    given_up.close()
    upstream.sendto(reply_to(wire), sender)
    bench.settle()
    bench.advance(5)
    assert heard.results == []


def test_an_error_of_our_own_is_told(bench: DnsBench) -> None:
    listening(bench)
    bench.upstream()
    listening(bench)
    for ask_by in (ask, ask_tcp):
        heard = Heard()
        ask_by(bench, heard, query()).abort("a bug")
        assert heard.results == [Trouble(dns.edns.EDECode.OTHER, "a bug")]


def test_framing() -> None:
    buffer = bytearray(framed(b"one") + framed(b"two")[:4])
    assert taken(buffer) == b"one"
    assert taken(buffer) is None
    buffer += b"o"
    assert taken(buffer) == b"two"
    assert (taken(buffer), buffer) == (None, bytearray())
