"""What the mesh does not know goes to the very resolver that the app addressed, and comes back unchanged.

With the resolvers that apps come with, inside a pod whose DNS is captured, as in test_dns_clients.py.
"""

import socket
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.support import captured
from tests.support.books import Books, What
from tests.support.captured import FIRST, OTHER, SEARCH, SECOND, SIX, Captured, framed, question, unframed
from tests.support.resolver import LARGE, TTL_S

pytestmark = pytest.mark.root

FULL = "web.demo.svc.cluster.local"
A, AAAA = ("A", "udp"), ("AAAA", "udp")
BOTH = {A: 1, AAAA: 1}
EXTERNAL = "www.example.com"
EXTERNAL_IPS = {"203.0.113.80", "203.0.113.81", "2001:db8::80"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    with captured.captured(tmp_path_factory.mktemp("dns")) as made:
        yield made


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> str:
    return captured.musl_stub(tmp_path_factory.mktemp("musl"))


def searched(name: str) -> list[What]:
    """Return what getaddrinfo() asks that goes through the search list until the name itself is found."""
    names = [*(f"{name}.{suffix}" for suffix in SEARCH), name]
    return [(each, kind, "udp") for each in names for kind in ("A", "AAAA")]


def test_glibc_gets_a_name_outside_from_the_first_nameserver(world: Captured) -> None:
    ledger = world.ledger()
    assert world.glibc(EXTERNAL) == EXTERNAL_IPS
    ledger.agrees(4, {A: 4, AAAA: 4}, {FIRST: searched(EXTERNAL)})


def test_musl_asks_both_nameservers_for_a_name_outside(world: Captured, stub: str) -> None:
    ledger = world.ledger()
    assert world.musl(stub, EXTERNAL) == EXTERNAL_IPS
    asked = searched(EXTERNAL)
    ledger.agrees(16, {A: 8, AAAA: 8}, {FIRST: asked, SECOND: asked})


def test_a_name_with_its_final_dot_is_not_searched_for(world: Captured, stub: str) -> None:
    asked = searched(EXTERNAL)[-2:]
    ledger = world.ledger()
    assert world.glibc(f"{EXTERNAL}.") == EXTERNAL_IPS
    ledger.agrees(1, BOTH, {FIRST: asked})
    assert world.musl(stub, f"{EXTERNAL}.") == EXTERNAL_IPS
    assert world.whats() == {FIRST: asked, SECOND: asked}


def test_a_name_that_nobody_has_is_denied_by_the_resolver(world: Captured, stub: str) -> None:
    ledger = world.ledger()
    assert world.glibc("nobody.example.com.") == set()
    ledger.agrees(1, BOTH, {FIRST: [("nobody.example.com", kind, "udp") for kind in ("A", "AAAA")]})
    assert "Name does not resolve" in world.run(stub, "nobody.example.com.").stdout
    assert "NXDOMAIN" in world.run("busybox", "nslookup", "nobody.example.com.").stdout


@pytest.mark.parametrize("resolver", [OTHER, SIX])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_the_resolver_that_was_addressed_is_asked_from_the_pod_itself(
    world: Captured, resolver: str, protocol: str
) -> None:
    world.whats()
    answer = world.dig(f"@{resolver}", EXTERNAL, *(["+tcp"] if protocol == "tcp" else []))
    assert answer.data("A") == ["203.0.113.80", "203.0.113.81"]
    assert all(f" {TTL_S} IN " in line for line in answer.records)
    assert (answer.source, answer.protocol, "aa" in answer.flags) == (resolver, protocol, False)
    (asked,) = world.resolvers[resolver].asked()
    assert asked.what == (EXTERNAL, "A", protocol)
    assert asked.source.ip in world.client.ips
    assert world.whats() == {}


def test_busybox_asks_whom_it_is_told_to(world: Captured) -> None:
    ledger = world.ledger()
    assert world.busybox(EXTERNAL, OTHER) == EXTERNAL_IPS
    ledger.agrees(1, BOTH, {OTHER: searched(EXTERNAL)[-2:]})


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("WwW.eXample.com", "A"),
        ("example.com", "MX"),
        ("text.example.com", "TXT"),
        ("www.example.com", "TXT"),
        ("nobody.example.com", "A"),
        ("example.com", "TYPE65280"),
    ],
)
def test_query_and_answer_are_passed_on_byte_by_byte(
    world: Captured, protocol: str, name: str, kind: str
) -> None:
    """But for the id, under which the resolver is asked."""
    made = dns.message.make_query(name, kind, use_edns=0, payload=1410, want_dnssec=True)
    made.flags |= dns.flags.CD
    wire = made.to_wire()
    world.whats()
    if protocol == "tcp":
        with world.dial(OTHER) as app:
            app.sendall(framed(wire))
            (answer,) = unframed(app, 1)
    else:
        answer = world.ask(wire, OTHER)
    resolver = world.resolvers[OTHER]
    (asked,) = resolver.asked()
    assert asked.wire[2:] == wire[2:]
    assert answer == wire[:2] + resolver.sent[-1][2:]


def test_a_type_that_the_mesh_has_not_is_empty_where_the_resolver_does_not_know_the_name(
    world: Captured,
) -> None:
    """NXDOMAIN would be a lie about a name that has addresses, and is kept as one by those who cache."""
    ledger = world.ledger()
    answer = world.dig(FULL, "MX")
    assert (answer.status, answer.records) == ("NOERROR", [])
    ledger.agrees(1, {("MX", "udp"): 1}, {FIRST: [(FULL, "MX", "udp")]})


def test_a_pod_that_did_not_ask_for_it_asks_its_resolver_itself(world: Captured) -> None:
    ledger = world.ledger()
    with world.web.socket(kind=socket.SOCK_DGRAM) as app:
        app.connect((OTHER, 53))
        app.send(question(FULL))
        assert dns.message.from_wire(app.recv(512)).rcode() == dns.rcode.NXDOMAIN
    (asked,) = world.resolvers[OTHER].asked()
    assert (asked.what, asked.source.ip) == ((FULL, "A", "udp"), world.web.ip4)
    assert ledger.grown() == Books()


def test_an_address_that_the_mesh_has_not_is_for_the_resolver_to_name(world: Captured) -> None:
    ledger = world.ledger()
    assert world.run("getent", "hosts", "203.0.113.80").stdout.split() == ["203.0.113.80", EXTERNAL]
    asked = ("80.113.0.203.in-addr.arpa", "PTR", "udp")
    ledger.agrees(1, {("PTR", "udp"): 1}, {FIRST: [asked]})


def test_a_large_answer_of_a_resolver_is_fetched_by_the_client_s_own_protocol(world: Captured) -> None:
    ledger = world.ledger()
    whole = world.dig("large.example.com", "TXT", "+noedns")
    assert (whole.protocol, sum(map(len, whole.data("TXT"))) >= LARGE) == ("tcp", True)
    asked = [("large.example.com", "TXT", protocol) for protocol in ("udp", "tcp")]
    ledger.agrees(1, {("TXT", "udp"): 1, ("TXT", "tcp"): 1}, {FIRST: asked})
