"""BTF, the kernel's type information (Linux 4.18, enum64 6.0): the types that maps are made of.

Reads the raw blob that BPF_OBJ_GET_INFO_BY_FD returns for a BTF object, or /sys/kernel/btf/vmlinux. Only the
place of each type is indexed at first; a type is decoded when it is asked for, so that the kernel's own
hundred thousand types cost one pass. Everything is bounded by the blob; what does not fit is a SteeringError.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zproxy.errors import SteeringError
from zproxy.steering.btf_types import (
    QUALIFIERS,
    Array,
    BtfKind,
    BtfType,
    Composite,
    Enum,
    Int,
    Member,
    Reference,
    Section,
)
from zproxy.steering.info import btf_info
from zproxy.steering.syscall import Kind, fd_by_id

MAGIC: Final = 0xEB9F
VERSION: Final = 1
VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
"""The kernel's own types (CONFIG_DEBUG_INFO_BTF)."""
MAX_SIZE: Final = 1 << 26
"""Bytes of a blob: four times what the kernel accepts."""
MAX_DEPTH: Final = 32
"""Links in a chain of typedefs, qualifiers and arrays; libbpf's own bound."""

_HEADER: Final = struct.Struct("=HBBIIIII")
_TYPE: Final = struct.Struct("=III")
POINTER_SIZE: Final = 8
"""Of the BPF target, whatever this machine's is."""


_TRANSPARENT: Final = QUALIFIERS | {BtfKind.TYPEDEF}
_TRAILER: Final[dict[BtfKind, tuple[int, int]]] = {
    BtfKind.INT: (4, 0),
    BtfKind.ARRAY: (12, 0),
    BtfKind.STRUCT: (0, 12),
    BtfKind.UNION: (0, 12),
    BtfKind.ENUM: (0, 8),
    BtfKind.FUNC_PROTO: (0, 8),
    BtfKind.VAR: (4, 0),
    BtfKind.DATASEC: (0, 12),
    BtfKind.DECL_TAG: (4, 0),
    BtfKind.ENUM64: (0, 12),
}
"""Bytes behind the three words of a type: fixed, and for each of its `vlen` parts."""


class Btf:
    """The types of one BTF object, by id. Id 0 is void."""

    __slots__ = ("_at", "_blob", "_cache", "_decoders", "_strings")

    def __init__(self, blob: bytes) -> None:
        """Index `blob`; raise SteeringError when it is not well-formed BTF of this machine's byte order."""
        if len(blob) > MAX_SIZE:
            raise _malformed(f"it has {len(blob)} bytes")
        types, self._strings = _sections(blob)
        self._blob = blob
        self._at = _index(blob, types)
        self._cache: dict[int, BtfType] = {}
        self._decoders: dict[BtfKind, Callable[[int, tuple[int, int, int]], BtfType]] = {
            BtfKind.INT: self._int,
            BtfKind.ARRAY: self._array,
            BtfKind.STRUCT: self._composite,
            BtfKind.UNION: self._composite,
            BtfKind.ENUM: self._enum,
            BtfKind.ENUM64: self._enum,
            BtfKind.DATASEC: self._section,
        }

    def __len__(self) -> int:
        return len(self._at)

    def type(self, type_id: int) -> BtfType:
        """Return a type; raise SteeringError when there is none of that id."""
        found = self._cache.get(type_id)
        if found is None:
            found = self._cache[type_id] = self._decode(type_id)
        return found

    def resolve(self, type_id: int) -> int:
        """Return the id behind any typedefs and qualifiers."""
        for _ in range(MAX_DEPTH):
            found = self.type(type_id)
            if not isinstance(found, Reference) or found.kind not in _TRANSPARENT:
                return type_id
            type_id = found.target
        raise _malformed(f"type {type_id} ends a chain of more than {MAX_DEPTH} typedefs")

    def size(self, type_id: int) -> int:
        """Return the bytes that a value of this type takes; raise SteeringError when it has no size."""
        factor = 1
        for _ in range(MAX_DEPTH):
            found = self.type(self.resolve(type_id))
            if isinstance(found, Array):
                factor *= found.length
                type_id = found.element
            elif isinstance(found, Reference) and found.kind is BtfKind.VAR:
                type_id = found.target
            else:
                return factor * _own_size(found, type_id)
        raise _malformed(f"type {type_id} ends a chain of more than {MAX_DEPTH} arrays")

    def _decode(self, type_id: int) -> BtfType:
        if type_id == 0:
            return Reference(BtfKind.VOID, "", 0)
        if not 0 < type_id < len(self._at):
            raise _malformed(f"it has {len(self._at) - 1} types and one refers to number {type_id}")
        at = self._at[type_id]
        words = _TYPE.unpack_from(self._blob, at)
        kind = _kind(words[1])
        decoder = self._decoders.get(kind)
        if decoder is None:
            return Reference(kind, self._name(words[0]), words[2])
        return decoder(at + _TYPE.size, words)

    def _name(self, offset: int) -> str:
        start = self._strings.start + offset
        end = self._blob.find(b"\0", start, self._strings.stop)
        if end < 0:
            raise _malformed(f"a name starts at {offset}, outside the strings")
        return self._blob[start:end].decode("utf-8", "surrogateescape")

    def _int(self, at: int, words: tuple[int, int, int]) -> Int:
        (word,) = struct.unpack_from("=I", self._blob, at)
        found = Int(self._name(words[0]), words[2], word & 0xFF, word >> 16 & 0xFF, word >> 24 & 0xF)
        if found.bits > 128 or found.bits + found.bit_offset > 8 * found.size:
            raise _malformed(f"integer {found.name} has {found.bits} bits in {found.size} bytes")
        return found

    def _array(self, at: int, _words: tuple[int, int, int]) -> Array:
        element, _, length = struct.unpack_from("=III", self._blob, at)
        return Array(element, length)

    def _composite(self, at: int, words: tuple[int, int, int]) -> Composite:
        members = []
        for name, type_id, place in struct.iter_unpack("=III", self._parts(at, words[1], 12)):
            width, offset = (place >> 24, place & 0xFFFFFF) if words[1] >> 31 else (0, place)
            members.append(Member(self._name(name), type_id, offset, width))
        return Composite(self._name(words[0]), words[2], tuple(members))

    def _enum(self, at: int, words: tuple[int, int, int]) -> Enum:
        is_wide = _kind(words[1]) is BtfKind.ENUM64
        values: list[tuple[str, int]] = []
        if is_wide:
            for name, low, high in struct.iter_unpack("=IIi", self._parts(at, words[1], 12)):
                values.append((self._name(name), high << 32 | low))
        else:
            values = [
                (self._name(name), n) for name, n in struct.iter_unpack("=Ii", self._parts(at, words[1], 8))
            ]
        return Enum(self._name(words[0]), words[2], tuple(values), is_wide)

    def _section(self, at: int, words: tuple[int, int, int]) -> Section:
        parts = struct.iter_unpack("=III", self._parts(at, words[1], 12))
        return Section(
            self._name(words[0]), words[2], tuple((type_id, offset) for type_id, offset, _ in parts)
        )

    def _parts(self, at: int, info: int, size: int) -> bytes:
        return self._blob[at : at + size * (info & 0xFFFF)]


def load(btf_id: int) -> Btf:
    """Read the BTF object `btf_id` from the kernel; raise OSError when it has gone or is refused."""
    fd = fd_by_id(Kind.BTF, btf_id)
    try:
        return Btf(btf_info(fd).data)
    finally:
        os.close(fd)


def load_vmlinux() -> Btf:
    """Read the kernel's own types; raise OSError when this kernel was built without them."""
    return Btf(VMLINUX.read_bytes())


def _malformed(what: str) -> SteeringError:
    return SteeringError(f"the type information (BTF) of the map cannot be read: {what}")


def _sections(blob: bytes) -> tuple[range, range]:
    if len(blob) < _HEADER.size:
        raise _malformed(f"{len(blob)} bytes are less than its header")
    magic, version, _, header, type_at, type_size, string_at, string_size = _HEADER.unpack_from(blob)
    if magic != MAGIC or version != VERSION:
        raise _malformed(f"magic {magic:#x} and version {version} are not {MAGIC:#x} and {VERSION}")
    types = range(header + type_at, header + type_at + type_size)
    strings = range(header + string_at, header + string_at + string_size)
    if header < _HEADER.size or max(types.stop, strings.stop) > len(blob):
        raise _malformed(f"its sections end outside its {len(blob)} bytes")
    return types, strings


def _index(blob: bytes, types: range) -> list[int]:
    places = [0]
    at = types.start
    while at < types.stop:
        if at + _TYPE.size > types.stop:
            raise _malformed(f"type {len(places)} runs past the end")
        places.append(at)
        info = _TYPE.unpack_from(blob, at)[1]
        fixed, each = _TRAILER.get(_kind(info), (0, 0))
        at += _TYPE.size + fixed + each * (info & 0xFFFF)
    if at != types.stop:
        raise _malformed(f"type {len(places) - 1} runs past the end")
    return places


def _kind(info: int) -> BtfKind:
    try:
        return BtfKind(info >> 24 & 0x1F)
    except ValueError:
        raise _malformed(f"it uses kind {info >> 24 & 0x1F}, which is newer than this program") from None


def _own_size(found: BtfType, type_id: int) -> int:
    if isinstance(found, Int | Composite | Enum | Section):
        return found.size
    if isinstance(found, Reference) and found.kind is BtfKind.PTR:
        return POINTER_SIZE
    if isinstance(found, Reference) and found.kind is BtfKind.FLOAT:
        return found.target
    raise _malformed(f"type {type_id} has no size")
