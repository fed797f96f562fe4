"""How a DNS resolver may behave: what it sends when it is asked (tests.support.resolver)."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

PLAIN_SIZE: Final = 512


class Ending(NamedTuple):
    """What a behaviour yields to end a TCP connection; nothing over UDP."""

    data: bytes = b""
    """Goes out before it, without a length."""
    is_reset: bool = False


Behaviour = Callable[[dns.message.Message, dns.message.Message, str], Iterator[bytes | Ending]]
"""Takes the query, the honest answer, and the protocol; yields the messages that are sent, in this order."""


def honest(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Answer; with TC and nothing else what does not fit a datagram."""
    if protocol == "tcp":
        yield answer.to_wire()
        return
    size = max(PLAIN_SIZE, query.payload) if query.edns >= 0 else PLAIN_SIZE
    wire = answer.to_wire()
    if len(wire) > size:
        yield from cut(query, answer, protocol)
    else:
        yield wire


def cut(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Answer over TCP; over UDP say that it is too large, whatever its size."""
    if protocol == "udp":
        answer = dns.message.make_response(query, recursion_available=True)
        answer.flags |= dns.flags.TC
    yield answer.to_wire()


def silent(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Answer nothing."""
    yield from ()


def wrong_id(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Answer under an id that nobody used."""
    yield _forged(answer, identifier=answer.id ^ 0x5555)


def wrong_question(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Answer what was not asked."""
    yield _forged(answer, name="other.example.com.")


def wrong_type(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Answer for another type of the same name."""
    forged = dns.message.from_wire(_forged(answer))
    forged.question[0].rdtype = dns.rdatatype.TXT
    yield forged.to_wire()


def echo(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Send the query back, which is no answer."""
    yield query.to_wire()


def short(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Send less than a header."""
    yield answer.to_wire()[:11]


def noise(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Send bytes that are no DNS."""
    yield b"\xff" * 40


def twice(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Send the answer, and one more of other records."""
    yield answer.to_wire()
    yield _forged(answer)


def reset(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[Ending]:
    """End the connection with a reset."""
    yield Ending(is_reset=True)


def half(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[Ending]:
    """End the connection within the answer."""
    wire = answer.to_wire()
    yield Ending(len(wire).to_bytes(2, "big") + wire[: len(wire) // 2])


def whole(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Send all of it, whatever the client takes over UDP."""
    yield answer.to_wire()


def refusing(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Answer that it does not answer."""
    refusal = dns.message.make_response(query)
    refusal.set_rcode(dns.rcode.REFUSED)
    yield refusal.to_wire()


def confused(query: dns.message.Message, answer: dns.message.Message, protocol: str) -> Iterator[bytes]:
    """Answer FORMERR and no question, as one does that cannot read it."""
    yield refusal(query.to_wire())


def first(*behaviours: Behaviour) -> Behaviour:
    """One after the other, in one go."""

    def together(
        query: dns.message.Message, answer: dns.message.Message, protocol: str
    ) -> Iterator[bytes | Ending]:
        for each in behaviours:
            yield from each(query, answer, protocol)

    return together


POISON: Final = "192.0.2.66"
"""Where a forged answer leads."""


def forgery(query: bytes) -> bytes:
    """Return an answer to a query that is right in all but where it leads, and who sends it."""
    return _forged(dns.message.make_response(dns.message.from_wire(query)))


def refusal(query: bytes) -> bytes:
    """Return an answer to whatever it is: FORMERR, and no question."""
    return query[:2] + bytes((0x80 | query[2] & 0x78, dns.rcode.FORMERR)) + bytes(8)


def _forged(answer: dns.message.Message, *, identifier: int | None = None, name: str = "") -> bytes:
    forged = dns.message.from_wire(answer.to_wire())
    owner = dns.name.from_text(name) if name else forged.question[0].name
    forged.question[0].name = owner
    forged.answer = [dns.rrset.from_text(owner, 5, "IN", "A", POISON)]
    forged.id = answer.id if identifier is None else identifier
    return forged.to_wire()
