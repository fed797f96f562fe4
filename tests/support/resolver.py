"""A DNS resolver that a test writes the zone of, asks what it was asked, and has behave as badly as it likes.

UDP and TCP on port 53 of one address of a namespace, answered by threads of the test's own process.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.support.netns import Namespace
from tests.support.nodes import WAIT_S, App, wait_for
from zproxy.model.addr import Endpoint, canonical_ip

PORT: Final = 53
TTL_S: Final = 77
"""Another than the mesh's own, so that an answer shows whose it is."""
PLAIN_SIZE: Final = 512
SOA: Final = "ns.example.com. hostmaster.example.com. 1 3600 600 86400 5"
LARGE: Final = 4000
"""Bytes of text in the zone's largest answer."""
Zone = dict[tuple[str, str], Sequence[str]]
"""(name without the final dot, type) → records as a zone file has them."""

EXAMPLE: Final[Zone] = {
    ("www.example.com", "A"): ["203.0.113.80", "203.0.113.81"],
    ("www.example.com", "AAAA"): ["2001:db8::80"],
    ("example.com", "MX"): ["10 mail.example.com."],
    ("example.com", "SOA"): [SOA],
    ("text.example.com", "TXT"): ['"two" "strings"'],
    ("large.example.com", "TXT"): [f'"{number:02} {"x" * 197}"' for number in range(LARGE // 200)],
    ("80.113.0.203.in-addr.arpa", "PTR"): ["www.example.com."],
}


class Asked(NamedTuple):
    """One query that a resolver got; name and type are empty when it cannot be read."""

    name: str
    kind: str
    protocol: str
    """`udp` or `tcp`."""
    source: Endpoint
    wire: bytes

    @property
    def what(self) -> tuple[str, str, str]:
        """Name, type and protocol."""
        return self.name, self.kind, self.protocol


class Ending(NamedTuple):
    """What a behaviour yields to end a TCP connection; nothing over UDP."""

    data: bytes = b""
    """Goes out before it, without a length."""
    is_reset: bool = False


Behaviour = Callable[[dns.message.Message, dns.message.Message, str], Iterator[bytes | Ending]]
"""Takes the query, the honest answer, and the protocol; yields the messages that are sent, in this order."""


class Resolver:
    """Knows a zone and keeps what it was asked; `behaviours` by name take the place of honesty."""

    def __init__(self, at: Namespace, ip: str, zone: Zone = EXAMPLE, port: int = PORT) -> None:
        self.ip = ip
        self.zone = zone
        self.behaviours: dict[str, Behaviour] = {}
        self.sent: list[bytes] = []
        """Every message that went out."""
        self._asked: list[Asked] = []
        self._unanswered: list[Asked] = []
        self._streams: set[socket.socket] = set()
        self._is_closed = False
        self._udp = at.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.settimeout(None)
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._udp.bind((ip, port))
        self._tcp = App(at, port, self._stream, ip)
        self._thread = threading.Thread(target=self._datagrams, daemon=True)
        self._thread.start()

    def asked(self) -> list[Asked]:
        """Return what it was asked since the last call, and forget it."""
        taken, self._asked = self._asked, []
        return taken

    def whats(self) -> list[tuple[str, str, str]]:
        """Return name, type and protocol of these, sorted."""
        return sorted(each.what for each in self.asked())

    def await_asked(self, name: str) -> Asked:
        """Wait until it was asked about a name; what it was asked stays for `asked`."""
        found = wait_for(
            lambda: [each for each in self._asked if each.name == name], f"{self.ip} asked for {name}"
        )
        return Asked(*found[-1])

    def give_up(self) -> None:
        """Refuse what was never answered over UDP, and end all connections: nobody is to wait any longer."""
        unanswered, self._unanswered = self._unanswered, []
        for each in unanswered:
            self.send_to(_refusal(each.wire), each.source)
        for sock in tuple(self._streams):
            with contextlib.suppress(OSError):  # it has just ended
                sock.shutdown(socket.SHUT_RDWR)

    def send_to(self, data: bytes, client: Endpoint) -> None:
        """Send a datagram from port 53, as an answer that comes late would."""
        self.sent.append(data)
        self._udp.sendto(data, tuple(client))

    def close(self) -> None:
        """Refuse from now on; waits for what is under way."""
        self._is_closed = True
        with contextlib.suppress(OSError):  # the reader wakes up all the same
            self._udp.shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT_S)
        self._udp.close()
        self._tcp.close()

    def _datagrams(self) -> None:
        while True:
            wire, source = self._udp.recvfrom(65535)
            if self._is_closed:
                return
            asked = self._note(wire, "udp", source)
            messages = [each for each in self._answers(asked) if isinstance(each, bytes)]
            for message in messages:
                self.send_to(message, asked.source)
            if not messages:
                self._unanswered.append(asked)

    def _stream(self, sock: socket.socket, peer: Any) -> None:
        """Answer what comes on a connection until the client ends it, or a behaviour does."""
        self._streams.add(sock)
        try:
            self._talk(sock, peer)
        finally:
            self._streams.discard(sock)

    def _talk(self, sock: socket.socket, peer: Any) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError), sock.makefile("rb") as stream:
            while len(head := stream.read(2)) == 2:
                wire = stream.read(int.from_bytes(head, "big"))
                for message in self._answers(self._note(wire, "tcp", peer)):
                    if isinstance(message, Ending):
                        sock.sendall(message.data)
                        if message.is_reset:
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
                        return
                    self.sent.append(message)
                    sock.sendall(len(message).to_bytes(2, "big") + message)

    def _note(self, wire: bytes, protocol: str, source: Any) -> Asked:
        name = kind = ""
        with contextlib.suppress(dns.exception.DNSException):
            question = dns.message.from_wire(wire).question[0]
            name = question.name.to_text(omit_final_dot=True)
            kind = dns.rdatatype.to_text(question.rdtype)
        asked = Asked(name, kind, protocol, Endpoint(canonical_ip(source[0]), source[1]), wire)
        self._asked.append(asked)
        return asked

    def _answers(self, asked: Asked) -> Iterator[bytes | Ending]:
        if asked.kind:
            query = dns.message.from_wire(asked.wire)
            behaviour = self.behaviours.get(asked.name.lower(), honest)
            yield from behaviour(query, self._answer(query, asked), asked.protocol)

    def _answer(self, query: dns.message.Message, asked: Asked) -> dns.message.Message:
        name, kind = asked.name.lower(), asked.kind
        response = dns.message.make_response(query, recursion_available=True)
        records = self.zone.get((name, kind))
        if records:
            owner = query.question[0].name
            response.answer.append(dns.rrset.from_text(owner, TTL_S, "IN", kind, *records))
            return response
        if not any(known == name for known, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(dns.rrset.from_text("example.com.", TTL_S, "IN", "SOA", SOA))
        return response


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
    yield _refusal(query.to_wire())


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


def _refusal(query: bytes) -> bytes:
    return query[:2] + bytes((0x80 | query[2] & 0x78, dns.rcode.FORMERR)) + bytes(8)


def _forged(answer: dns.message.Message, *, identifier: int | None = None, name: str = "") -> bytes:
    forged = dns.message.from_wire(answer.to_wire())
    owner = dns.name.from_text(name) if name else forged.question[0].name
    forged.question[0].name = owner
    forged.answer = [dns.rrset.from_text(owner, TTL_S, "IN", "A", POISON)]
    forged.id = answer.id if identifier is None else identifier
    return forged.to_wire()


@contextmanager
def resolver(at: Namespace, ip: str, zone: Zone = EXAMPLE) -> Iterator[Resolver]:
    """Run one for the block."""
    made = Resolver(at, ip, zone)
    try:
        yield made
    finally:
        made.close()
