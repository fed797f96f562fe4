"""Resolvers that lie, are silent or refuse, strangers at port 15053, and clients that ask too much of it.

The pod and its daemon are real. What is refused is counted, nobody else waits for it, and when all is over
the daemon holds what it held before.
"""

import itertools
import os
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from tests.support import captured, gauge, resolver
from tests.support.books import Books, Ledger
from tests.support.captured import FIRST, NOBODY, OTHER, SECOND, WEB4, Captured, framed, question, unframed
from tests.support.netns import Namespace, ip
from tests.support.nodes import wait_for
from tests.support.resolver import Behaviour, Resolver, first, forgery, honest, silent
from tests.support.wire import UDP, ip4, send_raw, udp
from zproxy.config import Deadlines, Limits
from zproxy.model import ports
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root

NAME = "www.example.com"
IPS = ["203.0.113.80", "203.0.113.81"]
LARGE = "large.example.com"
SILENT = "silent.example.com"
FULL = "web.demo.svc.cluster.local"
AT_ONCE_S = 1.0
LATE_S = 2.0
"""Deadlines are looked at once a second."""
MEMORY_KB = 8 << 10
"""By how much all of this may make the daemon grow."""
SO_RCVBUFFORCE = 33
A_UDP, A_TCP = ("A", "udp"), ("A", "tcp")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    with captured.captured(tmp_path_factory.mktemp("dns")) as made:
        assert made.dig(NAME).data("A") == IPS
        made.ledger()
        before = gauge.held(made.pid)
        yield made
        after = gauge.held(made.pid)
        assert after.descriptors == before.descriptors
        assert after.anonymous_kb - before.anonymous_kb < MEMORY_KB


@pytest.fixture
def world(scene: Captured) -> Iterator[Captured]:
    """The scene; afterwards its resolvers are honest, it works, and the daemon holds nothing more."""
    before = descriptors(scene)
    yield scene
    for each in scene.resolvers.values():
        each.behaviours.clear()
        each.give_up()
    wait_for(lambda: descriptors(scene) <= before, "all descriptors are closed")
    assert addresses(scene.ask(question(NAME))) == IPS
    assert addresses(scene.ask(question(FULL))) == [WEB4]


def descriptors(world: Captured) -> int:
    return len(os.listdir(f"/proc/{world.pid}/fd"))


@pytest.fixture
def asked(world: Captured) -> Resolver:
    return world.resolvers[FIRST]


def addresses(wire: bytes) -> list[str]:
    """Return the addresses in an answer, sorted."""
    message = dns.message.from_wire(wire)
    return sorted(record.address for rrset in message.answer for record in rrset if rrset.rdtype == 1)


def code(wire: bytes) -> str:
    return dns.rcode.to_text(dns.message.from_wire(wire).rcode())


def over_tcp(world: Captured, wire: bytes, to: str = FIRST) -> bytes:
    with world.dial(to) as app:
        app.sendall(framed(wire))
        (answer,) = unframed(app, 1)
        return answer


def went_wrong(protocol: str = "udp", failures: int = 0, **dropped: int) -> Books:
    """Return what one query costs that was forwarded."""
    key = Counter({("A", protocol): 1})
    failed = Counter({("A", protocol): failures}) if failures else Counter()
    captures = 1 if protocol == "udp" else 0
    return Books(captures, key, key, failed, 0 if failures else 1, Counter(dropped))


# --- resolvers that lie ----------------------------------------------------------------------------------

LIES: Mapping[str, Behaviour] = {
    "wrong id": resolver.wrong_id,
    "wrong question": resolver.wrong_question,
    "wrong type": resolver.wrong_type,
    "the query itself": resolver.echo,
    "less than a header": resolver.short,
    "no DNS at all": resolver.noise,
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_answer_to_the_query_is_as_if_it_never_came(
    world: Captured, asked: Resolver, lie: str
) -> None:
    asked.behaviours[NAME] = first(LIES[lie], honest)
    ledger = world.ledger()
    assert addresses(world.ask(question(NAME))) == IPS
    ledger.shows(went_wrong(spoofed=1))


def test_a_flood_of_wrong_ids_does_not_hide_the_answer(world: Captured, asked: Resolver) -> None:
    asked.behaviours[NAME] = first(*[resolver.wrong_id] * 100, honest)
    ledger = world.ledger()
    assert addresses(world.ask(question(NAME))) == IPS
    ledger.shows(went_wrong(spoofed=100))


@pytest.mark.parametrize("lie", [*LIES.values(), resolver.reset, resolver.half], ids=lambda lie: lie.__name__)
def test_a_lie_over_tcp_ends_it(world: Captured, asked: Resolver, lie: Behaviour) -> None:
    """Only the resolver itself can say something on its connection, so there is nothing to wait for."""
    asked.behaviours[NAME] = lie
    ledger = world.ledger()
    began = time.monotonic()
    assert code(over_tcp(world, question(NAME))) == "SERVFAIL"
    assert time.monotonic() - began < AT_ONCE_S
    ledger.shows(went_wrong("tcp", failures=1))


def test_of_two_answers_the_first_counts(world: Captured, asked: Resolver) -> None:
    asked.behaviours[NAME] = resolver.twice
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


# --- resolvers that do not answer ------------------------------------------------------------------------


def test_a_silent_resolver_is_a_failure_after_four_seconds_and_holds_up_nobody(
    world: Captured, asked: Resolver
) -> None:
    lying, stalling = "lying.example.com", "stalling.example.com"
    asked.behaviours |= {SILENT: silent, lying: resolver.wrong_id, stalling: silent}
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
    ("behaviour", "expected"), [(resolver.refusing, "REFUSED"), (resolver.confused, "FORMERR")]
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
    asked.behaviours[NAME] = resolver.cut
    answer = dns.message.from_wire(world.ask(question(NAME)))
    assert (answer.answer, bool(answer.flags & dns.flags.TC)) == ([], True)
    assert addresses(over_tcp(world, question(NAME))) == IPS
    assert [each.protocol for each in asked.asked()[-2:]] == ["udp", "tcp"]


def test_an_answer_that_the_client_cannot_take_is_cut_for_it(world: Captured, asked: Resolver) -> None:
    asked.behaviours[LARGE] = resolver.whole
    wire = world.ask(question(LARGE, "TXT"))
    answer = dns.message.from_wire(wire)
    assert (len(wire) <= 512, answer.answer, bool(answer.flags & dns.flags.TC)) == (True, [], True)
    assert len(asked.sent[-1]) > resolver.LARGE


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


# --- strangers -------------------------------------------------------------------------------------------


def is_counted(ledger: Ledger, **dropped: int) -> None:
    ledger.shows(Books(0, Counter(), Counter(), Counter(), 0, Counter(dropped)))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("who", ["stranger", "machine"])
def test_a_datagram_of_somebody_else_is_not_answered(
    world: Captured, who: str, family: socket.AddressFamily
) -> None:
    host: Namespace = getattr(world, who)
    to = world.client.ip6 if family == socket.AF_INET6 else world.client.ip4
    ledger = world.ledger()
    with host.socket(family, socket.SOCK_DGRAM) as app:
        for name in (FULL, NAME):
            app.sendto(question(name), (to, ports.DNS))
        is_counted(ledger, stranger=2)
        assert select.select([app], [], [], 0)[0] == []
    assert world.whats() == {}


def test_nor_is_one_that_was_sent_to_an_alias(world: Captured) -> None:
    """Whoever is on the pod's link can route there; the alias is as local as the pod's address."""
    world.ask(question(FULL))
    ip("-n", world.stranger.name, "route", "add", "240.15.53.0/24", "via", world.client.ip4)
    ledger = world.ledger()
    with world.stranger.socket(kind=socket.SOCK_DGRAM) as app:
        for slot in range(1, 65):
            app.sendto(question(NAME), (f"240.15.53.{slot}", ports.DNS))
        is_counted(ledger, stranger=64)
        assert select.select([app], [], [], 0)[0] == []
    ip("-n", world.stranger.name, "route", "delete", "240.15.53.0/24")
    assert world.whats() == {}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_of_somebody_else_is_closed(world: Captured, family: socket.AddressFamily) -> None:
    to = world.client.ip6 if family == socket.AF_INET6 else world.client.ip4
    ledger = world.ledger()
    assert is_closed(world.stranger.socket(family), to, ports.DNS)
    is_counted(ledger, stranger=1)
    assert world.whats() == {}


def is_closed(app: socket.socket, to: str, port: int) -> bool:
    """Tell whether a connection is accepted and then ended without an answer."""
    with app:
        try:
            app.connect((to, port))
            app.sendall(framed(question(FULL)))
            return app.recv(512) == b""
        except ConnectionRefusedError:
            return False
        except ConnectionError:
            return True


# --- clients ---------------------------------------------------------------------------------------------


def test_clients_over_tcp_that_say_too_little_are_closed_and_others_are_refused_meanwhile(
    world: Captured,
) -> None:
    limit, idle_s = Limits().dns_clients, Deadlines().dns_idle_s
    ledger = world.ledger()
    with ExitStack() as stack:
        began = time.monotonic()
        clients = [stack.enter_context(world.dial()) for _ in range(limit)]
        query = framed(question(FULL))
        for sock, said in zip(clients, (b"", query[:1], query[:2], query[:-1]), strict=False):
            sock.sendall(said)
        assert is_closed(world.client.socket(), FIRST, 53)
        assert ledger.grown().dropped == Counter(full=1)
        assert addresses(world.ask(question(FULL))) == [WEB4]
        trickling = clients[-1]
        trickling.sendall(b"\xff\xff")
        for sock in clients[:-1]:
            sock.settimeout(idle_s + LATE_S)
            assert sock.recv(1) == b""
            assert idle_s - 0.1 <= time.monotonic() - began < idle_s + LATE_S
            assert trickle(trickling) or time.monotonic() - began > idle_s - 0.1
        wait_for(lambda: not trickle(trickling), "a byte now and then is no query", LATE_S)
    assert addresses(over_tcp(world, question(FULL))) == [WEB4]


def trickle(sock: socket.socket) -> bool:
    """Send one more byte; tell whether the connection is still there."""
    try:
        sock.sendall(b"x")
        return not select.select([sock], [], [], 0)[0]
    except ConnectionError:
        return False


def test_a_slow_answer_does_not_hold_up_those_behind_it(world: Captured, asked: Resolver) -> None:
    asked.behaviours[SILENT] = silent
    with world.dial() as app:
        names = (SILENT, FULL, NAME, SILENT, FULL)
        app.sendall(framed(*(question(name, identifier=at) for at, name in enumerate(names))))
        answers = {int.from_bytes(wire[:2], "big"): addresses(wire) for wire in unframed(app, 3)}
    assert answers == {1: [WEB4], 2: IPS, 4: [WEB4]}


def test_more_queries_than_may_wait_are_answered_one_after_the_other(
    world: Captured, asked: Resolver
) -> None:
    count = 4 * Limits().dns_pipelined
    names = [FULL if at % 2 else NAME for at in range(count)]
    with world.dial() as app:
        app.sendall(framed(*(question(name, identifier=at) for at, name in enumerate(names))))
        app.shutdown(socket.SHUT_WR)
        answers = {int.from_bytes(wire[:2], "big"): addresses(wire) for wire in unframed(app, count)}
        assert app.recv(1) == b""
    assert answers == {at: [WEB4] if name == FULL else IPS for at, name in enumerate(names)}


def test_a_query_may_come_byte_by_byte(world: Captured) -> None:
    with world.dial() as app:
        app.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(question(FULL)):
            app.sendall(bytes((byte,)))
        assert addresses(unframed(app, 1)[0]) == [WEB4]


def test_a_client_that_goes_away_takes_nothing_with_it(world: Captured, asked: Resolver) -> None:
    asked.behaviours[SILENT] = silent
    for _ in range(20):
        with world.dial() as app:
            app.sendall(framed(question(SILENT), question(FULL)))
        with world.query(question(SILENT)):
            pass
    assert addresses(over_tcp(world, question(NAME))) == IPS


def test_a_zone_transfer_is_refused_and_not_passed_on(world: Captured) -> None:
    world.whats()
    for answer in (
        world.ask(question("example.com", "AXFR")),
        over_tcp(world, question("example.com", "AXFR")),
    ):
        assert code(answer) == "REFUSED"
    assert world.whats() == {}


MALFORMED: Mapping[str, tuple[bytes, str]] = {
    "an answer": (bytes.fromhex("0007 8180 0001 0000 0000 0000 00 0001 0001"), "FORMERR"),
    "two questions": (bytes.fromhex("0007 0100 0002 0000 0000 0000 00 0001 0001 00 0001 0001"), "FORMERR"),
    "no question": (bytes.fromhex("0007 0100 0000 0000 0000 0000"), "FORMERR"),
    "a name that points at itself": (
        bytes.fromhex("0007 0100 0001 0000 0000 0000 c00c 0001 0001"),
        "FORMERR",
    ),
    "a name that does not end": (bytes.fromhex("0007 0100 0001 0000 0000 0000 3f61"), "FORMERR"),
    "EDNS of version 7": (
        bytes.fromhex("0007 0100 0001 0000 0000 0001 00 0001 0001 00 0029 1000 00070000 0000"),
        "BADVERS",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_what_is_no_query_is_told_so(world: Captured, case: str, protocol: str) -> None:
    wire, expected = MALFORMED[case]
    ledger = world.ledger()
    answer = world.ask(wire) if protocol == "udp" else over_tcp(world, wire)
    assert (answer[:2], code(answer)) == (wire[:2], expected)
    assert ledger.grown().dropped == Counter(malformed=1)
    assert world.whats() == {}


def test_less_than_a_header_is_not_answered(world: Captured) -> None:
    ledger = world.ledger()
    with world.query(b"") as app:
        for size in range(12):
            app.send(bytes(size))
        app.send(question(FULL))
        assert addresses(app.recv(512)) == [WEB4]
    assert ledger.grown().dropped == Counter(malformed=13)
    with world.dial() as app:
        app.sendall(framed(bytes(11)))
        assert app.recv(512) == b""


def test_noise_does_no_harm(world: Captured) -> None:
    noise = random.Random(1035)
    queries = [question(name, kind) for name in (FULL, NAME) for kind in ("A", "SRV", "TYPE999")]
    with world.query(question(FULL), OTHER) as app:
        app.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        for _ in range(1000):
            wire = bytearray(noise.choice(queries))
            for _ in range(noise.randrange(1, 4)):
                wire[noise.randrange(len(wire))] = noise.randrange(256)
            app.send(wire[: noise.choice((len(wire), noise.randrange(len(wire) + 1)))])
    assert world.known_resolvers() >= {Endpoint(OTHER, 53)}
