"""The resolvers that apps come with, inside a pod whose DNS is captured: what they get, and who was asked.

dig is BIND's, getent is glibc's, `stub` is musl's, and busybox has its own. Each test compares what a client
printed with what the resolvers were asked, and with what the kernel and the daemon counted.
"""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import pytest

from tests.support import captured
from tests.support.books import Books, What
from tests.support.captured import (
    API4,
    BIG,
    DB,
    FIRST,
    OLD4,
    OTHER,
    SEARCH,
    SECOND,
    SIX,
    STORE4,
    TEXT,
    TRACE,
    WEB4,
    WEB6,
    WILD4,
    Captured,
    framed,
    question,
    serving,
    unframed,
)
from tests.support.resolver import LARGE, TTL_S
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root

FULL = "web.demo.svc.cluster.local"
FORMS = ("web", "web.demo", "web.demo.svc", FULL, f"{FULL}.")
DB_FULL = "db.demo.svc.cluster.local"
A, AAAA = ("A", "udp"), ("AAAA", "udp")
BOTH = {A: 1, AAAA: 1}
"""What getaddrinfo() asks for, once."""
EXTERNAL = "www.example.com"
EXTERNAL_IPS = {"203.0.113.80", "203.0.113.81", "2001:db8::80"}
STUB = Path(captured.__file__).with_name("stub.c")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    with captured.captured(tmp_path_factory.mktemp("dns")) as made, serving(made):
        yield made


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that looks names up by musl's getaddrinfo()."""
    program = str(tmp_path_factory.mktemp("musl") / "stub")
    command = ["musl-gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, str(STUB)]
    try:
        subprocess.run(command, check=True, timeout=30)
    except FileNotFoundError:
        pytest.fail("musl-gcc is not there: `.ci/bootstrap test` installs it", pytrace=False)
    return program


def glibc(world: Captured, name: str) -> set[str]:
    """Return the addresses that getaddrinfo() of glibc finds; none when it fails."""
    done = world.run("getent", "ahosts", name)
    assert done.stderr == ""
    return {line.split()[0] for line in done.stdout.splitlines()}


def musl(world: Captured, stub: str, name: str) -> set[str]:
    """Return the addresses that getaddrinfo() of musl finds, or the words of its error."""
    printed = world.run(stub, name).stdout
    return set(printed.removeprefix(f"{name}:").split())


def busybox(world: Captured, *words: str) -> set[str]:
    """Return the addresses that busybox nslookup finds."""
    done = world.run("busybox", "nslookup", *words)
    return {line.split()[1] for line in done.stdout.splitlines()[2:] if line.startswith("Address")}


def searched(name: str, *kinds: str) -> list[What]:
    """Return what a client asks that goes through the search list until the name itself is found."""
    names = [*(f"{name}.{suffix}" for suffix in SEARCH), name]
    return [(each, kind, "udp") for each in names for kind in kinds or ("A", "AAAA")]


# --- what the mesh knows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize(("kind", "ip"), [("A", WEB4), ("AAAA", WEB6)])
def test_dig_gets_a_service_by_every_form_of_its_name(
    world: Captured, name: str, protocol: str, kind: str, ip: str
) -> None:
    ledger = world.ledger()
    answer = world.dig(name, kind, *(["+tcp"] if protocol == "tcp" else []))
    assert answer.records == [f"{name.rstrip('.')}. 30 IN {kind} {ip}"]
    assert (answer.status, answer.protocol, answer.source) == ("NOERROR", protocol, FIRST)
    assert {"qr", "aa", "rd", "ra"} == set(answer.flags)
    ledger.agrees(1 if protocol == "udp" else 0, {(kind, protocol): 1})
    assert Endpoint(FIRST, 53) in world.known_resolvers() or protocol == "tcp"


@pytest.mark.parametrize("name", FORMS)
def test_glibc_finds_a_service_by_every_form_at_its_first_query(world: Captured, name: str) -> None:
    ledger = world.ledger()
    assert glibc(world, name) == {WEB4, WEB6}
    ledger.agrees(1, BOTH)


@pytest.mark.parametrize("name", FORMS)
def test_musl_asks_both_nameservers_at_once_and_takes_either(world: Captured, stub: str, name: str) -> None:
    ledger = world.ledger()
    assert musl(world, stub, name) == {WEB4, WEB6}
    ledger.agrees(4, {A: 2, AAAA: 2})
    assert {Endpoint(FIRST, 53), Endpoint(SECOND, 53)} <= world.known_resolvers()


@pytest.mark.parametrize("name", FORMS)
def test_busybox_finds_a_service_by_every_form(world: Captured, name: str) -> None:
    ledger = world.ledger()
    assert busybox(world, name) == {WEB4, WEB6}
    ledger.agrees(1, BOTH)


def test_wget_comes_to_the_app_by_the_name_of_its_service(world: Captured) -> None:
    ledger = world.ledger()
    done = world.run("busybox", "wget", "-q", "-O", "-", "http://web/")
    assert done.stdout.encode() == TEXT
    ledger.agrees(1, BOTH)
    (line,) = world.node.access(f'dst.service="{FULL}"')[-1:]
    assert (
        f"dst.hbone_addr={world.web.ip4}:8080 " in line or f"dst.hbone_addr=[{world.web.ip6}]:8080 " in line
    )


def test_a_service_without_ipv6_has_an_empty_answer_and_nobody_else_is_asked(
    world: Captured, stub: str
) -> None:
    answer = world.dig("old", "AAAA")
    assert (answer.status, answer.records) == ("NOERROR", [])
    assert "aa" in answer.flags
    ledger = world.ledger()
    assert glibc(world, "old") == {OLD4}
    ledger.agrees(1, BOTH)
    assert musl(world, stub, "old") == {OLD4}
    assert busybox(world, "old") == {OLD4}
    assert world.whats() == {}


def test_a_service_of_another_namespace_is_found_by_its_namespace(world: Captured, stub: str) -> None:
    ledger = world.ledger()
    assert glibc(world, "store.shop") == {STORE4}
    ledger.agrees(1, BOTH)
    assert musl(world, stub, "store.shop.svc") == {STORE4}
    assert world.dig("store.shop.svc.cluster.local").data("A") == [STORE4]
    ledger = world.ledger()
    assert world.dig("store").status == "NXDOMAIN"
    ledger.agrees(1, {A: 1}, {FIRST: [("store", "A", "udp")]})


def test_a_headless_service_has_an_address_per_endpoint(world: Captured, stub: str) -> None:
    v4, v6 = sorted(ips[0] for ips in DB.values()), [DB["db-0"][1]]
    ledger = world.ledger()
    assert world.dig(DB_FULL).data("A") == v4
    assert world.dig(DB_FULL, "AAAA").data("AAAA") == v6
    ledger.agrees(2, BOTH)
    assert glibc(world, "db") == musl(world, stub, "db") == busybox(world, "db") == {*v4, *v6}
    assert world.whats() == {}


@pytest.mark.parametrize("pod", DB)
def test_an_endpoint_of_it_has_a_name(world: Captured, stub: str, pod: str) -> None:
    ledger = world.ledger()
    assert world.dig(f"{pod}.{DB_FULL}").data("A") == [DB[pod][0]]
    assert glibc(world, f"{pod}.db") == set(DB[pod])
    ledger.agrees(2, {A: 2, AAAA: 1})
    assert musl(world, stub, f"{pod}.db.demo") == busybox(world, f"{pod}.{DB_FULL}") == set(DB[pod])
    assert world.whats() == {}


def test_a_pod_that_is_no_endpoint_has_none(world: Captured) -> None:
    name = f"client.{DB_FULL}"
    ledger = world.ledger()
    assert world.dig(name).status == "NXDOMAIN"
    ledger.agrees(1, {A: 1}, {FIRST: [(name, "A", "udp")]})


@pytest.mark.parametrize("name", ["x.wild.example", "a.b.c.wild.example"])
def test_a_wildcard_covers_all_below_it(world: Captured, stub: str, name: str) -> None:
    ledger = world.ledger()
    assert world.dig(name).records == [f"{name}. 30 IN A {WILD4}"]
    assert glibc(world, name) == {WILD4}
    ledger.agrees(2, {A: 2, AAAA: 1})
    assert musl(world, stub, name) == {WILD4}
    assert world.whats() == {}
    world.dig("wild.example")
    assert world.whats() == {FIRST: [("wild.example", "A", "udp")]}


def test_a_host_outside_that_the_mesh_knows_is_found_under_the_search_list(world: Captured) -> None:
    name = f"api.example.net.{SEARCH[0]}"
    ledger = world.ledger()
    assert world.dig(name).records == [
        f"{name}. 30 IN CNAME api.example.net.",
        f"api.example.net. 30 IN A {API4}",
    ]
    assert glibc(world, "api.example.net") == {API4}
    ledger.agrees(2, {A: 2, AAAA: 1})


def test_whom_one_asks_does_not_matter_for_what_the_mesh_knows(world: Captured) -> None:
    for resolver in (OTHER, SIX, captured.NOBODY):
        answer = world.dig(f"@{resolver}", FULL)
        assert (answer.data("A"), answer.source) == ([WEB4], resolver)
    assert world.whats() == {}
    assert {Endpoint(OTHER, 53), Endpoint(SIX, 53), Endpoint(captured.NOBODY, 53)} <= world.known_resolvers()


def test_the_metrics_say_whose_queries_they_are(world: Captured) -> None:
    labels = {
        "source_canonical_service": TRACE["canonical_name"],
        "source_canonical_revision": TRACE["canonical_revision"],
        "request_query_type": "AAAA",
        "request_protocol": "tcp",
    }
    before = world.node.metric("istio_dns_requests", **labels)
    world.dig("web", "AAAA", "+tcp")
    assert world.node.metric("istio_dns_requests", **labels) == before + 1


# --- SRV and PTR -----------------------------------------------------------------------------------------


def test_srv_leads_to_the_port_of_a_service(world: Captured) -> None:
    ledger = world.ledger()
    for owner in ("_80._tcp.web", f"_80._tcp.{FULL}"):
        assert world.dig(owner, "SRV").records == [f"{owner}. 30 IN SRV 0 100 80 {FULL}."]
    ledger.agrees(2, {("SRV", "udp"): 2})


def test_srv_of_a_headless_service_has_a_target_per_endpoint_that_resolves(world: Captured) -> None:
    ledger = world.ledger()
    targets = world.dig(f"_5432._tcp.{DB_FULL}", "SRV").data("SRV")
    assert targets == [f"0 100 5432 {pod}.{DB_FULL}." for pod in sorted(DB)]
    for line in targets:
        target = line.split()[3]
        assert world.dig(target).data("A") == [DB[target.partition(".")[0]][0]]
    ledger.agrees(3, {("SRV", "udp"): 1, A: 2})


def test_srv_of_a_port_that_the_service_has_not_goes_on(world: Captured) -> None:
    ledger = world.ledger()
    assert world.dig(f"_81._tcp.{FULL}", "SRV").status == "NXDOMAIN"
    ledger.agrees(1, {("SRV", "udp"): 1}, {FIRST: [(f"_81._tcp.{FULL}", "SRV", "udp")]})


@pytest.mark.parametrize(
    ("ip", "name"),
    [(WEB4, FULL), (WEB6, FULL), (DB["db-0"][0], f"db-0.{DB_FULL}"), (DB["db-0"][1], f"db-0.{DB_FULL}")],
)
def test_an_address_leads_back_to_its_name(world: Captured, ip: str, name: str) -> None:
    ledger = world.ledger()
    assert world.dig("-x", ip).data("PTR") == [f"{name}."]
    assert world.run("getent", "hosts", ip).stdout.split() == [ip, name]
    ledger.agrees(2, {("PTR", "udp"): 2})


def test_an_address_that_the_mesh_has_not_is_for_the_resolver_to_name(world: Captured) -> None:
    ledger = world.ledger()
    assert world.run("getent", "hosts", "203.0.113.80").stdout.split() == ["203.0.113.80", EXTERNAL]
    asked = ("80.113.0.203.in-addr.arpa", "PTR", "udp")
    ledger.agrees(1, {("PTR", "udp"): 1}, {FIRST: [asked]})


# --- everything else -------------------------------------------------------------------------------------


def test_glibc_gets_a_name_outside_from_the_first_nameserver(world: Captured) -> None:
    ledger = world.ledger()
    assert glibc(world, EXTERNAL) == EXTERNAL_IPS
    ledger.agrees(4, {A: 4, AAAA: 4}, {FIRST: searched(EXTERNAL)})


def test_musl_asks_both_nameservers_for_a_name_outside(world: Captured, stub: str) -> None:
    ledger = world.ledger()
    assert musl(world, stub, EXTERNAL) == EXTERNAL_IPS
    asked = searched(EXTERNAL)
    ledger.agrees(16, {A: 8, AAAA: 8}, {FIRST: asked, SECOND: asked})


def test_a_name_with_its_final_dot_is_not_searched_for(world: Captured, stub: str) -> None:
    asked = searched(EXTERNAL)[-2:]
    ledger = world.ledger()
    assert glibc(world, f"{EXTERNAL}.") == EXTERNAL_IPS
    ledger.agrees(1, BOTH, {FIRST: asked})
    assert musl(world, stub, f"{EXTERNAL}.") == EXTERNAL_IPS
    assert world.whats() == {FIRST: asked, SECOND: asked}


def test_a_name_that_nobody_has_is_denied_by_the_resolver(world: Captured, stub: str) -> None:
    ledger = world.ledger()
    assert glibc(world, "nobody.example.com.") == set()
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
    assert busybox(world, EXTERNAL, OTHER) == EXTERNAL_IPS
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


# --- what is too large for UDP ---------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "size"), [(["+noedns"], 512), (["+bufsize=1232"], 1232)])
def test_a_large_answer_of_the_mesh_is_cut_over_udp_and_whole_over_tcp(
    world: Captured, words: list[str], size: int
) -> None:
    ledger = world.ledger()
    part = world.dig("big", *words, "+ignore")
    assert "tc" in part.flags
    assert size - 64 < 16 * len(part.records) < size
    whole = world.dig("big", *words)
    assert (whole.protocol, len(set(whole.data("A")))) == ("tcp", BIG)
    assert set(part.data("A")) < set(whole.data("A"))
    ledger.agrees(2, {A: 2, ("A", "tcp"): 1})


def test_glibc_comes_again_over_tcp_for_all_of_it(world: Captured) -> None:
    ledger = world.ledger()
    assert len(glibc(world, "big")) == BIG
    assert world.whats() == {}
    grown = ledger.grown().requests
    assert grown["A", "tcp"] >= 1


def test_musl_takes_what_it_gets(world: Captured, stub: str) -> None:
    """Until 1.2.4 it knows no TCP, and a part of the addresses is as good as all."""
    found = musl(world, stub, "big")
    assert len(found) >= 16
    assert {ip.rpartition(".")[0] for ip in found} == {"10.97.0"}


def test_a_large_answer_of_a_resolver_is_fetched_by_the_client_s_own_protocol(world: Captured) -> None:
    ledger = world.ledger()
    whole = world.dig("large.example.com", "TXT", "+noedns")
    assert (whole.protocol, sum(map(len, whole.data("TXT"))) >= LARGE) == ("tcp", True)
    asked = [("large.example.com", "TXT", protocol) for protocol in ("udp", "tcp")]
    ledger.agrees(1, {("TXT", "udp"): 1, ("TXT", "tcp"): 1}, {FIRST: asked})
