import dns.flags
import dns.message
import dns.rdatatype
import pytest

from tests.support.names import CLIENT, asker, kubernetes, names_mesh
from zproxy.dns.answers import REMEMBERED, Answers, Known
from zproxy.dns.message import parse
from zproxy.state.names import Asker
from zproxy.state.store import Change, Mesh

A = dns.rdatatype.A


class Book:
    """Answers, and how often who asks was wanted."""

    def __init__(self) -> None:
        self.mesh: Mesh = names_mesh()
        self.looks = 0
        self.answers = Answers(lambda: self.mesh, self.asker)

    def asker(self) -> Asker:
        self.looks += 1
        return asker()


def test_a_name_is_looked_up_once_per_snapshot() -> None:
    book = Book()
    first = book.answers.find("productpage", A)
    assert first is not None
    assert book.answers.find("productpage", A) is first
    assert book.answers.find("nobody", A) is book.answers.find("nobody", A) is None
    assert book.looks == 2
    book.mesh = book.mesh.changed(Change(gone_services=("ns1/productpage.ns1.svc.cluster.local",)))
    assert book.answers.find("productpage", A) is None
    assert book.looks == 3
    book.answers.forget()
    book.answers.find("productpage", A)
    assert book.looks == 4


@pytest.fixture(scope="module")
def book() -> Book:
    """One for all tests that only ask."""
    return Book()


def ask(book: Book, name: str, number: int = 1, flags: int = 0, payload: int = 0) -> dns.message.Message:
    made = dns.message.make_query(name, "A", id=number, flags=flags)
    if payload:
        made.use_edns(0, 0, payload)
    query = parse(made.to_wire())
    known = book.answers.find(query.name, query.kind)
    assert known is not None
    return dns.message.from_wire(book.answers.wire(known, query, query.payload))


@pytest.mark.parametrize("number", [1, 0xFFFF])
@pytest.mark.parametrize("name", ["productpage", "ProductPage"])
@pytest.mark.parametrize("flags", [0, int(dns.flags.RD)])
@pytest.mark.parametrize("payload", [0, 1232])
def test_an_answer_is_given_again_as_it_was_asked_for(
    book: Book, number: int, name: str, flags: int, payload: int
) -> None:
    for _ in range(2):
        reply = ask(book, name, number, flags, payload)
        assert (reply.id, str(reply.question[0].name)) == (number, f"{name}.")
        assert [str(each) for each in reply.answer] == [f"{name}. 30 IN A 9.9.9.9"]
        assert (reply.edns, reply.flags & dns.flags.RD) == (0 if payload else -1, flags)


def test_an_answer_is_made_anew_for_another_mesh() -> None:
    book = Book()
    assert ask(book, "productpage").answer
    moved = kubernetes("productpage", "ns1", "9.9.9.10")
    book.mesh = book.mesh.changed(Change(services=(moved,)))
    assert [str(each) for each in ask(book, "productpage").answer] == ["productpage. 30 IN A 9.9.9.10"]


def test_answers_that_were_made_take_no_room_without_bound() -> None:
    book = Book()
    for number in range(REMEMBERED + 5):
        ask(book, "productpage", payload=512 + number)
        ask(book, "details.ns2.svc.cluster.remote", payload=512 + number)
    assert 0 < len(book.answers._made) <= REMEMBERED
    assert all(b"productpage" in query for query, _ in book.answers._made), "the others have orders"


def test_names_take_no_room_without_bound() -> None:
    book = Book()
    for number in range(2 * REMEMBERED):
        book.answers.find(f"n{number}", A)
    assert len(book.answers._known) <= REMEMBERED


def test_what_exists() -> None:
    book = Book()
    assert book.answers.has("ipv6.localhost")
    assert not book.answers.has("headless.example.com")
    assert book.answers.find("productpage", dns.rdatatype.MX) is None


def test_an_srv_answer_brings_the_addresses_along() -> None:
    known = Book().answers.find("_http._tcp.headless", dns.rdatatype.SRV)
    assert known is not None
    assert [str(each) for each in known.records[0]] == [
        "0 100 80 headless0.headless.ns1.svc.cluster.local.",
        "0 100 80 headless1.headless.ns1.svc.cluster.local.",
    ]
    assert [(str(name), [str(each) for each in group]) for name, group in known.extra] == [
        ("headless0.headless.ns1.svc.cluster.local.", ["30.30.30.30"]),
        ("headless0.headless.ns1.svc.cluster.local.", ["2001:db8::30"]),
        ("headless1.headless.ns1.svc.cluster.local.", ["31.31.31.31"]),
        ("headless1.headless.ns1.svc.cluster.local.", ["2001:db8::31"]),
    ]
    assert known.size == 2
    assert CLIENT.pod == "ns1/client"


def test_nothing_known_is_not_the_same_as_nothing_there() -> None:
    answers = Book().answers
    assert answers.find("nw2-only.ns1", A) == Known()
    assert answers.find("nw2", A) is None
