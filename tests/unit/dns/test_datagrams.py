import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.dns_bench import STRANGER, DnsBench
from zproxy.dns.datagrams import PER_TURN, Datagrams
from zproxy.dns.locals import Locals


class Desk:
    """A socket whose queries the test answers itself."""

    def __init__(self) -> None:
        self.bench = DnsBench()
        self.taken: list[tuple[bytes, str, Callable[[bytes], None]]] = []
        self.dropped: list[str] = []
        sock = self.bench.sockets.bind_datagrams(0)
        self.port: int = sock.getsockname()[1]
        own = Locals(self.bench.sockets.is_own, self.bench.worker.poller)
        self.datagrams = Datagrams(sock, self.bench.worker, own, self.take, self.dropped.append)

    def take(self, wire: bytes, alias: str, reply: Callable[[bytes], None]) -> None:
        self.taken.append((wire, alias, reply))

    def client(self, source: str = "127.0.0.1", to: str = "127.0.0.9") -> socket.socket:
        sock = self.bench.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((source, 0))
        sock.connect((to, self.port))
        return sock


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.datagrams.close()
    made.bench.close()


def test_the_answer_comes_from_the_address_that_was_asked(desk: Desk) -> None:
    client = desk.client(to="127.0.0.9")
    client.send(b"query")
    desk.bench.wait(lambda: len(desk.taken) == 1)
    wire, alias, reply = desk.taken[0]
    assert (wire, alias) == (b"query", "127.0.0.9")
    reply(b"answer")
    assert client.recv(100) == b"answer"  # a connected socket hears nobody else


def test_strangers(desk: Desk) -> None:
    desk.client(STRANGER).send(b"query")
    desk.client().send(b"")  # all that zproxy.net.datagrams leaves of what came from outside
    desk.bench.wait(lambda: desk.dropped == ["stranger"] * 2)
    assert desk.taken == []


def test_nothing_goes_round_in_circles(desk: Desk) -> None:
    desk.datagrams.sock.sendto(b"answer", ("127.0.0.1", desk.port))
    desk.bench.wait(lambda: desk.dropped != [])
    assert (desk.dropped, desk.taken) in ((["loop"], []), (["stranger"], []))


def test_a_turn_is_short(desk: Desk) -> None:
    client = desk.client()
    for _ in range(PER_TURN + 9):
        client.send(b"query")
    desk.bench.worker.poller.run_batch()
    assert len(desk.taken) == PER_TURN
    desk.bench.wait(lambda: len(desk.taken) == PER_TURN + 9)


def test_a_client_that_is_gone_is_no_error(desk: Desk) -> None:
    gone, client = desk.client(), desk.client()
    gone.send(b"query")
    desk.bench.wait(lambda: len(desk.taken) == 1)
    gone.close()
    for _ in range(3):
        desk.taken[0][2](b"answer")
    client.send(b"another")
    desk.bench.wait(lambda: len(desk.taken) == 2)


def test_after_the_end_answers_go_nowhere(desk: Desk) -> None:
    client = desk.client()
    client.send(b"query")
    desk.bench.wait(lambda: len(desk.taken) == 1)
    desk.datagrams.close()
    desk.taken[0][2](b"answer")
    desk.datagrams.close()


def test_a_bug_does_not_end_it(desk: Desk) -> None:
    desk.datagrams.abort("a bug")
    desk.client().send(b"query")
    desk.bench.wait(lambda: len(desk.taken) == 1)
