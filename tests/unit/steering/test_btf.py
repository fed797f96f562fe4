"""Raw BTF: every kind that maps use is read, and nothing that is malformed gets through."""

import struct
from contextlib import suppress

import pytest

from tests.support.btf import BtfBuilder
from zproxy.errors import SteeringError
from zproxy.steering.btf import MAX_DEPTH, MAX_SIZE, Btf
from zproxy.steering.btf_types import Array, BtfKind, Composite, Enum, Int, Member, Reference, Section


def built(builder: BtfBuilder) -> Btf:
    return Btf(builder.blob())


def test_an_integer_has_size_bits_offset_and_encoding() -> None:
    types = BtfBuilder()
    number = types.integer("int", 4, 1)
    part = types.integer("part", 4, 0, bits=5, offset=3)
    btf = built(types)
    assert btf.type(number) == Int("int", 4, 32, 0, 1)
    assert btf.type(part) == Int("part", 4, 5, 3, 0)


def test_members_keep_order_offsets_and_bit_widths() -> None:
    types = BtfBuilder()
    number = types.integer("u32", 4)
    plain = types.struct("plain", 8, [("a", number, 0), ("b", number, 32)])
    bits = types.bitfields("bits", 4, [("a", number, 0, 3), ("b", number, 3, 29)])
    either = types.struct("", 4, [("x", number, 0)], union=True)
    btf = built(types)
    assert btf.type(plain) == Composite("plain", 8, (Member("a", number, 0, 0), Member("b", number, 32, 0)))
    assert btf.type(bits) == Composite("bits", 4, (Member("a", number, 0, 3), Member("b", number, 3, 29)))
    assert btf.type(either) == Composite("", 4, (Member("x", number, 0, 0),))


def test_enumerations_are_signed_numbers() -> None:
    types = BtfBuilder()
    small = types.enum("small", 4, [("MINUS", -1), ("ONE", 1)])
    wide = types.enum64("wide", [("HUGE", 1 << 40), ("MINUS", -1)])
    btf = built(types)
    assert btf.type(small) == Enum("small", 4, (("MINUS", -1), ("ONE", 1)), is_wide=False)
    assert btf.type(wide) == Enum("wide", 8, (("HUGE", 1 << 40), ("MINUS", -1)), is_wide=True)


def test_sections_list_variables_by_offset() -> None:
    types = BtfBuilder()
    number = types.integer("u32", 4)
    variable = types.variable("count", number)
    data = types.section(".data", 8, [(variable, 4, 4)])
    btf = built(types)
    assert btf.type(data) == Section(".data", 8, ((variable, 4),))
    assert btf.size(variable) == 4


def test_typedefs_and_qualifiers_resolve_to_what_they_decorate() -> None:
    types = BtfBuilder()
    number = types.integer("u32", 4)
    deep = types.typedef(
        "outer_t", types.const(types.volatile(types.restrict(types.typedef("inner_t", number))))
    )
    btf = built(types)
    assert btf.resolve(deep) == number
    assert btf.resolve(0) == 0
    assert btf.type(0) == Reference(BtfKind.VOID, "", 0)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_sizes_multiply_through_arrays(length: int) -> None:
    types = BtfBuilder()
    number = types.integer("u16", 2)
    row = types.typedef("row_t", types.array(number, 4, number))
    rows = types.array(row, length, number)
    btf = built(types)
    assert btf.size(rows) == 8 * length
    assert btf.type(rows) == Array(row, length)


def test_pointers_and_floats_have_sizes_and_functions_have_none() -> None:
    types = BtfBuilder()
    pointer, double, forward = types.pointer(0), types.floating("double", 8), types.forward("gone")
    btf = built(types)
    assert (btf.size(pointer), btf.size(double)) == (8, 8)
    for sizeless in (forward, 0):
        with pytest.raises(SteeringError, match="has no size"):
            btf.size(sizeless)


def test_a_chain_of_typedefs_ends_somewhere() -> None:
    types = BtfBuilder()
    types.typedef("loop", 1)
    with pytest.raises(SteeringError, match="typedefs"):
        built(types).resolve(1)
    longest = BtfBuilder()
    target = longest.integer("int", 4)
    for _ in range(MAX_DEPTH - 1):
        target = longest.const(target)
    assert built(longest).resolve(target) == 1


def test_an_array_of_itself_has_no_size() -> None:
    types = BtfBuilder()
    types.array(1, 2, 1)
    with pytest.raises(SteeringError, match="arrays"):
        built(types).size(1)


def header(**changes: int) -> bytes:
    """A good blob with some fields of its header replaced."""
    types = BtfBuilder()
    types.integer("int", 4, 1)
    blob = types.blob()
    names = ("magic", "version", "flags", "size", "type_at", "type_size", "string_at", "string_size")
    fields = dict(zip(names, struct.unpack_from("=HBBIIIII", blob), strict=True))
    return struct.pack("=HBBIIIII", *(fields | changes).values()) + blob[24:]


@pytest.mark.parametrize(
    ("blob", "sentence"),
    [
        (b"", "less than its header"),
        (b"\x9f\xeb\1\0", "less than its header"),
        (header(magic=0x9FEB), "magic 0x9feb"),
        (header(version=2), "version 2"),
        (header(size=8), "sections end outside"),
        (header(type_size=1000), "sections end outside"),
        (header(string_size=1000), "sections end outside"),
        (header(type_size=8), "type 1 runs past the end"),
        (header(type_size=14), "type 1 runs past the end"),
    ],
)
def test_a_malformed_blob_is_one_sentence(blob: bytes, sentence: str) -> None:
    with pytest.raises(SteeringError, match=sentence):
        Btf(blob)


def test_a_blob_larger_than_any_kernel_makes_is_refused() -> None:
    with pytest.raises(SteeringError, match="bytes"):
        Btf(bytes(MAX_SIZE + 1))


def test_an_unknown_kind_is_refused_because_its_length_is_unknown() -> None:
    types = BtfBuilder()
    types.raw(31 << 24, 4)
    with pytest.raises(SteeringError, match="kind 31, which is newer"):
        built(types)


def test_a_struct_that_says_more_members_than_there_are_is_refused() -> None:
    types = BtfBuilder()
    types.raw(4 << 24 | 5, 8, struct.pack("=III", 0, 1, 0))
    with pytest.raises(SteeringError, match="runs past the end"):
        built(types)


def test_what_refers_outside_is_found_when_it_is_asked_for() -> None:
    types = BtfBuilder()
    types.typedef("lost", 99)
    nameless = BtfBuilder()
    nameless.integer("int", 4)
    blob = bytearray(nameless.blob())
    struct.pack_into("=I", blob, 24, 5000)
    with pytest.raises(SteeringError, match="refers to number 99"):
        built(types).resolve(1)
    with pytest.raises(SteeringError, match="a name starts at 5000"):
        Btf(bytes(blob)).type(1)


@pytest.mark.parametrize(("size", "bits", "offset"), [(4, 33, 0), (4, 30, 3), (32, 129, 0)])
def test_an_integer_wider_than_its_storage_is_refused(size: int, bits: int, offset: int) -> None:
    types = BtfBuilder()
    types.integer("wrong", size, 0, bits=bits, offset=offset)
    with pytest.raises(SteeringError, match="integer wrong has"):
        built(types).type(1)


def test_no_mangled_blob_raises_anything_but_a_sentence() -> None:
    types = BtfBuilder()
    number = types.integer("u32", 4)
    types.struct("pair", 8, [("a", number, 0), ("b", types.array(number, 1, number), 32)])
    types.enum("color", 4, [("RED", 0)])
    types.typedef("alias", 2)
    blob = types.blob()
    for at in range(len(blob)):
        for value in (0, 1, 0x7F, 0xFF):
            mangled = blob[:at] + bytes([value]) + blob[at + 1 :]
            with suppress(SteeringError):
                btf = Btf(mangled)
                assert all(btf.size(type_id) >= 0 for type_id in range(1, len(btf)))
