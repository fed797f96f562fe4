import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.update
import pytest

from zproxy.dns.message import (
    LARGEST_PAYLOAD,
    SMALLEST_PAYLOAD,
    TTL_S,
    MalformedError,
    Query,
    answer,
    as_nodata,
    failure,
    is_answer_to,
    is_nxdomain,
    parse,
    question_size,
    truncated,
    with_id,
)

WHY = dns.edns.EDECode.NETWORK_ERROR


def wire(name: str = "a.test", kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type] # as dnspython takes them


def addresses(count: int) -> list[dns.rdata.Rdata]:
    return [dns.rdata.from_text("IN", "A", f"240.0.{n >> 8}.{n & 255}") for n in range(count)]


def answered(query: Query, count: int, limit: int) -> dns.message.Message:
    name = dns.name.from_text("a.test")
    return dns.message.from_wire(answer(query, limit, [(name, addresses(count))]))


def test_a_query() -> None:
    query = parse(wire("Server.DEMO.svc", "AAAA"))
    assert (query.name, query.kind, query.payload) == (
        "server.demo.svc",
        dns.rdatatype.AAAA,
        SMALLEST_PAYLOAD,
    )


@pytest.mark.parametrize(("said", "payload"), [(100, 512), (1232, 1232), (65535, LARGEST_PAYLOAD)])
def test_how_much_the_client_takes(said: int, payload: int) -> None:
    assert parse(wire(use_edns=0, payload=said)).payload == payload


def test_the_same_question_again_has_its_own_id() -> None:
    first, second = parse(with_id(wire(), 7)), parse(with_id(wire(), 0xFFFF))
    assert (first.id, second.id) == (7, 0xFFFF)
    assert first.wire[2:] == second.wire[2:]
    replies = [answered(second, 1, 512), dns.message.from_wire(failure(second, dns.rcode.SERVFAIL, WHY, ""))]
    assert [reply.id for reply in replies] == [0xFFFF, 0xFFFF]


@pytest.mark.parametrize("bad", [wire() + b"trailing", wire(use_edns=1)], ids=["format", "version"])
def test_the_same_fault_again_has_its_own_id(bad: bytes) -> None:
    for number in (7, 0xFFFF):
        with pytest.raises(MalformedError) as caught:
            parse(with_id(bad, number))
        assert dns.message.from_wire(caught.value.reply).id == number


def test_a_question_of_any_length_is_read() -> None:
    long = dns.message.make_query("a.test", "A", use_edns=0, pad=600).to_wire()
    assert len(long) > SMALLEST_PAYLOAD
    assert parse(long).name == "a.test"


def test_another_class_is_none_of_ours() -> None:
    assert parse(wire("version.bind", "TXT", rdclass="CH")).kind == dns.rdatatype.NONE


def test_other_opcodes_are_passed_on_only() -> None:
    update = dns.update.UpdateMessage("example.com")
    update.add("a", 300, "A", "10.0.0.1")
    query = parse(update.to_wire())
    assert query.message is None
    assert dns.message.from_wire(failure(query, dns.rcode.SERVFAIL, WHY, "")).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize("data", [b"", b"x" * 11])
def test_what_has_no_header_is_answered_by_nothing(data: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        parse(data)
    assert caught.value.reply == b""


def test_what_is_no_query_is_a_format_error() -> None:
    good = wire()
    response = dns.message.make_response(dns.message.from_wire(good)).to_wire()
    two = dns.message.from_wire(good)
    two.question = two.question * 2
    none = good[:4] + bytes(8)
    for data in (response, two.to_wire(), none, good[:-3], good + b"more", good[:12] + b"\xff" * 40):
        with pytest.raises(MalformedError) as caught:
            parse(data)
        reply = caught.value.reply
        assert reply[:2] == data[:2]
        assert dns.message.from_wire(reply).rcode() == dns.rcode.FORMERR
        assert len(reply) == 12  # never more than was sent


def test_an_unknown_version_of_edns() -> None:
    with pytest.raises(MalformedError) as caught:
        parse(wire(use_edns=1))
    assert dns.message.from_wire(caught.value.reply).rcode() == dns.rcode.BADVERS


def test_an_answer_of_the_mesh() -> None:
    query = parse(wire("A.test", use_edns=0))
    reply = answered(query, 2, 512)
    assert reply.flags & dns.flags.AA
    assert reply.flags & dns.flags.RA
    assert reply.flags & dns.flags.QR
    assert reply.edns == 0
    assert reply.id == query.id
    assert (reply.answer[0].ttl, len(reply.answer[0])) == (TTL_S, 2)
    assert reply.question[0].name.to_text() == "A.test."


def test_nothing_is_nodata() -> None:
    reply = answered(parse(wire()), 0, 512)
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize(("payload", "expected"), [(None, 30), (1232, 74), (4096, 253)])
def test_what_does_not_fit_is_cut(payload: int | None, expected: int) -> None:
    query = parse(wire("large.com") if payload is None else wire("large.com", use_edns=0, payload=payload))
    name = dns.name.from_text("large.com")
    data = answer(query, query.payload, [(name, addresses(256))])
    reply = dns.message.from_wire(data)
    assert reply.flags & dns.flags.TC
    assert len(reply.answer[0]) == expected
    assert query.payload - 16 < len(data) <= query.payload


def test_all_fit_over_tcp() -> None:
    reply = answered(parse(wire()), 256, 65535)
    assert not reply.flags & dns.flags.TC
    assert len(reply.answer[0]) == 256


def test_what_only_helps_goes_first() -> None:
    query, name = parse(wire()), dns.name.from_text("a.test")
    reply = dns.message.from_wire(answer(query, 512, [(name, addresses(20))], [(name, addresses(20))]))
    assert not reply.flags & dns.flags.TC
    assert (len(reply.answer[0]), reply.additional) == (20, [])


def test_a_failure_says_why_to_those_who_understand() -> None:
    reply = dns.message.from_wire(failure(parse(wire(use_edns=0)), dns.rcode.SERVFAIL, WHY, "no route"))
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert [(each.code, each.text) for each in reply.options] == [(WHY, "no route")]
    assert dns.message.from_wire(failure(parse(wire()), dns.rcode.SERVFAIL, WHY, "")).edns == -1


def test_a_failure_fits_whatever_it_has_to_say() -> None:
    longest = ".".join(["x" * 63] * 3 + ["y" * 61])
    for payload in (0, 512):
        query = parse(wire(longest, use_edns=0, payload=payload))
        assert len(failure(query, dns.rcode.SERVFAIL, WHY, "because " * 999)) <= 512


def test_a_truncated_answer_is_a_question_and_nothing_else() -> None:
    query = parse(wire())
    reply = dns.message.from_wire(
        truncated(query, answer(query, 65535, [(dns.name.from_text("a.test"), addresses(99))]))
    )
    assert reply.flags & dns.flags.TC
    assert (reply.question, reply.answer) == (dns.message.from_wire(query.wire).question, [])


def test_whose_answer_it_can_be() -> None:
    sent = wire("a.test")
    reply = dns.message.make_response(dns.message.from_wire(sent)).to_wire()
    assert is_answer_to(sent, reply)
    assert is_answer_to(sent, reply.replace(b"\x01a\x04test", b"\x01A\x04TEST"))
    assert is_answer_to(sent, reply[:3] + bytes((dns.rcode.FORMERR,)) + bytes(8))
    assert not is_answer_to(sent, sent)
    assert not is_answer_to(sent, b"")
    assert not is_answer_to(sent, with_id(reply, int.from_bytes(sent[:2], "big") ^ 1))
    assert not is_answer_to(sent, reply.replace(b"test", b"best"))
    assert not is_answer_to(sent, reply.replace(b"test\0\0\1", b"test\0\0\x1c"))
    assert not is_answer_to(sent, bytes((*reply[:2], reply[2] | 5 << 3, *reply[3:])))
    assert not is_answer_to(sent, reply[:4] + bytes(8))


def test_the_size_of_a_question() -> None:
    assert question_size(wire("a.test")) == len(wire("a.test")) - 12
    assert question_size(bytes(12)) == 0
    assert question_size(b"\0\0\0\0\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1") == 6


def test_a_name_that_exists_is_not_denied() -> None:
    query = parse(wire())
    denied = failure(query, dns.rcode.NXDOMAIN, WHY, "")
    assert is_nxdomain(denied)
    assert not is_nxdomain(as_nodata(denied))
    assert dns.message.from_wire(as_nodata(denied)).rcode() == dns.rcode.NOERROR
