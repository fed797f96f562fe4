"""Raw BTF for tests, written type by type. Ids count from 1 in the order of the calls."""

import struct
from collections.abc import Iterable, Sequence


class BtfBuilder:
    """Collects types; `blob()` is what BPF_BTF_LOAD takes. Every method returns the id of the new type."""

    def __init__(self) -> None:
        self._types = bytearray()
        self._strings = bytearray(b"\0")
        self._count = 0

    def integer(self, name: str, size: int, encoding: int = 0, bits: int = 0, offset: int = 0) -> int:
        return self._add(
            name, 1, 0, size, struct.pack("=I", encoding << 24 | offset << 16 | (bits or 8 * size))
        )

    def pointer(self, target: int) -> int:
        return self._add("", 2, 0, target)

    def array(self, element: int, length: int, index: int) -> int:
        return self._add("", 3, 0, 0, struct.pack("=III", element, index, length))

    def struct(
        self, name: str, size: int, members: Sequence[tuple[str, int, int]], *, union: bool = False
    ) -> int:
        """Members are (name, type id, offset in bits)."""
        tail = b"".join(struct.pack("=III", self._string(n), t, at) for n, t, at in members)
        return self._add(name, 5 if union else 4, len(members), size, tail)

    def bitfields(self, name: str, size: int, members: Sequence[tuple[str, int, int, int]]) -> int:
        """A struct with members (name, type id, offset in bits, width in bits; 0 for an ordinary member)."""
        tail = b"".join(
            struct.pack("=III", self._string(n), t, width << 24 | at) for n, t, at, width in members
        )
        return self._add(name, 4, len(members) | 1 << 31, size, tail)

    def enum(self, name: str, size: int, values: Iterable[tuple[str, int]], *, signed: bool = True) -> int:
        listed = list(values)
        tail = b"".join(struct.pack("=II", self._string(n), value & 0xFFFFFFFF) for n, value in listed)
        return self._add(name, 6, len(listed) | int(signed) << 31, size, tail)

    def enum64(self, name: str, values: Iterable[tuple[str, int]], *, signed: bool = True) -> int:
        listed = list(values)
        tail = b"".join(
            struct.pack("=III", self._string(n), value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF)
            for n, value in listed
        )
        return self._add(name, 19, len(listed) | int(signed) << 31, 8, tail)

    def forward(self, name: str) -> int:
        return self._add(name, 7, 0, 0)

    def typedef(self, name: str, target: int) -> int:
        return self._add(name, 8, 0, target)

    def volatile(self, target: int) -> int:
        return self._add("", 9, 0, target)

    def const(self, target: int) -> int:
        return self._add("", 10, 0, target)

    def restrict(self, target: int) -> int:
        return self._add("", 11, 0, target)

    def prototype(self, result: int) -> int:
        """A function type without parameters."""
        return self._add("", 13, 0, result)

    def function(self, name: str, prototype: int) -> int:
        return self._add(name, 12, 0, prototype)

    def variable(self, name: str, target: int) -> int:
        return self._add(name, 14, 0, target, struct.pack("=I", 1))

    def section(self, name: str, size: int, variables: Sequence[tuple[int, int, int]]) -> int:
        """Variables are (type id, offset in bytes, size)."""
        tail = b"".join(struct.pack("=III", *variable) for variable in variables)
        return self._add(name, 15, len(variables), size, tail)

    def floating(self, name: str, size: int) -> int:
        return self._add(name, 16, 0, size)

    def type_tag(self, name: str, target: int) -> int:
        return self._add(name, 18, 0, target)

    def raw(self, info: int, size: int, tail: bytes = b"") -> int:
        """A type whose info word is given whole, for blobs that are meant to be wrong."""
        self._types += struct.pack("=III", 0, info, size) + tail
        self._count += 1
        return self._count

    def blob(self) -> bytes:
        header = struct.pack(
            "=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self._types), len(self._types), len(self._strings)
        )
        return header + bytes(self._types) + bytes(self._strings)

    def _add(self, name: str, kind: int, info: int, size: int, tail: bytes = b"") -> int:
        self._types += struct.pack("=III", self._string(name), kind << 24 | info, size) + tail
        self._count += 1
        return self._count

    def _string(self, name: str) -> int:
        if not name:
            return 0
        at = len(self._strings)
        self._strings += name.encode() + b"\0"
        return at
