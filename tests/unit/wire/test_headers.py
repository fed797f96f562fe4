import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire.peers import AUTHORITY
from zproxy.model.addr import Endpoint
from zproxy.model.workload import Workload
from zproxy.wire.headers import (
    ConnectRequest,
    Headers,
    Refusal,
    answer_block,
    baggage_text,
    connect_block,
    forwarded_text,
    parse_answer,
    parse_request,
    traceparent_text,
)
from zproxy.wire.hpack_blocks import BlockReader, Field

CONNECT = (":method", "CONNECT")
TARGET = (":authority", AUTHORITY)


def fields(*headers: tuple[str, str], huffman: bool = True) -> list[Field]:
    encoder = Encoder()
    encoder.header_table_size = 0
    return BlockReader(1 << 16).read(encoder.encode(headers, huffman=huffman)[1:])


def test_a_connect_is_read_back() -> None:
    block = connect_block(
        AUTHORITY, baggage="k8s.namespace.name=demo", forwarded='for="10.0.0.1:5"', traceparent="00-a-b-00"
    )
    request = parse_request(BlockReader(1 << 16).read(block))
    assert isinstance(request, ConnectRequest)
    assert request.authority == AUTHORITY
    assert request.baggage == "k8s.namespace.name=demo"
    assert request.forwarded == 'for="10.0.0.1:5"'
    assert request.traceparent == "00-a-b-00"


def test_the_pseudo_headers_are_the_two_of_connect_and_lead() -> None:
    block = connect_block(AUTHORITY, baggage="b", forwarded="f", traceparent="t")
    names = [name for name, _ in Decoder().decode(block, raw=True)]
    assert names == [b":method", b":authority", b"baggage", b"forwarded", b"traceparent"]


def test_what_is_empty_is_left_out() -> None:
    names = [name for name, _ in Decoder().decode(connect_block(AUTHORITY), raw=True)]
    assert names == [b":method", b":authority"]


def test_a_block_is_the_same_bytes_on_every_connection() -> None:
    assert connect_block(AUTHORITY, baggage="b") == connect_block(AUTHORITY, baggage="b")


@pytest.mark.parametrize("authority", ["10.0.0.1:1\r\nx: y", "täst:80"])
def test_an_authority_that_http_forbids_is_not_written(authority: str) -> None:
    with pytest.raises(ValueError, match=r"control character|ordinal not in range"):
        connect_block(authority)


@pytest.mark.parametrize("huffman", [True, False])
@pytest.mark.parametrize("authority", [AUTHORITY, "[fd00::5]:80", "web.demo.svc.cluster.local:65535", "h:1"])
def test_any_host_with_a_port_is_an_authority(authority: str, huffman: bool) -> None:
    request = parse_request(fields(CONNECT, (":authority", authority), huffman=huffman))
    assert isinstance(request, ConnectRequest)
    assert request.authority == authority


@pytest.mark.parametrize(
    "authority",
    [
        "",
        "10.0.0.1",
        ":80",
        "h:",
        "h:0",
        "h:65536",
        "h:000080",
        "h:8 0",
        "h h:80",
        "h\x7f:80",
        "h:80\x7f",
        "é:80",
    ],
)
def test_no_authority_no_tunnel(authority: str) -> None:
    request = parse_request([*fields(CONNECT), (b":authority", authority.encode(), False)])
    assert request == Refusal(400, "no valid authority")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([CONNECT], "no valid authority"),
        ([TARGET], "expected method CONNECT"),
        ([(":method", "GET"), TARGET, (":path", "/"), (":scheme", "https")], "expected method CONNECT"),
        ([CONNECT, TARGET, (":path", "/")], "CONNECT with :path"),
        ([CONNECT, TARGET, (":scheme", "https")], "CONNECT with :scheme"),
        ([CONNECT, TARGET, (":protocol", "websocket")], "CONNECT with :protocol"),
        ([CONNECT, TARGET, (":made-up", "1")], "CONNECT with :made-up"),
        ([CONNECT, CONNECT, TARGET], "repeated or late"),
        ([CONNECT, ("baggage", "b"), TARGET], "repeated or late"),
        ([CONNECT, TARGET, ("connection", "close")], "'connection' is not allowed"),
        ([CONNECT, TARGET, ("Upper", "1")], "'Upper' is not allowed"),
        ([CONNECT, TARGET, ("", "1")], "is not allowed"),
        ([], "expected method CONNECT"),
    ],
)
def test_a_malformed_request_is_a_refusal(headers: list[tuple[str, str]], reason: str) -> None:
    request = parse_request(fields(*headers))
    assert isinstance(request, Refusal)
    assert request.status == 400
    assert reason in request.reason


def test_an_authority_that_is_no_huffman_code_is_a_refusal() -> None:
    assert parse_request([*fields(CONNECT), (b":authority", b"\xff\xff\xff\xff", True)]) == Refusal(
        400, "no valid authority"
    )


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ((b"baggage", b"plain", False), "plain"),
        ((b"baggage", b"", False), ""),
        ((b"baggage", b"a\r\nb", False), None),
        ((b"baggage", b"\xc3\xa9", False), None),
        ((b"baggage", b"\xff\xff\xff\xff", True), None),
        ((b"other", b"plain", False), None),
    ],
)
def test_a_header_is_printable_text_or_none(field: Field, text: str | None) -> None:
    assert Headers((field,)).get("baggage") == text


def test_the_first_of_several_fields_counts() -> None:
    assert Headers(((b"a", b"1", False), (b"a", b"2", False))).get("a") == "1"


def test_the_usual_answer_is_one_byte() -> None:
    assert answer_block(200) == b"\x88"


@pytest.mark.parametrize("status", [200, 204, 400, 401, 503])
def test_an_answer_is_read_back(status: int) -> None:
    block = answer_block(status, [("baggage", "b=1")])
    answer = parse_answer(BlockReader(1 << 16).read(block))
    assert answer is not None
    assert answer[0] == status
    assert answer[1].get("baggage") == "b=1"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x", "1")],
        [(":status", "20")],
        [(":status", "abc")],
        [(":status", "2000")],
        [(":status", "200"), (":path", "/")],
        [("x", "1"), (":status", "200")],
        [(":status", "200"), (":status", "200")],
    ],
)
def test_an_answer_without_one_status_is_none(headers: list[tuple[str, str]]) -> None:
    assert parse_answer(fields(*headers)) is None


def test_baggage_is_ztunnels() -> None:
    workload = Workload(
        uid="u",
        name="client-1",
        namespace="demo",
        cluster_id="Kubernetes",
        workload_name="client",
        workload_type="deployment",
        canonical_name="client",
        canonical_revision="v1",
    )
    assert baggage_text(workload) == (
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=demo,k8s.deployment.name=client,"
        "service.name=client,service.version=v1"
    )


def test_baggage_names_the_pod_when_it_has_no_workload_and_leaves_out_what_is_empty() -> None:
    workload = Workload(uid="u", name="client", namespace="demo", cluster_id="a,b=c")
    assert baggage_text(workload) == "k8s.cluster.name=a%2Cb%3Dc,k8s.namespace.name=demo,k8s.pod.name=client"


def test_forwarded_quotes_the_address() -> None:
    assert forwarded_text(Endpoint("10.0.0.1", 5)) == 'for="10.0.0.1:5"'
    assert forwarded_text(Endpoint("fd00::1", 5), "web.demo.svc") == 'for="[fd00::1]:5";host=web.demo.svc'


@given(st.binary(min_size=24, max_size=24))
def test_a_traceparent_has_the_w3c_shape(entropy: bytes) -> None:
    version, trace, span, flags = traceparent_text(entropy).split("-")
    assert (version, flags) == ("00", "00")
    assert bytes.fromhex(trace) == entropy[:16]
    assert bytes.fromhex(span) == entropy[16:]
