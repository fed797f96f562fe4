"""Strangers at port 15053 of a pod, and clients in the pod that say too little, too much or nonsense."""

import random
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from tests.support.behaviour import silent
from tests.support.books import Books, Ledger
from tests.support.captured import FIRST, OTHER, WEB4, Captured, framed, question, unframed
from tests.support.intact import (
    FULL,
    IPS,
    LATE_S,
    NAME,
    SILENT,
    SO_RCVBUFFORCE,
    addresses,
    code,
    healed,
    intact,
    over_tcp,
)
from tests.support.netns import Namespace, ip
from tests.support.nodes import wait_for
from tests.support.resolver import Resolver
from tests.support.wire import UDP, ip4, ip6, send_raw, udp
from zproxy.config import Deadlines, Limits
from zproxy.model import ports
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root


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


def test_nor_is_one_that_claims_to_be_of_the_pod_itself(world: Captured) -> None:
    """IPv4 drops it as a martian, IPv6 does not; 256 of these would be all that may wait for resolvers."""
    own4, own6 = world.client.ips
    ledger = world.ledger()
    with world.stranger.socket(socket.AF_INET6, socket.SOCK_DGRAM) as app:
        app.sendto(question(FULL), (own6, ports.DNS))
    is_counted(ledger, stranger=1)  # the neighbour is known now, whom a forged source alone does not find
    with world.client.socket(socket.AF_INET6, socket.SOCK_DGRAM) as victim:
        victim.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        victim.bind(("::", 0))
        port = victim.getsockname()[1]
        for name in (FULL, NAME):
            forged = udp(port, ports.DNS, question(name))
            send_raw(world.stranger, ip4(own4, own4, UDP, forged))
            send_raw(world.stranger, ip6(own6, own6, UDP, forged))
        is_counted(ledger, stranger=3)
        assert select.select([victim], [], [], 0)[0] == []
    assert world.whats() == {}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_of_somebody_else_is_closed(world: Captured, family: socket.AddressFamily) -> None:
    """It does not come as far as the DNS server: steering hands it to the plaintext listener."""
    to = world.client.ip6 if family == socket.AF_INET6 else world.client.ip4
    ledger = world.ledger()
    refused = f"attempted recursive call to ourselves: {Endpoint(to, ports.DNS)} "
    before = len(world.node.lines(refused))
    assert is_closed(world.stranger.socket(family), to, ports.DNS)
    world.node.access(refused, count=before + 1)
    is_counted(ledger)
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
    assert ledger.grown().dropped == Counter(stranger=2, malformed=11)
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
