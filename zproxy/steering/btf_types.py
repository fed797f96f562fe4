"""The types of BTF as values: what a map's key or value consists of (Linux 4.18; tags 5.17, enum64 6.0)."""

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias


class BtfKind(IntEnum):
    """The kind of a type, as stored in bits 24 to 28 of its info word."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


QUALIFIERS: Final = frozenset({BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG})
"""Kinds that only decorate the type that they refer to."""


class IntEncoding(IntEnum):
    """How an integer is meant to be read; zero is unsigned."""

    UNSIGNED = 0
    SIGNED = 1
    CHAR = 2
    BOOL = 4


class Int(NamedTuple):
    """An integer of `bits` bits that start `bit_offset` bits into its `size` bytes."""

    name: str
    size: int
    bits: int
    bit_offset: int
    encoding: int
    """An IntEncoding, or a number that this kernel invented later."""


class Array(NamedTuple):
    """`length` elements, back to back."""

    element: int
    """A type id."""
    length: int


class Member(NamedTuple):
    """A member of a struct or union; `bit_width` 0 means that it is no bitfield."""

    name: str
    type_id: int
    bit_offset: int
    bit_width: int


class Composite(NamedTuple):
    """A struct or a union (whose members all start at 0)."""

    name: str
    size: int
    members: tuple[Member, ...]


class Enum(NamedTuple):
    """An enumeration; `values` keeps the order of declaration, the first match names a number."""

    name: str
    size: int
    values: tuple[tuple[str, int], ...]
    is_wide: bool
    """ENUM64: numbers are 64 bits wide whatever `size` says."""


class Section(NamedTuple):
    """A data section (.bss, .data): variables as (type id, offset in bytes)."""

    name: str
    size: int
    variables: tuple[tuple[int, int], ...]


class Reference(NamedTuple):
    """A type that only refers to another (pointer, typedef, qualifier, variable), or a float or function."""

    kind: BtfKind
    name: str
    target: int
    """A type id; for FLOAT the size in bytes."""


BtfType: TypeAlias = Int | Array | Composite | Enum | Section | Reference
