"""A DNS resolver that a test writes the zone of, asks what it was asked, and has behave as badly as it likes.

UDP and TCP on port 53 of one address of a namespace, answered by threads of the test's own process.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.support.behaviour import Behaviour, Ending, honest, refusal
from tests.support.netns import Namespace
from tests.support.nodes import WAIT_S, App, wait_for
from zproxy.model.addr import Endpoint, canonical_ip

PORT: Final = 53
TTL_S: Final = 77
"""Another than the mesh's own, so that an answer shows whose it is."""
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


class Resolver:
    """Knows a zone and keeps what it was asked; `behaviours` by name take the place of honesty."""

    def __init__(self, at: Namespace, ip: str, zone: Zone = EXAMPLE, port: int = PORT) -> None:
        self.ip = ip
        self.zone = zone
        self.behaviours: dict[str, Behaviour] = {}
        self.sent: list[bytes] = []
        """Every message that went out."""
        self._asked: list[Asked] = []
        self._datagrams: list[Asked] = []
        self._streams: set[socket.socket] = set()
        self._is_closed = False
        self._udp = at.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.settimeout(None)
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._udp.bind((ip, port))
        self._tcp = App(at, port, self._stream, ip)
        self._thread = threading.Thread(target=self._receive, daemon=True)
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
        """Refuse all that was asked over UDP, and end all connections: nobody is to wait any longer."""
        asked, self._datagrams = self._datagrams, []
        for each in asked:
            self.send_to(refusal(each.wire), each.source)
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

    def _receive(self) -> None:
        while True:
            wire, source = self._udp.recvfrom(65535)
            if self._is_closed:
                return
            asked = self._note(wire, "udp", source)
            self._datagrams.append(asked)
            for message in self._answers(asked):
                if isinstance(message, bytes):
                    self.send_to(message, asked.source)

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


@contextmanager
def resolver(at: Namespace, ip: str, zone: Zone = EXAMPLE) -> Iterator[Resolver]:
    """Run one for the block."""
    made = Resolver(at, ip, zone)
    try:
        yield made
    finally:
        made.close()
