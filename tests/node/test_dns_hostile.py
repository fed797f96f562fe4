"""Resolvers that lie, are silent, refuse, or break off: what the pod gets, and what is counted."""

import itertools
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import dns.flags
import dns.message
import dns.rrset
import pytest

from tests.support import behaviour
from tests.support.behaviour import Behaviour, first, forgery, honest, silent
from tests.support.books import Books
from tests.support.captured import FIRST, NOBODY, SECOND, WEB4, Captured, framed, question, unframed
from tests.support.intact import (
    AT_ONCE_S,
    FULL,
    IPS,
    LATE_S,
    NAME,
    SILENT,
    SO_RCVBUFFORCE,
    addresses,
    code,
    descriptors,
    healed,
    intact,
    over_tcp,
)
from tests.support.nodes import wait_for
from tests.support.resolver import LARGE, Resolver
from tests.support.wire import UDP, ip4, send_raw, udp
from zproxy.config import Deadlines, Limits

pytestmark = pytest.mark.root

A_UDP, A_TCP = ("A", "udp"), ("A", "tcp")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    with intact(tmp_path_factory.mktemp("dns")) as made:
        yield made


@pytest.fixture
def world(scene: Captured) -> Iterator[Captured]:
    with healed(scene):
        yield scene


@pytest.fixture
def asked(world: Captured) -> Resolver:
    return world.resolvers[FIRST]


def went_wrong(protocol: str = "udp", failures: int = 0, **dropped: int) -> Books:
    """Return what one query costs that was forwarded."""
    key = Counter({("A", protocol): 1})
    failed = Counter({("A", protocol): failures}) if failures else Counter()
    captures = 1 if protocol == "udp" else 0
    return Books(captures, key, key, failed, 0 if failures else 1, Counter(dropped))


# --- resolvers that lie ----------------------------------------------------------------------------------

LIES: dict[str, Behaviour] = {
    "wrong id": behaviour.wrong_id,
    "wrong question": behaviour.wrong_question,
    "wrong type": behaviour.wrong_type,
    "the query itself": behaviour.echo,
    "less than a header": behaviour.short,
    "no DNS at all": behaviour.noise,
}
BREAKS: dict[str, Behaviour] = {"a reset": behaviour.reset, "half an answer": behaviour.half}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_answer_to_the_query_is_as_if_it_never_came(
    world: Captured, asked: Resolver, lie: str
) -> None:
    asked.behaviours[NAME] = first(LIES[lie], honest)
    ledger = world.ledger()
    assert addresses(world.ask(question(NAME))) == IPS
    ledger.shows(went_wrong(spoofed=1))


def test_a_flood_of_wrong_ids_does_not_hide_the_answer(world: Captured, asked: Resolver) -> None:
    asked.behaviours[NAME] = first(*[behaviour.wrong_id] * 100, honest)
    ledger = world.ledger()
    assert addresses(world.ask(question(NAME))) == IPS
    ledger.shows(went_wrong(spoofed=100))


@pytest.mark.parametrize("lie", [*LIES, *BREAKS])
def test_a_lie_over_tcp_ends_it(world: Captured, asked: Resolver, lie: str) -> None:
    """Only the resolver itself can say something on its connection, so there is nothing to wait for."""
    asked.behaviours[NAME] = (LIES | BREAKS)[lie]
    ledger = world.ledger()
    began = time.monotonic()
    assert code(over_tcp(world, question(NAME))) == "SERVFAIL"
    assert time.monotonic() - began < AT_ONCE_S
    ledger.shows(went_wrong("tcp", failures=1))


def test_of_two_answers_the_first_counts(world: Captured, asked: Resolver) -> None:
    asked.behaviours[NAME] = behaviour.twice
    with world.query(question(NAME, identifier=1)) as app:
        assert addresses(app.recv(512)) == IPS
        app.send(question(FULL, identifier=2))
        assert addresses(app.recv(512)) == [WEB4]


def test_nobody_but_the_resolver_can_answer(world: Captured, asked: Resolver) -> None:
    """All that a forger may know is right here: id, question, and the port that the query came from."""
    asked.behaviours[NAME] = silent
    ledger = world.ledger()
    with world.query(question(NAME)) as app, ExitStack() as stack:
        query = asked.await_asked(NAME)
        forged = forgery(query.wire)
        for host, source in ((world.stranger, (world.stranger.ip4, 53)), (world.machine, (FIRST, 5353))):
            sock = stack.enter_context(host.socket(kind=socket.SOCK_DGRAM))
            sock.bind(source)
            sock.sendto(forged, tuple(query.source))
        world.resolvers[SECOND].send_to(forged, query.source)
        asked.send_to(answer_of(asked, query.wire), query.source)
        assert addresses(app.recv(512)) == IPS
    ledger.shows(went_wrong())


def test_who_takes_the_resolver_s_address_must_guess_the_id(world: Captured, asked: Resolver) -> None:
    asked.behaviours[NAME] = silent
    ledger = world.ledger()
    with world.query(question(NAME)) as app:
        query = asked.await_asked(NAME)
        number, forged = int.from_bytes(query.wire[:2], "big"), forgery(query.wire)
        for step in range(1, 51):
            guess = (number + step & 0xFFFF).to_bytes(2, "big") + forged[2:]
            packet = ip4(FIRST, query.source.ip, UDP, udp(53, query.source.port, guess))
            send_raw(world.stranger, packet)
        asked.send_to(answer_of(asked, query.wire), query.source)
        assert addresses(app.recv(512)) == IPS
    ledger.shows(went_wrong(spoofed=50))


def test_ids_and_ports_of_queries_cannot_be_told_in_advance(world: Captured, asked: Resolver) -> None:
    asked.asked()
    for _ in range(20):
        world.ask(question(NAME, identifier=7))
    got = asked.asked()
    assert len({query.source.port for query in got}) > 10
    assert len({query.wire[:2] for query in got}) > 10
    steps = {later.source.port - sooner.source.port for sooner, later in itertools.pairwise(got)}
    assert len(steps) > 10


def answer_of(asked: Resolver, wire: bytes) -> bytes:
    """Return the true answer to a query for NAME."""
    answer = dns.message.make_response(dns.message.from_wire(wire))
    answer.answer.append(dns.rrset.from_text(f"{NAME}.", 5, "IN", "A", *asked.zone[NAME, "A"]))
    return answer.to_wire()


def test_a_silent_resolver_is_a_failure_after_four_seconds_and_holds_up_nobody(
    world: Captured, asked: Resolver
) -> None:
    lying, stalling = "lying.example.com", "stalling.example.com"
    asked.behaviours |= {SILENT: silent, lying: behaviour.wrong_id, stalling: silent}
    ledger = world.ledger()
    with (
        world.query(question(SILENT)) as mute,
        world.query(question(lying)) as liar,
        world.dial() as staller,
    ):
        began = time.monotonic()
        staller.sendall(framed(question(stalling)))
        late = asked.await_asked(SILENT)
        while time.monotonic() - began < Deadlines().dns_s / 2:
            for name, expected in ((FULL, [WEB4]), (NAME, IPS)):
                asking = time.monotonic()
                assert addresses(world.ask(question(name))) == expected
                assert time.monotonic() - asking < AT_ONCE_S
        mute.settimeout(10)
        for answer in (mute.recv(512), liar.recv(512), unframed(staller, 1)[0]):
            assert code(answer) == "SERVFAIL"
            assert 0 <= time.monotonic() - began - Deadlines().dns_s < LATE_S
        asked.send_to(forgery(late.wire), late.source)
        mute.send(question(FULL))
        assert addresses(mute.recv(512)) == [WEB4]
    grown = ledger.grown()
    assert (grown.failures, grown.dropped) == (Counter({A_UDP: 2, A_TCP: 1}), Counter(spoofed=1))
    assert grown.timed == grown.upstream.total() - 3


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_resolver_that_is_not_there_is_a_failure_at_once(world: Captured, protocol: str) -> None:
    ledger = world.ledger()
    began = time.monotonic()
    answer = world.dig(f"@{NOBODY}", NAME, *(["+tcp"] if protocol == "tcp" else []))
    assert time.monotonic() - began < AT_ONCE_S
    assert (answer.status, answer.source, answer.records) == ("SERVFAIL", NOBODY, [])
    ledger.shows(went_wrong(protocol, failures=1))


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("behaviour", "expected"), [(behaviour.refusing, "REFUSED"), (behaviour.confused, "FORMERR")]
)
def test_a_refusal_is_an_answer(
    world: Captured, asked: Resolver, protocol: str, behaviour: Behaviour, expected: str
) -> None:
    asked.behaviours[NAME] = behaviour
    ledger = world.ledger()
    answer = world.ask(question(NAME)) if protocol == "udp" else over_tcp(world, question(NAME))
    assert code(answer) == expected
    ledger.shows(went_wrong(protocol))


def test_a_cut_answer_is_for_the_client_to_ask_for_again(world: Captured, asked: Resolver) -> None:
    asked.behaviours[NAME] = behaviour.cut
    answer = dns.message.from_wire(world.ask(question(NAME)))
    assert (answer.answer, bool(answer.flags & dns.flags.TC)) == ([], True)
    assert addresses(over_tcp(world, question(NAME))) == IPS
    assert [each.protocol for each in asked.asked()[-2:]] == ["udp", "tcp"]


def test_an_answer_that_the_client_cannot_take_is_cut_for_it(world: Captured, asked: Resolver) -> None:
    asked.behaviours["large.example.com"] = behaviour.whole
    wire = world.ask(question("large.example.com", "TXT"))
    answer = dns.message.from_wire(wire)
    assert (len(wire) <= 512, answer.answer, bool(answer.flags & dns.flags.TC)) == (True, [], True)
    assert len(asked.sent[-1]) > LARGE


def test_no_more_queries_wait_than_the_limit_and_the_mesh_is_answered_meanwhile(
    world: Captured, asked: Resolver
) -> None:
    asked.behaviours[SILENT] = silent
    count, limit = 1000, Limits().dns_queries
    before = descriptors(world)
    ledger = world.ledger()
    with world.query(question(SILENT, identifier=0)) as app:
        app.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        began = time.monotonic()
        for number in range(1, count):
            app.send(question(SILENT, identifier=number))
        wait_for(lambda: ledger.grown().dropped["full"] > 0, "those beyond the limit are refused")
        assert limit <= descriptors(world) - before <= limit + 8
        asking = time.monotonic()
        assert addresses(world.ask(question(FULL))) == [WEB4]
        assert code(world.ask(question(NAME))) == "SERVFAIL"
        assert time.monotonic() - asking < AT_ONCE_S
        app.settimeout(LATE_S)
        identifiers = answered(app, until=began + Deadlines().dns_s + LATE_S)
    assert len(set(identifiers)) == len(identifiers)
    grown = ledger.grown()
    taken = grown.requests[A_UDP] - 2
    assert limit * 2 < taken <= count
    assert len(identifiers) == taken
    assert grown.upstream == grown.failures == Counter({A_UDP: limit})
    assert grown.dropped == Counter(full=taken - limit + 1)


def answered(app: socket.socket, until: float) -> list[bytes]:
    """Return the ids under which failures came."""
    found = []
    while (left := until - time.monotonic()) > 0 and select.select([app], [], [], left)[0]:
        wire = app.recv(512)
        assert code(wire) == "SERVFAIL"
        found.append(wire[:2])
    return found
