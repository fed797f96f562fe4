"""ZDS on the wire: ztunnel's own bytes, and the protobuf runtime as the second opinion."""

import contextlib
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from zproxy.zds import wire
from zproxy.zds.wire import Ack, Add, Delete, Keep, SnapshotSent, WireError, WorkloadInfo

SAMPLES = [
    ("0a 12 0a 05 7569642d30 12 09 0a 01 61 12 01 62 1a 01 63", Add("uid-0", WorkloadInfo("a", "b", "c"))),
    ("2a 07 0a 05 7569642d30", Keep("uid-0")),
    ("12 07 12 05 7569642d30", Delete("uid-0")),
    ("1a 00", SnapshotSent()),
]
ACKS = [("0a 00", Ack()), ("0a 03 0a 01 78", Ack("x"))]

TYPES = descriptor_pb2.FieldDescriptorProto
FIELDS = {
    "WorkloadInfo": [("name", 1, ""), ("namespace", 2, ""), ("service_account", 3, "")],
    "AddWorkload": [("uid", 1, ""), ("workload_info", 2, "WorkloadInfo")],
    "KeepWorkload": [("uid", 1, "")],
    "DelWorkload": [("uid", 2, "")],
    "SnapshotSent": [],
    "Ack": [("error", 1, "")],
    "WorkloadRequest": [
        ("add", 1, "AddWorkload"),
        ("del", 2, "DelWorkload"),
        ("snapshot_sent", 3, "SnapshotSent"),
        ("keep", 5, "KeepWorkload"),
    ],
    "WorkloadResponse": [("ack", 1, "Ack")],
}


def runtime() -> dict[str, Any]:
    """Return the messages as the protobuf runtime makes them from a description."""
    file = descriptor_pb2.FileDescriptorProto(name="zds.proto", package="zds", syntax="proto3")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        is_choice = name in {"WorkloadRequest", "WorkloadResponse"}
        if is_choice:
            message.oneof_decl.add(name="payload")
        for field, number, of in fields:
            made = message.field.add(name=field, number=number, label=TYPES.LABEL_OPTIONAL)
            made.type = TYPES.TYPE_MESSAGE if of else TYPES.TYPE_STRING
            if of:
                made.type_name = f".zds.{of}"
            if is_choice:
                made.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"zds.{name}")) for name in FIELDS}


MESSAGES = runtime()
texts = st.text(max_size=12)
requests = st.one_of(
    st.builds(Add, texts, st.none() | st.builds(WorkloadInfo, texts, texts, texts)),
    st.builds(Keep, texts),
    st.builds(Delete, texts),
    st.just(SnapshotSent()),
)


def as_runtime(request: wire.Request) -> Any:
    message = MESSAGES["WorkloadRequest"]()
    if isinstance(request, Add):
        message.add.SetInParent()
        message.add.uid = request.uid
        if request.info is not None:
            message.add.workload_info.SetInParent()
            for name, text in request.info._asdict().items():
                setattr(message.add.workload_info, name, text)
    elif isinstance(request, Keep):
        message.keep.SetInParent()
        message.keep.uid = request.uid
    elif isinstance(request, Delete):
        deleted = getattr(message, "del")
        deleted.SetInParent()
        deleted.uid = request.uid
    else:
        message.snapshot_sent.SetInParent()
    return message


@pytest.mark.parametrize(("sample", "request_"), SAMPLES)
def test_ztunnels_requests(sample: str, request_: wire.Request) -> None:
    assert wire.encode(request_) == bytes.fromhex(sample)
    assert wire.decode(bytes.fromhex(sample)) == request_


@pytest.mark.parametrize(("sample", "ack"), ACKS)
def test_ztunnels_answers(sample: str, ack: Ack) -> None:
    assert wire.encode_ack(ack) == bytes.fromhex(sample)
    assert wire.decode_ack(bytes.fromhex(sample)) == ack


def test_ztunnels_hello() -> None:
    assert wire.hello() == bytes.fromhex("08 01")
    assert wire.decode_hello(wire.hello()) == 1


@given(requests)
def test_the_runtime_writes_and_reads_the_same(request: wire.Request) -> None:
    theirs = as_runtime(request)
    assert wire.encode(request) == theirs.SerializeToString()
    assert wire.decode(theirs.SerializeToString()) == request


@given(requests, requests)
def test_of_two_payloads_the_last_holds_as_with_the_runtime(one: wire.Request, two: wire.Request) -> None:
    both = wire.encode(one) + wire.encode(two)
    theirs = MESSAGES["WorkloadRequest"].FromString(both)
    assert as_runtime(wire.decode(both)) == theirs


@given(requests, st.integers(6, 1 << 20), st.binary(max_size=40))
def test_unknown_fields_are_skipped(request: wire.Request, number: int, content: bytes) -> None:
    message = MESSAGES["WorkloadRequest"]()
    unknown = wire._field(number, content) + wire._tag(number, 0) + b"\x05"
    unknown += wire._tag(number, 1) + bytes(8) + wire._tag(number, 5) + bytes(4)
    message.MergeFromString(unknown + wire.encode(request))
    assert wire.decode(unknown + wire.encode(request) + unknown) == request


def test_an_unknown_field_inside_is_skipped_too() -> None:
    body = wire._text(1, "uid") + wire._text(9, "later")
    assert wire.decode(wire._field(5, body)) == Keep("uid")


@given(requests, st.data())
def test_what_is_cut_off_is_no_request(request: wire.Request, data: st.DataObject) -> None:
    whole = wire.encode(request)
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(WireError):
        wire.decode(part)


@given(st.binary(max_size=64))
def test_garbage_is_a_request_or_an_error(data: bytes) -> None:
    for read in (wire.decode, wire.decode_ack, wire.decode_hello):
        with contextlib.suppress(WireError):
            assert read(data) is not None


@pytest.mark.parametrize(
    ("packet", "fault"),
    [
        ("", "asks for nothing"),
        ("22 00", "asks for nothing"),  # field 4, which there is no more
        ("08 01", "field 1 is of another type"),
        ("0a 02 08 01", "field 1 is of another type"),
        ("2a 03 0a 01 ff", "field 1 is no UTF-8"),
        ("0b", "wire type 3"),
        ("02 00", "no field 0"),
        ("2a", "truncated"),
        ("2a 05 0a", "truncated: 5 bytes should follow, 1 do"),
        ("2a ff ff ff ff ff ff ff ff ff 7f", "more than 64 bits"),
        ("ff ff ff ff ff ff ff ff ff ff ff", "more than 64 bits"),
    ],
)
def test_what_is_no_request_is_said(packet: str, fault: str) -> None:
    with pytest.raises(WireError, match=fault):
        wire.decode(bytes.fromhex(packet))


def test_an_answer_has_an_ack() -> None:
    with pytest.raises(WireError, match="without an answer"):
        wire.decode_ack(b"")


def test_a_hello_names_its_version_by_a_number() -> None:
    with pytest.raises(WireError, match="another type"):
        wire.decode_hello(bytes.fromhex("0a 01 31"))


@given(st.text(min_size=2000, max_size=2100))
def test_a_long_error_is_cut_to_fit_a_packet(error: str) -> None:
    packet = wire.encode_ack(Ack(error))
    assert len(packet) <= wire.MAX_PACKET
    assert error.startswith(wire.decode_ack(packet).error)
