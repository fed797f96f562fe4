"""The lab's DNS servers: what they know, and what they say of themselves."""

import socket
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from zproxy.lab import resolver


def _ask(name: str, kind: str, address: str = "10.96.0.10", transport: str = "udp") -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    wire = resolver.answer(query.to_wire(), address, transport)
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert query.is_response(response)
    return response


def _texts(response: dns.message.Message) -> list[str]:
    return [item.to_text() for rrset in response.answer for item in rrset]


def test_a_name_outside_of_the_mesh_has_addresses() -> None:
    assert _texts(_ask("www.example.com", "A")) == ["203.0.113.80"]
    assert _texts(_ask("WWW.example.com", "AAAA")) == ["2001:db8::80"]


def test_each_server_says_which_it_is() -> None:
    assert _texts(_ask("whoami.example.com", "TXT", "192.0.2.53", "tcp")) == ['"asked 192.0.2.53 over tcp"']


@pytest.mark.parametrize("name", ["server.demo.svc.cluster.local", "server", "nothing.example.com"])
def test_of_the_mesh_they_know_nothing(name: str) -> None:
    response = _ask(name, "A")
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert response.answer == []


def test_a_name_without_this_type_is_no_error_and_has_the_zones_soa() -> None:
    response = _ask("www.example.com", "MX")
    assert (response.rcode(), response.answer) == (dns.rcode.NOERROR, [])
    assert [rrset.name.to_text() for rrset in response.authority] == ["example.com."]


def test_a_large_answer_is_cut_over_udp_and_whole_over_tcp() -> None:
    assert _ask("large.example.com", "TXT").flags & dns.flags.TC
    whole = _ask("large.example.com", "TXT", transport="tcp")
    assert not whole.flags & dns.flags.TC
    assert len(_texts(whole)) == resolver.LARGE
    small = dns.message.make_query("large.example.com", "TXT", use_edns=True, payload=512)
    wire = resolver.answer(small.to_wire(), "10.96.0.10", "tcp")
    assert wire is not None
    assert len(_texts(dns.message.from_wire(wire))) == resolver.LARGE


def test_a_client_with_edns_gets_what_it_has_room_for() -> None:
    query = dns.message.make_query("large.example.com", "TXT", use_edns=True, payload=4096)
    wire = resolver.answer(query.to_wire(), "10.96.0.10", "udp")
    assert wire is not None
    assert len(_texts(dns.message.from_wire(wire))) == resolver.LARGE


@pytest.mark.parametrize(
    "wire",
    [b"", b"\0" * 12, dns.message.make_response(dns.message.make_query("a", "A", id=1)).to_wire()],
    ids=["nothing", "no question", "a response"],
)
def test_what_is_no_query_is_not_answered(wire: bytes) -> None:
    assert resolver.answer(wire, "10.96.0.10", "udp") is None


@pytest.fixture
def port() -> Iterator[int]:
    servers = resolver.serve(["127.0.0.1"], 0)
    try:
        address = servers[0].server_address
        assert isinstance(address, tuple)
        yield address[1]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def test_both_transports_are_served_on_one_port(port: int) -> None:
    query = dns.message.make_query("whoami.example.com", "TXT")
    for transport, ask in (("udp", dns.query.udp), ("tcp", dns.query.tcp)):
        response = ask(query, "127.0.0.1", timeout=5, port=port)
        assert _texts(response) == [f'"asked 127.0.0.1 over {transport}"']


def test_a_stream_of_something_else_is_closed(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as stream:
        stream.sendall(b"\0\x04abcd")
        assert stream.recv(1) == b""
