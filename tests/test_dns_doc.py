"""The tables of docs/dns.md are what the server does."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.support import documents
from tests.support.dns_bench import RESOLVER, DnsBench
from zproxy.model.workload import Workload
from zproxy.sources import file
from zproxy.state.store import Mesh

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "dns.md"
ANSWERS = list(documents.rows(DOCUMENT, "What the mesh answers"))
PASSED_ON = "passed on"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    (text,) = (block.text for block in documents.blocks(DOCUMENT.read_text()) if block.mark == "mesh")
    path = tmp_path_factory.mktemp("mesh") / "mesh.yaml"
    path.write_text(text)
    return file.load(path)


def client_of(mesh: Mesh) -> Workload:
    found = mesh.by_pod("demo/client")
    assert found is not None
    return found


@pytest.fixture
def bench(shown: Mesh) -> Iterator[DnsBench]:
    with closing(DnsBench(shown, client=client_of(shown))) as made:
        yield made


@pytest.mark.parametrize(("name", "kind", "said"), ANSWERS, ids=[f"{row[0]}-{row[1]}" for row in ANSWERS])
def test_the_answers_that_are_shown(bench: DnsBench, name: str, kind: str, said: str) -> None:
    query = dns.message.make_query(name.strip("`"), kind, use_edns=0)
    if said == PASSED_ON:
        upstream = bench.upstream()
        bench.client().send(query.to_wire())
        bench.receive_datagram(upstream)
        return
    reply = bench.ask(query)
    assert reply.flags & dns.flags.AA
    assert reply.rcode() == dns.rcode.NOERROR
    found = [str(record) for rrset in reply.answer for record in rrset]
    if said.startswith("nothing"):
        assert found == []
    else:
        assert [each.rstrip(".") for each in found] == [each.rstrip(".") for each in said.split(", ")]


def test_every_kind_of_answer_is_shown() -> None:
    assert {row[1] for row in ANSWERS} >= {"A", "AAAA", "SRV", "PTR"}


def test_every_reason_is_named() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "zproxy" / "dns").glob("*.py"))
    counted = set(re.findall(r'(?:drop|_refuse)\((?:sock, )?"(\w+)"\)', sources))
    assert {row[0].strip("`") for row in documents.rows(DOCUMENT, "What is not answered")} == counted


CASES = {
    "the resolver's port is closed, or there is no way to it": ("www.example.com", "A", dns.rcode.SERVFAIL),
    "a zone transfer": ("example.com", "AXFR", dns.rcode.REFUSED),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_app_gets(bench: DnsBench, case: str) -> None:
    rows = {row[0]: row[1] for row in documents.rows(DOCUMENT, "What is passed on")}
    name, kind, rcode = CASES[case]
    bench.sockets.at[RESOLVER] = ("127.0.0.1", 1)
    assert bench.ask(dns.message.make_query(name, kind, use_edns=0)).rcode() == rcode
    assert rows[case].startswith(dns.rcode.to_text(rcode))


def test_silence_is_told_after_the_time_that_is_shown(bench: DnsBench) -> None:
    rows = {row[0]: row[1] for row in documents.rows(DOCUMENT, "What is passed on")}
    (seconds,) = re.findall(r"SERVFAIL after (\d+) s", rows["the resolver is silent"])
    upstream, client = bench.upstream(), bench.client()
    client.send(dns.message.make_query("www.example.com", "A").to_wire())
    bench.receive_datagram(upstream)
    client.setblocking(False)
    bench.advance(float(seconds) - 0.1)
    with pytest.raises(BlockingIOError):
        client.recv(512)
    bench.advance(0.2)
    assert dns.message.from_wire(bench.receive_datagram(client)).rcode() == dns.rcode.SERVFAIL
