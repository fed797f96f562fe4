"""ZDS messages (package istio.workload.zds) as bytes: Protocol Buffers, one message to a packet.

Written by hand: eight messages of strings in packets of at most MAX_PACKET bytes. Generated code would bring
the protobuf runtime into a daemon that has no other use for it. Names and numbers of fields are ztunnel's
(its `zds.proto`); `tests/unit/zds/test_wire.py` compares every message with the runtime's own encoding.

What does not fit is refused, as ztunnel does: truncation, a known field of another wire type, text that is no
UTF-8. Unknown fields are skipped, of a field or a member that comes twice the last one holds.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_PACKET: Final = 1024
"""Of a message, at either end (ztunnel's and istio-cni's buffer)."""
VERSION: Final = 1
"""The version of the protocol that the hello names; there is no other."""

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED: Final = {_I64: 8, _I32: 4}
_MAX_FIELD: Final = (1 << 29) - 1


class WireError(ValueError):
    """A packet is no message of this protocol; the text says what is wrong with it."""


class WorkloadInfo(NamedTuple):
    """Who a pod is."""

    name: str
    namespace: str
    service_account: str


class Add(NamedTuple):
    """Take this pod; the descriptor of its network namespace came along."""

    uid: str
    info: WorkloadInfo | None = None


class Keep(NamedTuple):
    """This pod is still there, and its namespace cannot be handed over again."""

    uid: str


class Delete(NamedTuple):
    """Let this pod go."""

    uid: str


class SnapshotSent(NamedTuple):
    """All pods of the node have been named."""


class Ack(NamedTuple):
    """The answer to one request; with an error it says that the request was not carried out."""

    error: str = ""


Request = Add | Keep | Delete | SnapshotSent

_ADD, _DELETE, _SNAPSHOT, _KEEP = 1, 2, 3, 5


def hello() -> bytes:
    """Return ZdsHello, the first packet on a connection."""
    return _tag(1, _VARINT) + _varint(VERSION)


def encode(request: Request) -> bytes:
    """Return a WorkloadRequest, as istio-cni sends it."""
    if isinstance(request, Add):
        info = b"" if request.info is None else _field(2, b"".join(_texts(request.info)))
        return _field(_ADD, _text(1, request.uid) + info)
    if isinstance(request, Keep):
        return _field(_KEEP, _text(1, request.uid))
    if isinstance(request, Delete):
        return _field(_DELETE, _text(2, request.uid))  # 2, not 1
    return _field(_SNAPSHOT, b"")


def decode(packet: bytes) -> Request:
    """Return what a WorkloadRequest says; raise WireError."""
    kind, body = 0, b""
    for number, value in _fields(packet):
        if number in (_ADD, _DELETE, _SNAPSHOT, _KEEP):
            content = _content(value, number)
            body = body + content if number == kind else content  # halves of one message are one
            kind = number
    if kind == _ADD:
        return _add(body)
    if kind == _KEEP:
        return Keep(_strings(body, (1,))[0])
    if kind == _DELETE:
        return Delete(_strings(body, (2,))[0])
    if kind == _SNAPSHOT:
        _strings(body, ())
        return SnapshotSent()
    raise WireError("a request that asks for nothing")


def encode_ack(ack: Ack) -> bytes:
    """Return a WorkloadResponse; an error that would not fit into a packet is cut short."""
    text = ack.error.encode()[: MAX_PACKET - 8].decode(errors="ignore")
    return _field(1, _text(1, text))


def decode_ack(packet: bytes) -> Ack:
    """Return what a WorkloadResponse says; raise WireError."""
    body: bytes | None = None
    for number, value in _fields(packet):
        if number == 1:
            body = (body or b"") + _content(value, number)
    if body is None:
        raise WireError("a response without an answer")
    return Ack(_strings(body, (1,))[0])


def decode_hello(packet: bytes) -> int:
    """Return the version that a ZdsHello names; raise WireError."""
    version = 0
    for number, value in _fields(packet):
        if number == 1:
            if isinstance(value, bytes):
                raise WireError("field 1 is of another type")
            version = value
    return version


def _add(body: bytes) -> Add:
    info: bytes | None = None
    for number, value in _fields(body):
        if number == 2:
            info = (info or b"") + _content(value, number)
    (uid,) = _strings(body, (1,))
    return Add(uid, None if info is None else WorkloadInfo(*_strings(info, (1, 2, 3))))


def _strings(body: bytes, numbers: tuple[int, ...]) -> list[str]:
    """Return the text of each of these fields, "" where there is none."""
    found = dict.fromkeys(numbers, "")
    for number, value in _fields(body):
        if number in found:
            try:
                found[number] = _content(value, number).decode()
            except UnicodeDecodeError:
                raise WireError(f"field {number} is no UTF-8") from None
    return list(found.values())


def _content(value: int | bytes, number: int) -> bytes:
    if isinstance(value, int):
        raise WireError(f"field {number} is of another type")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of every field; one of fixed width is the number that it holds."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD:
            raise WireError(f"there is no field {number}")
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value
        elif kind == _LEN:
            length, at = _read_varint(data, at)
            yield number, _cut(data, at, length)
            at += length
        elif kind in _FIXED:
            yield number, int.from_bytes(_cut(data, at, _FIXED[kind]), "little")
            at += _FIXED[kind]
        else:
            raise WireError(f"field {number} has wire type {kind}, which proto3 does not know")


def _cut(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise WireError(f"truncated: {length} bytes should follow, {len(data) - at} do")
    return data[at : at + length]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("truncated: a number does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise WireError("a number of more than 64 bits")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _field(number: int, content: bytes) -> bytes:
    return _tag(number, _LEN) + _varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode()) if text else b""  # what is default is not sent


def _texts(texts: tuple[str, ...]) -> Iterator[bytes]:
    return (_text(number, text) for number, text in enumerate(texts, start=1))
