"""DNS messages: queries taken apart, answers put together and cut to fit (RFC 1035, RFC 6891, RFC 8914).

dnspython reads and writes them; what is passed on to a resolver stays as it came, byte by byte.
"""

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

HEADER: Final = 12
LARGEST: Final = 65535
"""Of a message over TCP (RFC 1035 4.2.2)."""
SMALLEST_PAYLOAD: Final = 512
"""What every client takes over UDP (RFC 1035 4.2.1)."""
LARGEST_PAYLOAD: Final = 4096
"""The most that is sent over UDP to whoever says that it takes more; there is no path between us."""
PAYLOAD: Final = 1232
"""What we announce: it fits an IPv6 packet of the smallest MTU."""
TTL_S: Final = 30
"""Of every record of the mesh, as ztunnel has it."""
QR: Final = 0x80
TC: Final = 0x02
_RD: Final = 0x01
_OPCODE: Final = 0x78
_RCODE: Final = 0x0F
_LABEL: Final = 63
_WORDS: Final = 120
"""Of an extended error: with the longest name it still fits the smallest payload."""

Section = tuple[dns.name.Name, Sequence[dns.rdata.Rdata]]
"""An owner and its records, which are of one type."""


class MalformedError(Exception):
    """A message that is no query; `reply` is what its sender gets, empty for nothing."""

    def __init__(self, reply: bytes) -> None:
        super().__init__("not a DNS query")
        self.reply = reply


class Query(NamedTuple):
    """One question."""

    wire: bytes
    message: dns.message.Message | None
    """None for what is not a standard query: it can be passed on and nothing else. Its id is another one, and
    it is NEVER changed: queries share it.
    """
    name: str
    """Lower-case, without the final dot."""
    kind: dns.rdatatype.RdataType

    @property
    def id(self) -> int:
        """By which the client knows the answer."""
        return int.from_bytes(self.wire[:2], "big")

    @property
    def payload(self) -> int:
        """Return how many bytes of an answer the client takes over UDP."""
        if self.message is None or self.message.edns < 0:
            return SMALLEST_PAYLOAD
        return min(max(SMALLEST_PAYLOAD, self.message.payload), LARGEST_PAYLOAD)


def parse(wire: bytes) -> Query:
    """Return the query in `wire`; raise MalformedError for an answer, and for what cannot be read."""
    if len(wire) < HEADER:
        raise MalformedError(b"")
    if wire[2] & QR:
        raise MalformedError(bare(wire, dns.rcode.FORMERR))
    if wire[2] & _OPCODE:
        return Query(wire, None, "", dns.rdatatype.NONE)
    read = _read if len(wire) <= SMALLEST_PAYLOAD else _read.__wrapped__
    try:
        return read(wire[2:])._replace(wire=wire)
    except MalformedError as error:
        raise MalformedError(wire[:2] + error.reply[2:]) from error


@lru_cache(maxsize=1024)
def _read(body: bytes) -> Query:
    """Return the query in a message without its id, as one with id 0; raise MalformedError, likewise.

    Apps ask the same again and again, and to take a message apart is most of what an answer costs.
    """
    wire = b"\0\0" + body
    try:
        message = dns.message.from_wire(wire)
    except dns.message.UnknownTSIGKey:  # a key between the client and its resolver
        return Query(wire, None, "", dns.rdatatype.NONE)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise MalformedError(bare(wire, dns.rcode.FORMERR)) from error
    if len(message.question) != 1:
        raise MalformedError(bare(wire, dns.rcode.FORMERR))
    if message.edns > 0:
        raise MalformedError(_version(message))
    question = message.question[0]
    name = question.name.to_text(omit_final_dot=True).lower()
    is_internet = question.rdclass == dns.rdataclass.IN
    return Query(wire, message, name, question.rdtype if is_internet else dns.rdatatype.NONE)


def bare(wire: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """Return an answer to `wire` that is a header and nothing else."""
    return wire[:2] + bytes((QR | wire[2] & (_OPCODE | _RD), 0x80 | rcode)) + bytes(8)


def answer(query: Query, limit: int, sections: Sequence[Section], extra: Sequence[Section] = ()) -> bytes:
    """Return what the mesh answers, with authority; at most `limit` bytes, TC when that is not all of it.

    `extra` helps and is left out when it does not fit. No section at all is NODATA.
    """
    response = _response(query)
    response.flags |= dns.flags.AA
    response.answer = [_rrset(each) for each in sections if each[1]]
    response.additional = [_rrset(each) for each in extra if each[1]]
    with contextlib.suppress(dns.exception.TooBig):
        return response.to_wire(max_size=limit)
    response.additional = []
    with contextlib.suppress(dns.exception.TooBig):
        return response.to_wire(max_size=limit)
    return _cut(response, limit)


def failure(query: Query, rcode: dns.rcode.Rcode, why: dns.edns.EDECode, text: str) -> bytes:
    """Return an answer that says what went wrong, in words where the client understands EDNS."""
    if query.message is None:
        return bare(query.wire, rcode)
    response = _response(query)
    response.set_rcode(rcode)
    if query.message.edns >= 0:
        response.use_edns(0, 0, PAYLOAD, options=[dns.edns.EDEOption(why, text[:_WORDS])])
    return response.to_wire()


def truncated(query: Query, reply: bytes) -> bytes:
    """Return an answer that says no more than that `reply` is too large for UDP."""
    header = reply[:2] + bytes((reply[2] | TC, reply[3])) + b"\0\1" + bytes(6)
    return header + reply[HEADER : HEADER + question_size(query.wire)]


def is_answer_to(sent: bytes, reply: bytes) -> bool:
    """Tell whether `reply` can be the answer to `sent`: its id, opcode and question; not who it is from."""
    size = question_size(sent)
    if len(reply) < HEADER or reply[:2] != sent[:2] or not reply[2] & QR or (reply[2] ^ sent[2]) & _OPCODE:
        return False
    if reply[3] & _RCODE and reply[4:6] == b"\0\0":  # servers that could not read it may leave it out
        return len(reply) == HEADER or reply[6:10] == bytes(4)
    if reply[4:6] != sent[4:6]:
        return False
    return reply[HEADER : HEADER + size].lower() == sent[HEADER : HEADER + size].lower()


def question_size(wire: bytes) -> int:
    """Return how many bytes the first question of a message takes; 0 where it has none."""
    if wire[4:6] == b"\0\0":
        return 0
    at = HEADER
    while at < len(wire) and 0 < wire[at] <= _LABEL:
        at += wire[at] + 1
    return at + (2 if wire[at : at + 1] > bytes((_LABEL,)) else 1) + 4 - HEADER


def with_id(wire: bytes, number: int) -> bytes:
    """Return the message under another id."""
    return number.to_bytes(2, "big") + wire[2:]


def is_nxdomain(reply: bytes) -> bool:
    """Tell whether a resolver said that there is no such name."""
    return reply[3] & _RCODE == dns.rcode.NXDOMAIN


def as_nodata(reply: bytes) -> bytes:
    """Return the reply of one who does not know the name, for one that exists."""
    return reply[:3] + bytes((reply[3] & ~_RCODE,)) + reply[4:]


def _response(query: Query) -> dns.message.Message:
    assert query.message is not None
    made = dns.message.make_response(query.message, recursion_available=True, our_payload=PAYLOAD)
    made.id = query.id
    return made


def _version(message: dns.message.Message) -> bytes:
    response = dns.message.make_response(message, our_payload=PAYLOAD)
    response.use_edns(0, 0, PAYLOAD)
    response.set_rcode(dns.rcode.BADVERS)
    return response.to_wire()


def _rrset(section: Section) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(section[0], TTL_S, list(section[1]))


def _cut(response: dns.message.Message, limit: int) -> bytes:
    """Return as many records of the last answer as fit."""
    response.flags |= dns.flags.TC
    whole = response.answer.pop()
    records = list(whole)
    fits, too_many = 0, len(records)
    best = response.to_wire(max_size=limit, prefer_truncation=True)
    while too_many - fits > 1:
        count = (fits + too_many) // 2
        part = dns.rrset.from_rdata_list(whole.name, whole.ttl, records[:count])
        response.answer.append(part)
        try:
            best, fits = response.to_wire(max_size=limit), count
        except dns.exception.TooBig:
            too_many = count
        response.answer.pop()
    return best
