from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.update
import pytest

from tests.support.dns_bench import RESOLVER, STRANGER, DnsBench
from tests.support.mesh import mesh
from tests.support.names import HEADLESS, PREFERRED, pod
from zproxy.config import Limits
from zproxy.dns.upstream import framed
from zproxy.model.addr import Endpoint
from zproxy.model.pod import ResolvConf


@pytest.fixture
def bench() -> Iterator[DnsBench]:
    made = DnsBench(preferred=PREFERRED)
    yield made
    made.close()


def query(name: str, kind: str = "A", payload: int = 1232) -> dns.message.Message:
    return dns.message.make_query(name, kind, use_edns=0, payload=payload)


def records(message: dns.message.Message) -> list[str]:
    return sorted(f"{rrset.name} {rrset.rdtype.name} {each}" for rrset in message.answer for each in rrset)


ROWS = [
    ("www.google.com", "A", ["www.google.com. A 1.1.1.1"]),
    (
        "www.google.com.ns1.svc.cluster.local",
        "A",
        ["www.google.com. A 1.1.1.1", "www.google.com.ns1.svc.cluster.local. CNAME www.google.com."],
    ),
    ("productpage.ns1.svc.cluster.local", "A", ["productpage.ns1.svc.cluster.local. A 9.9.9.9"]),
    ("productpage.ns1", "A", ["productpage.ns1. A 9.9.9.9"]),
    ("productpage", "A", ["productpage. A 9.9.9.9"]),
    (
        "productpage.ns1.ns1.svc.cluster.local",
        "A",
        ["productpage.ns1. A 9.9.9.9", "productpage.ns1.ns1.svc.cluster.local. CNAME productpage.ns1."],
    ),
    ("productpage.ns1.svc.cluster.local", "AAAA", []),
    ("example.ns2", "A", ["example.ns2. A 10.10.10.10"]),
    ("example.ns2.svc", "A", ["example.ns2.svc. A 10.10.10.10"]),
    ("dual.localhost", "A", ["dual.localhost. A 2.2.2.3"]),
    ("dual.localhost", "AAAA", ["dual.localhost. AAAA 2001:db8::ff00:42:8330"]),
    ("dual.localhost", "ANY", ["dual.localhost. A 2.2.2.3", "dual.localhost. AAAA 2001:db8::ff00:42:8330"]),
    ("ipv6.localhost", "A", []),
    ("ipv4.localhost", "AAAA", []),
    ("foo.wildcard", "A", ["foo.wildcard. A 10.10.10.12"]),
    (
        "foo.svc.mesh.company.net.ns1.svc.cluster.local",
        "A",
        ["foo.svc.mesh.company.net.ns1.svc.cluster.local. A 10.1.2.3"],
    ),
    ("nw2-only.ns1.svc.cluster.local", "A", []),
    (
        "headless.ns1.svc.cluster.local",
        "A",
        ["headless.ns1.svc.cluster.local. A 30.30.30.30", "headless.ns1.svc.cluster.local. A 31.31.31.31"],
    ),
    ("headless-ipv6.ns1.svc.cluster.local", "A", []),
    ("preferred.io", "A", ["preferred.io. A 10.10.10.211"]),
    ("everywhere.io", "A", ["everywhere.io. A 10.10.10.112"]),
    (
        "_http._tcp.productpage.ns1.svc.cluster.local",
        "SRV",
        ["_http._tcp.productpage.ns1.svc.cluster.local. SRV 0 100 80 productpage.ns1.svc.cluster.local."],
    ),
    ("_80._tcp.empty", "SRV", []),
    ("9.9.9.9.in-addr.arpa", "PTR", ["9.9.9.9.in-addr.arpa. PTR productpage.ns1.svc.cluster.local."]),
]


@pytest.mark.parametrize(("name", "kind", "expected"), ROWS, ids=[f"{name}-{kind}" for name, kind, _ in ROWS])
def test_what_the_mesh_answers(bench: DnsBench, name: str, kind: str, expected: list[str]) -> None:
    for reply in (bench.ask(query(name, kind)), *bench.ask_tcp([query(name, kind)])):
        assert records(reply) == expected
        assert reply.rcode() == dns.rcode.NOERROR
        assert reply.flags & dns.flags.AA
        assert reply.flags & dns.flags.RA
        assert all(rrset.ttl == 30 for rrset in reply.answer)
    of = kind.lower()
    assert bench.counts.requests == {(of, protocol, "unknown", "unknown"): 1 for protocol in ("udp", "tcp")}
    assert not bench.counts.upstream_requests


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("www.bing.com", "A"),
        ("example", "A"),
        ("details.ns2", "A"),
        ("headless.pod0.ns1.svc.cluster.local", "A"),
        ("headless.pod0.ns1", "A"),
        ("headless-no-endpoints.example.com", "A"),
        ("headless.example.com", "A"),
        ("hidden.ns2.svc.cluster.local", "A"),
        ("productpage.ns1", "NS"),
        ("productpage.ns1", "TXT"),
        ("_https._tcp.productpage", "SRV"),
        ("1.2.0.192.in-addr.arpa", "PTR"),
        ("not.a.number.in-addr.arpa", "PTR"),
    ],
)
def test_everything_else_goes_to_whom_the_app_addressed(bench: DnsBench, name: str, kind: str) -> None:
    upstream, client = bench.upstream(), bench.client()
    asked = query(name, kind)
    client.send(asked.to_wire())
    bench.wait(lambda: bench.counts.upstream_requests != {})
    wire, sender = upstream.recvfrom(4096)
    assert wire[2:] == asked.to_wire()[2:]
    reply = dns.message.make_response(dns.message.from_wire(wire))
    reply.answer.append(dns.rrset.from_text(name + ".", 7, "IN", "TXT", '"from the resolver"'))
    upstream.sendto(reply.to_wire(), sender)
    got = bench.receive_datagram(client)
    assert got == asked.to_wire()[:2] + reply.to_wire()[2:]
    assert len(bench.counts.durations) == 1
    assert not bench.counts.upstream_failures


def test_a_name_that_exists_is_not_denied_by_who_does_not_know_it(bench: DnsBench) -> None:
    for name, expected in (("productpage.ns1", dns.rcode.NOERROR), ("nobody", dns.rcode.NXDOMAIN)):
        upstream, client = bench.upstream(), bench.client()
        client.send(query(name, "MX").to_wire())
        bench.settle()
        wire, sender = upstream.recvfrom(4096)
        reply = dns.message.make_response(dns.message.from_wire(wire))
        reply.set_rcode(dns.rcode.NXDOMAIN)
        upstream.sendto(reply.to_wire(), sender)
        assert dns.message.from_wire(bench.receive_datagram(client)).rcode() == expected


def test_strangers_are_not_answered(bench: DnsBench) -> None:
    bench.client(STRANGER).send(query("productpage").to_wire())
    bench.wait(lambda: bench.counts.dropped == {"stranger": 1})
    stream = bench.connect(STRANGER)
    bench.wait(lambda: bench.is_ended(stream))
    assert bench.counts.dropped == {"stranger": 2}
    assert not bench.counts.requests


def test_what_is_no_query(bench: DnsBench) -> None:
    client = bench.client()
    client.send(b"x" * 11)
    client.send(dns.message.make_response(query("productpage")).to_wire())
    assert dns.message.from_wire(bench.receive_datagram(client)).rcode() == dns.rcode.FORMERR
    assert bench.counts.dropped == {"malformed": 2}


def test_a_stream_that_speaks_nonsense_is_closed(bench: DnsBench) -> None:
    stream = bench.connect()
    stream.sendall(framed(b"nonsense"))
    bench.wait(lambda: bench.is_ended(stream))


def test_zone_transfers_are_refused(bench: DnsBench) -> None:
    (reply,) = bench.ask_tcp([query("example.com", "AXFR")])
    assert reply.rcode() == dns.rcode.REFUSED
    assert not bench.counts.upstream_requests


def test_updates_go_to_the_server_that_was_addressed(bench: DnsBench) -> None:
    update = dns.update.UpdateMessage("example.com")
    update.add("a", 300, "A", "10.0.0.1")
    bench.resolver = None
    client = bench.client()
    assert bench.ask(update, client).rcode() == dns.rcode.NOTIMP
    bench.resolver = RESOLVER
    upstream = bench.upstream()
    client.send(update.to_wire())
    bench.settle()
    assert upstream.recv(4096)[2:] == update.to_wire()[2:]


def test_who_addresses_nobody_in_particular_gets_the_resolvers_of_the_pod(bench: DnsBench) -> None:
    bench.resolver = None
    reply = bench.ask(query("www.bing.com"))
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert "resolv.conf" in str(reply.options[0])
    bench.server.use(ResolvConf(("192.0.2.1", "192.0.2.2")))
    second = bench.upstream(Endpoint("192.0.2.2", 53))
    client = bench.client()
    client.send(query("www.bing.com").to_wire())
    bench.wait(lambda: sum(bench.counts.upstream_requests.values()) == 2)
    wire, sender = second.recvfrom(4096)
    second.sendto(dns.message.make_response(dns.message.from_wire(wire)).to_wire(), sender)
    assert dns.message.from_wire(bench.receive_datagram(client)).rcode() == dns.rcode.NOERROR
    assert sum(bench.counts.upstream_failures.values()) == 1


def test_the_search_list_of_the_pod(bench: DnsBench) -> None:
    bench.upstream()
    assert records(bench.ask(query("productpage.svc.cluster.local"))) != []
    bench.server.use(ResolvConf((), ("corp.test",)))
    assert records(bench.ask(query("dual.localhost.corp.test"))) == [
        "dual.localhost. A 2.2.2.3",
        "dual.localhost.corp.test. CNAME dual.localhost.",
    ]
    assert bench.server.asker().search == ("corp.test",)


def test_another_mesh_is_asked_at_once(bench: DnsBench) -> None:
    assert len(records(bench.ask(query("headless")))) == 2
    bench.mesh = mesh(HEADLESS, pod("new", "30.0.0.1", of=HEADLESS))
    assert records(bench.ask(query("headless"))) == ["headless. A 30.0.0.1"]


def test_a_large_answer(bench: DnsBench) -> None:
    bench.mesh = mesh(HEADLESS, *(pod(f"e{n}", f"240.0.0.{n}", of=HEADLESS) for n in range(256)))
    reply = bench.ask(query("headless"))
    assert reply.flags & dns.flags.TC
    assert len(records(reply)) == 74
    (whole,) = bench.ask_tcp([query("headless")])
    assert not whole.flags & dns.flags.TC
    assert len(records(whole)) == 256
    assert records(bench.ask(query("headless", payload=512))) != records(reply)


def test_records_come_in_another_order_each_time(bench: DnsBench) -> None:
    bench.mesh = mesh(HEADLESS, *(pod(f"e{n}", f"240.0.0.{n}", of=HEADLESS) for n in range(9)))
    first = {str(bench.ask(query("headless")).answer[0][0]) for _ in range(40)}
    assert len(first) > 3


def test_a_full_house_is_told() -> None:
    bench = DnsBench(limits=Limits(dns_queries=2, dns_clients=1))
    bench.upstream()
    client = bench.client()
    for name in ("a.test", "b.test", "c.test"):
        client.send(query(name).to_wire())
    reply = dns.message.from_wire(bench.receive_datagram(client))
    assert (reply.rcode(), str(reply.question[0].name)) == (dns.rcode.SERVFAIL, "c.test.")
    first, second = bench.connect(), bench.connect()
    bench.wait(lambda: bench.is_ended(second))
    assert not bench.is_ended(first)
    assert bench.counts.dropped == {"full": 2}
    bench.close()


def test_after_the_end_nothing_is_answered(bench: DnsBench) -> None:
    upstream, client, stream = bench.upstream(), bench.client(), bench.connect()
    client.send(query("a.test").to_wire())
    bench.wait(lambda: bench.counts.upstream_requests != {})
    wire, sender = upstream.recvfrom(4096)
    bench.server.close()
    upstream.sendto(dns.message.make_response(dns.message.from_wire(wire)).to_wire(), sender)
    bench.wait(lambda: bench.is_ended(stream))
    bench.settle()
    assert len(bench.worker.asking) == 0
    assert len(bench.worker.querying) == 0
