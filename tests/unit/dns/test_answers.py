import dns.rdatatype

from tests.support.names import CLIENT, asker, names_mesh
from zproxy.dns.answers import REMEMBERED, Answers, Known
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
