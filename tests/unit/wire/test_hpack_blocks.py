"""Our literals against hpack's decoder, and our reader against hpack as the oracle."""

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from zproxy.wire import hpack_blocks
from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.hpack_blocks import (
    NO_TABLE,
    BlockReader,
    Field,
    coded,
    decoded,
    indexed,
    literal,
    literal_name,
    plain,
)

LIMIT = 1 << 16
NAMES = st.sampled_from(
    [":method", ":authority", ":status", ":path", "baggage", "traceparent", "date", "x-new"]
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=300)
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=12)


class Unaided(BlockReader):
    """Must read everything by itself."""

    def _decode(self, block: bytes) -> list[Field]:
        raise AssertionError(block)


def values(fields: list[Field]) -> list[tuple[bytes, bytes | None]]:
    return [(field[0], plain(field)) for field in fields]


def expected(fields: list[tuple[str, str, bool]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value, _ in fields]


@given(FIELDS)
def test_hpack_and_we_read_what_we_write(fields: list[tuple[str, str, bool]]) -> None:
    block = NO_TABLE + b"".join(literal(name, value) for name, value, _ in fields)
    decoder = Decoder(LIMIT)
    decoder.max_allowed_table_size = 0
    assert values(BlockReader(LIMIT).read(block)) == expected(fields)
    assert [tuple(header) for header in decoder.decode(block, raw=True)] == expected(fields)


@given(FIELDS)
def test_we_read_our_literals_without_a_decoder(fields: list[tuple[str, str, bool]]) -> None:
    block = b"".join(literal(name, value) for name, value, _ in fields)
    assert values(Unaided(LIMIT).read(block)) == expected(fields)


@given(st.lists(FIELDS, max_size=4), st.booleans(), st.booleans())
def test_we_read_what_hpack_writes(
    blocks: list[list[tuple[str, str, bool]]], huffman: bool, has_table: bool
) -> None:
    encoder, reader = Encoder(), BlockReader(LIMIT)
    if not has_table:
        encoder.header_table_size = 0
    for fields in blocks:
        assert values(reader.read(encoder.encode(fields, huffman=huffman))) == expected(fields)


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_mean_to_us_what_they_mean_to_hpack(blocks: list[bytes]) -> None:
    oracle, reader = Decoder(LIMIT), BlockReader(LIMIT)
    for block in blocks:
        try:
            meant = [tuple(header) for header in oracle.decode(block, raw=True)]
        except (HPACKError, IndexError):
            meant = None
        try:
            read = values(reader.read(block))
        except RemoteProtocolError as error:
            judged = (error.code, meant)
            assert judged == (ErrorCode.COMPRESSION_ERROR, None)
            return
        # A value that is no Huffman code is found when it is looked at, and then is None.
        assert meant == read or (meant is None and any(value is None for _, value in read))
        if meant is None:
            return


@pytest.mark.parametrize("name", [":authority", "accept-charset", "age", "www-authenticate", "baggage"])
@pytest.mark.parametrize("size", [0, 1, 0x7E, 0x7F, 0x80, 0xFE, 0xFF, 0x100, 20_000])
def test_lengths_and_indexes_around_their_prefixes_are_read_back(name: str, size: int) -> None:
    block = literal(name, "v" * size)
    assert BlockReader(LIMIT).read(block) == [(name.encode(), b"v" * size, False)]
    assert Decoder(LIMIT).decode(block, raw=True) == [(name.encode(), b"v" * size)]


def test_a_static_field_is_one_byte() -> None:
    assert BlockReader(LIMIT).read(indexed(8)) == [(b":status", b"200", False)]


def test_a_literal_name_that_the_static_table_has_is_its_index() -> None:
    assert literal_name(b":method") == b"\x02"
    assert literal_name(b"forwarded") == b"\x00\x09forwarded"


@pytest.mark.parametrize("value", ["line\nbreak", "nul\0", "del\x7f", "no ascii \xe9"])
def test_a_value_that_http_forbids_is_not_written(value: str) -> None:
    with pytest.raises(ValueError, match=r"control character|ordinal not in range"):
        literal("baggage", value)


def test_a_header_list_beyond_the_limit_ends_the_connection() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        BlockReader(1000).read(literal("baggage", "b" * 1000))
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM
    assert BlockReader(1000).read(literal("baggage", "b" * 900))


def test_a_bomb_of_static_fields_ends_the_connection() -> None:
    with pytest.raises(RemoteProtocolError):
        BlockReader(LIMIT).read(indexed(8) * LIMIT)


def test_after_our_settings_are_acknowledged_the_table_is_forbidden() -> None:
    reader, encoder = BlockReader(LIMIT), Encoder()
    reader.read(encoder.encode([("x-kept", "1")]))
    reader.settings_acknowledged()
    with pytest.raises(RemoteProtocolError) as caught:
        reader.read(encoder.encode([("x-kept", "1")]))
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_incremental_literals_are_read_by_hand_once_the_table_has_no_size() -> None:
    reader, encoder = BlockReader(LIMIT), Encoder()
    reader.settings_acknowledged()
    encoder.header_table_size = 0
    reader.read(encoder.encode([("x-first", "says that the table is gone")]))
    block = encoder.encode([("x-new", "value")])
    assert block[0] == 0x40
    field = reader.read(block)[0]
    assert (field[0], plain(field)) == (b"x-new", b"value")
    assert field[2], "still coded: hpack was not asked"


def test_an_endless_length_is_refused_at_once() -> None:
    with pytest.raises(RemoteProtocolError, match="COMPRESSION_ERROR"):
        BlockReader(LIMIT).read(b"\x00\x7f" + b"\xff" * 60_000)


def test_only_short_strings_are_remembered() -> None:
    """The cache belongs to all peers, and its entries are chosen by them."""
    before = hpack_blocks._decoded.cache_info().currsize
    for number in range(50):
        long = coded(b"%d" % number + b"long" * 200)
        assert decoded(long) == b"%d" % number + b"long" * 200
    assert hpack_blocks._decoded.cache_info().currsize == before


def test_a_fault_names_no_address_in_our_memory() -> None:
    """The text goes to the peer in a GOAWAY; hpack's own has the buffer's repr."""
    with pytest.raises(RemoteProtocolError, match="bad header block") as caught:
        BlockReader(LIMIT).read(b"\x20\xff")
    assert "0x" not in str(caught.value)
