import dns.message
import dns.rcode
import pytest

from tests.support.dns_bench import RESOLVER, DnsBench
from tests.support.names import CLIENT
from zproxy.config import Limits
from zproxy.dns.forwarder import Forwarder
from zproxy.dns.message import parse
from zproxy.model.addr import Endpoint
from zproxy.observe.dns import DnsCounts, dns_labels

LABELS = dns_labels("A", "udp", CLIENT)
SECOND = Endpoint("192.0.2.54", 53)
QUERY = parse(dns.message.make_query("a.test", "A", use_edns=0).to_wire())


class Room:
    """A forwarder and what it answered."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - immutable
        self.bench = DnsBench(limits=limits)
        self.counts = DnsCounts()
        self.forwarder = Forwarder(self.bench.worker, self.bench.sockets, self.counts)  # type: ignore[arg-type] # a stand-in
        self.heard: list[dns.message.Message] = []

    def forward(self, *servers: Endpoint) -> None:
        self.forwarder.forward(QUERY, servers, LABELS, self.hear, is_stream=False)

    def hear(self, reply: bytes) -> None:
        self.heard.append(dns.message.from_wire(reply))


@pytest.fixture
def room():  # type: ignore[no-untyped-def]
    made = Room()
    yield made
    made.bench.close()


def test_the_next_is_asked_when_one_does_not_answer(room: Room) -> None:
    second = room.bench.upstream(SECOND)
    room.forward(RESOLVER, SECOND)
    room.bench.wait(lambda: room.counts.upstream_failures == {LABELS: 1})
    wire, sender = second.recvfrom(4096)
    second.sendto(dns.message.make_response(dns.message.from_wire(wire)).to_wire(), sender)
    room.bench.wait(lambda: len(room.heard) == 1)
    assert room.heard[0].rcode() == dns.rcode.NOERROR
    assert room.counts.upstream_requests == {LABELS: 2}
    assert len(room.forwarder) == 0


def test_the_last_trouble_is_what_the_client_hears(room: Room) -> None:
    room.bench.upstream(SECOND)
    room.forward(RESOLVER, SECOND)
    room.bench.wait(lambda: room.counts.upstream_requests == {LABELS: 2})
    room.bench.advance(4.1)
    (reply,) = room.heard
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert "192.0.2.54:53" in str(reply.options[0])
    assert room.counts.upstream_failures == {LABELS: 2}


def test_no_descriptor_left_is_a_trouble(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def dial(to: Endpoint) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(room.bench.sockets, "dial_datagrams", dial)
    room.forward(RESOLVER)
    assert "Too many open files" in str(room.heard[0].options[0])
    assert room.counts.upstream_failures == {LABELS: 1}


def test_there_is_a_bound() -> None:
    room = Room(Limits(dns_queries=2))
    room.bench.upstream()
    for _ in range(3):
        room.forward(RESOLVER)
    assert len(room.forwarder) == 2
    assert [each.rcode() for each in room.heard] == [dns.rcode.SERVFAIL]
    assert room.counts.dropped == {"full": 1}
    room.forwarder.close()
    assert len(room.forwarder) == 0
    assert len(room.bench.worker.asking) == 0
    room.bench.close()
