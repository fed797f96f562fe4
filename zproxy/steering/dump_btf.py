"""Typed values as bpftool prints them: BTF types compiled to pieces that turn a record into text.

Two forms share one layout. The text form (a plain dump) writes characters as 0x0 and pointers as addresses;
the JSON form keeps to JSON. Bitfields and odd integers are hexadecimal in both. A kind that bpftool cannot
print breaks off the struct or array around it, and so it does here.
"""

import struct
import sys
from collections.abc import Callable
from itertools import repeat
from typing import Final, NamedTuple

from zproxy.errors import SteeringError
from zproxy.steering.btf import MAX_DEPTH, Btf
from zproxy.steering.btf_types import (
    QUALIFIERS,
    Array,
    BtfKind,
    BtfType,
    Composite,
    Enum,
    Int,
    IntEncoding,
    Reference,
    Section,
)
from zproxy.steering.dump_json import Layout, Piece, moved, text

_NUMBERS: Final[dict[tuple[int, int], str]] = {
    (IntEncoding.UNSIGNED, 8): "B",
    (IntEncoding.UNSIGNED, 16): "H",
    (IntEncoding.UNSIGNED, 32): "I",
    (IntEncoding.UNSIGNED, 64): "Q",
    (IntEncoding.SIGNED, 8): "b",
    (IntEncoding.SIGNED, 16): "h",
    (IntEncoding.SIGNED, 32): "i",
    (IntEncoding.SIGNED, 64): "q",
}
"""Struct codes of the integers that are printed as decimal numbers."""
_SIGNED_CODES: Final = {1: "b", 2: "h", 4: "i", 8: "q"}


class Value(NamedTuple):
    """How to write one value."""

    piece: Piece
    is_broken: bool = False
    """Whether it ends in a kind that cannot be printed: nothing may follow inside the brackets around it."""


class TypedText:
    """Compiles the types of one BTF object for one layout."""

    __slots__ = ("_btf", "_is_json", "_layout")

    def __init__(self, btf: Btf, layout: Layout, *, is_json: bool) -> None:
        self._btf = btf
        self._layout = layout
        self._is_json = is_json

    def compile(self, type_id: int, depth: int, bit_offset: int = 0) -> Value:
        """Return how to write a value of this type at `depth`, `bit_offset` bits into its first byte.

        Raise SteeringError for a type that no map can have.
        """
        if depth > MAX_DEPTH:
            raise SteeringError(f"a value nests more than {MAX_DEPTH} structures deep and is not printed")
        found = self._btf.type(type_id)
        if isinstance(found, Reference) and (found.kind is BtfKind.TYPEDEF or found.kind in QUALIFIERS):
            return self._qualified(type_id, found, depth, bit_offset)
        if isinstance(found, Int):
            return Value(self._int(found, bit_offset))
        return self._compile_whole(found, depth)

    def _compile_whole(self, found: BtfType, depth: int) -> Value:
        match found:
            case Composite():
                return self._composite(found, depth)
            case Array():
                return self._array(found, depth)
            case Enum():
                return Value(self._enum(found))
            case Section():
                return self._section(found, depth)
            case Reference(kind=BtfKind.PTR):
                return Value(self._pointer)
            case Reference(kind=BtfKind.VAR):
                value = self.compile(found.target, depth + 1)
                return Value(self._layout.object([(found.name, value.piece)], depth), value.is_broken)
            case Reference(kind=BtfKind.FLOAT):
                return self._unsupported()
        raise SteeringError(f"a value holds a type that has no size ({found})")

    def _qualified(self, type_id: int, found: Reference, depth: int, bit_offset: int) -> Value:
        if found.kind is BtfKind.TYPE_TAG:
            return self._unsupported()
        return self.compile(self._btf.resolve(type_id), depth, bit_offset)

    def _unsupported(self) -> Value:
        return Value(text(self._layout.dialect.unsupported_kind), is_broken=True)

    def _composite(self, found: Composite, depth: int) -> Value:
        members: list[tuple[str, Piece]] = []
        is_broken = False
        for member in found.members:
            if member.bit_width:
                piece = self._bits(member.bit_offset, member.bit_width)
                end = member.bit_offset + member.bit_width
            else:
                value = self.compile(member.type_id, depth + 1, member.bit_offset & 7)
                piece, is_broken = moved(value.piece, member.bit_offset >> 3), value.is_broken
                end = member.bit_offset + self._width(member.type_id)
            if end > 8 * found.size:
                raise SteeringError(
                    f"member {member.name} of {found.name} lies outside its {found.size} bytes"
                )
            members.append((member.name, piece))
            if is_broken:
                break
        return Value(self._layout.object(members, depth), is_broken)

    def _width(self, type_id: int) -> int:
        """Return the bits that a member takes: for a bitfield of the old kind its own width."""
        found = self._btf.type(self._btf.resolve(type_id))
        return found.bit_offset + found.bits if isinstance(found, Int) else 8 * self._btf.size(type_id)

    def _array(self, found: Array, depth: int) -> Value:
        element = self.compile(found.element, depth + 1)
        listed = self._list(found, element, depth)
        if not self._is_text(found):
            return Value(listed, element.is_broken and found.length > 0)
        quote = self._layout.dialect.quote

        def string_or_list(record: bytes, at: int) -> str:
            string, end, _ = record[at : at + found.length].partition(b"\0")
            is_printable = end and all(0x1F < byte < 0x7F for byte in string)
            return quote(string.decode("ascii")) if is_printable else listed(record, at)

        return Value(string_or_list)

    def _list(self, found: Array, element: Value, depth: int) -> Piece:
        count = min(found.length, 1) if element.is_broken else found.length
        if not count:
            return text("[]")
        tail = self._layout.line(depth) + "]"
        item = self._btf.type(self._btf.resolve(found.element))
        code = _number_code(item) if isinstance(item, Int) and item.bits == 8 * item.size else None
        if code is not None:
            numbers = struct.Struct(f"={count}{code}")
            return lambda record, at: "[" + ",".join(map(str, numbers.unpack_from(record, at))) + tail
        size, piece = self._btf.size(found.element), element.piece

        def render(record: bytes, at: int) -> str:
            places = range(at, at + count * size, size) if size else repeat(at, count)
            return "[" + ",".join([piece(record, place) for place in places]) + tail

        return render

    def _is_text(self, found: Array) -> bool:
        """Whether the elements are plain `char`, through qualifiers but not through a typedef."""
        element = self._btf.type(found.element)
        for _ in range(MAX_DEPTH):
            if not isinstance(element, Reference) or element.kind not in QUALIFIERS:
                break
            element = self._btf.type(element.target)
        if not isinstance(element, Int) or element.size != 1:
            return False
        return element.encoding == IntEncoding.CHAR or element.name == "char"

    def _section(self, found: Section, depth: int) -> Value:
        pieces: list[Piece] = []
        is_broken = False
        for type_id, offset in found.variables:
            value = self.compile(type_id, depth + 2)
            if offset + self._btf.size(type_id) > found.size:
                raise SteeringError(f"a variable of section {found.name} lies outside its {found.size} bytes")
            pieces.append(moved(value.piece, offset))
            is_broken = value.is_broken
            if is_broken:
                break
        return Value(
            self._layout.object([(found.name, self._layout.array(pieces, depth + 1))], depth), is_broken
        )

    def _int(self, found: Int, bit_offset: int) -> Piece:
        is_bitfield = bit_offset or found.bit_offset or found.bits & 7
        if is_bitfield or found.bits == 128:
            return self._bits(bit_offset + found.bit_offset, found.bits)
        if found.encoding == IntEncoding.BOOL:
            return lambda record, at: "true" if record[at] else "false"
        if found.encoding == IntEncoding.CHAR:
            return self._char
        if found.encoding not in (IntEncoding.UNSIGNED, IntEncoding.SIGNED):
            raise SteeringError(
                f"integer {found.name} has encoding {found.encoding}, which no program here knows"
            )
        code = _number_code(found)
        return _number(code) if code else self._bits(0, found.bits)

    def _bits(self, start: int, width: int) -> Piece:
        """Return a piece for `width` bits from bit `start`, counted as this machine's compiler does."""
        first, shift = start >> 3, start & 7
        size = (shift + width + 7) >> 3
        if sys.byteorder == "big":
            shift = 8 * size - shift - width
        mask = (1 << width) - 1
        quote = '"' if self._is_json else ""

        def render(record: bytes, at: int) -> str:
            number = int.from_bytes(record[at + first : at + first + size], sys.byteorder)
            return f"{quote}{number >> shift & mask:#x}{quote}"

        return render

    def _char(self, record: bytes, at: int) -> str:
        byte = record[at]
        if 0x20 <= byte < 0x7F:
            return f'"{chr(byte)}"'
        return f'"\\u00{byte:02x}"' if self._is_json else f"{byte:#x}"

    def _enum(self, found: Enum) -> Piece:
        code = _SIGNED_CODES.get(8 if found.is_wide else found.size)
        if code is None:
            raise SteeringError(f"enumeration {found.name} has {found.size} bytes")
        number = struct.Struct(f"={code}")
        names: dict[int, str] = {}
        for name, value in found.values:
            names.setdefault(_signed(value, 64), self._layout.dialect.quote(name))

        def render(record: bytes, at: int) -> str:
            (value,) = number.unpack_from(record, at)
            return names.get(value) or str(value)

        return render

    def _pointer(self, record: bytes, at: int) -> str:
        (value,) = struct.unpack_from("=Q", record, at)
        if self._is_json:
            return str(value)
        quote = '"' if self._layout.dialect.quotes_pointers else ""
        return f"{quote}{f'{value:#x}' if value else '(nil)'}{quote}"


def _number_code(found: Int) -> str | None:
    return None if found.bit_offset else _NUMBERS.get((found.encoding, found.bits))


def _number(code: str) -> Callable[[bytes, int], str]:
    unpack = struct.Struct(f"={code}").unpack_from
    return lambda record, at: str(unpack(record, at)[0])


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value
