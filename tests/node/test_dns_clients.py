"""The resolvers that apps come with, inside a pod whose DNS is captured: what they get, and who was asked.

dig is BIND's, getent is glibc's, `stub` is musl's, and busybox has its own. Each test compares what a client
printed with what the resolvers were asked, and with what the kernel and the daemon counted.
"""

from collections.abc import Iterator

import pytest

from tests.support import captured
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
    serving,
)
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root

FULL = "web.demo.svc.cluster.local"
FORMS = ("web", "web.demo", "web.demo.svc", FULL, f"{FULL}.")
DB_FULL = "db.demo.svc.cluster.local"
A, AAAA = ("A", "udp"), ("AAAA", "udp")
BOTH = {A: 1, AAAA: 1}
"""What getaddrinfo() asks for, once."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    with captured.captured(tmp_path_factory.mktemp("dns")) as made, serving(made):
        yield made


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> str:
    return captured.musl_stub(tmp_path_factory.mktemp("musl"))


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
    assert world.glibc(name) == {WEB4, WEB6}
    ledger.agrees(1, BOTH)


@pytest.mark.parametrize("name", FORMS)
def test_musl_asks_both_nameservers_at_once_and_takes_either(world: Captured, stub: str, name: str) -> None:
    ledger = world.ledger()
    assert world.musl(stub, name) == {WEB4, WEB6}
    ledger.agrees(4, {A: 2, AAAA: 2})
    assert {Endpoint(FIRST, 53), Endpoint(SECOND, 53)} <= world.known_resolvers()


@pytest.mark.parametrize("name", FORMS)
def test_busybox_finds_a_service_by_every_form(world: Captured, name: str) -> None:
    """It asks for a short name under the whole search list at once, on one socket."""
    ledger = world.ledger()
    assert world.busybox(name) == {WEB4, WEB6}
    grown = ledger.grown()
    asked = grown.requests[A]
    assert 1 <= asked <= len(SEARCH) + 1
    ledger.agrees(1, {A: asked, AAAA: asked})


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
    assert world.glibc("old") == {OLD4}
    ledger.agrees(1, BOTH)
    assert world.musl(stub, "old") == {OLD4}
    assert world.busybox("old") == {OLD4}
    assert world.whats() == {}


def test_a_service_of_another_namespace_is_found_by_its_namespace(world: Captured, stub: str) -> None:
    ledger = world.ledger()
    assert world.glibc("store.shop") == {STORE4}
    ledger.agrees(1, BOTH)
    assert world.musl(stub, "store.shop.svc") == {STORE4}
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
    assert world.glibc("db") == world.musl(stub, "db") == world.busybox("db") == {*v4, *v6}
    assert world.whats() == {}


@pytest.mark.parametrize("pod", DB)
def test_an_endpoint_of_it_has_a_name(world: Captured, stub: str, pod: str) -> None:
    ledger = world.ledger()
    assert world.dig(f"{pod}.{DB_FULL}").data("A") == [DB[pod][0]]
    assert world.dig(f"{DB[pod][0].replace('.', '-')}.{DB_FULL}").data("A") == [DB[pod][0]]
    assert world.glibc(f"{pod}.db") == set(DB[pod])
    ledger.agrees(3, {A: 3, AAAA: 1})
    assert world.musl(stub, f"{pod}.db.demo") == world.busybox(f"{pod}.{DB_FULL}") == set(DB[pod])
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
    assert world.glibc(name) == {WILD4}
    ledger.agrees(2, {A: 2, AAAA: 1})
    assert world.musl(stub, name) == {WILD4}
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
    assert world.glibc("api.example.net") == {API4}
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
        "request_query_type": "aaaa",
        "request_protocol": "tcp",
    }
    before = world.node.metric("istio_dns_requests", **labels)
    world.dig("web", "AAAA", "+tcp")
    assert world.node.metric("istio_dns_requests", **labels) == before + 1


def test_srv_leads_to_the_port_of_a_service(world: Captured) -> None:
    ledger = world.ledger()
    for owner in ("_80._tcp.web", f"_http._tcp.{FULL}"):
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
    assert len(world.glibc("big")) == BIG
    assert world.whats() == {}
    grown = ledger.grown().requests
    assert grown["A", "tcp"] >= 1


def test_musl_takes_what_it_gets(world: Captured, stub: str) -> None:
    """Until 1.2.4 it knows no TCP, and a part of the addresses is as good as all."""
    found = world.musl(stub, "big")
    assert len(found) >= 16
    assert {ip.rpartition(".")[0] for ip in found} == {"10.97.0"}
