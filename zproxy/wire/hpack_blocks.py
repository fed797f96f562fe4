"""Header blocks (RFC 7541) without a dynamic table: literals by hand, hpack for the rest.

We announce SETTINGS_HEADER_TABLE_SIZE 0, and our own blocks never touch the table: the first one of a
connection says so (`NO_TABLE`), and every block is then the same bytes on every connection and may be cached.
A peer's block is read here only if it does not depend on the table either; any other one, and any broken one,
goes whole to hpack's decoder, which keeps the state and finds the words for errors.
"""

from functools import lru_cache
from typing import Final

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from zproxy.wire.errors import ErrorCode, RemoteProtocolError

Field = tuple[bytes, bytes, bool]
"""Name, value, and whether the value is still Huffman-coded: most values are never looked at. See `plain`."""

NO_TABLE: Final = b"\x20"
"""Dynamic table size update to 0; leads the first block that we send on a connection."""

_STATIC: Final = tuple((bytes(name), bytes(value), False) for name, value in HeaderTable.STATIC_TABLE)
_INDEX: Final = {name: index for index, (name, _, _) in reversed(list(enumerate(_STATIC, 1)))}
_LONG: Final = 0x7F
"""String lengths from here on take more bytes."""
_FIELD_OVERHEAD: Final = 32
"""Per field in a header list's size (RFC 9113 6.5.2)."""


_REMEMBERED: Final = 256
"""Longest Huffman string worth remembering: a peer chooses them, and the cache is everybody's."""


def decoded(coded: bytes) -> bytes:
    """Decode a Huffman string: slow, and most come again (names, authorities, baggage)."""
    return _decoded(coded) if len(coded) <= _REMEMBERED else bytes(decode_huffman(coded))


@lru_cache(maxsize=4096)
def _decoded(coded: bytes) -> bytes:
    return bytes(decode_huffman(coded))


def plain(field: Field) -> bytes | None:
    """Return a field's value; None when it is no valid Huffman code."""
    _, value, is_coded = field
    try:
        return decoded(value) if is_coded else value
    except HPACKError:
        return None


def coded(text: bytes) -> bytes:
    """Return the Huffman code of a string, to compare with."""
    return bytes(Encoder().huffman_coder.encode(text))


def literal(name: str, value: str) -> bytes:
    """Write a field that is in no table afterwards (RFC 7541 6.2.2); ValueError when it is no HTTP field."""
    raw = value.encode("ascii")
    if not value.isprintable():
        raise ValueError(f"the value of {name} has a control character")
    return literal_name(name.encode("ascii")) + string_length(len(raw)) + raw


def literal_name(name: bytes) -> bytes:
    """Write the part of a literal field that precedes its value."""
    index = _INDEX.get(name, 0)
    if index:
        return bytes((index,)) if index < 0x0F else bytes((0x0F, index - 0x0F))
    return b"\x00" + string_length(len(name)) + name


def indexed(index: int) -> bytes:
    """Write a whole field of the static table."""
    return bytes((0x80 | index,))


def string_length(size: int) -> bytes:
    """Write the length of a string that is not Huffman-coded (RFC 7541 5.1)."""
    if size < _LONG:
        return bytes((size,))
    size -= _LONG
    tail = bytearray((_LONG,))
    while size >= 0x80:
        tail.append(size & 0x7F | 0x80)
        size >>= 7
    tail.append(size)
    return bytes(tail)


class BlockReader:
    """Reads the blocks of one direction of one connection. ALWAYS shown every block, also of dead streams."""

    __slots__ = ("_decoder", "_limit")

    def __init__(self, header_list: int) -> None:
        self._limit = header_list
        self._decoder = Decoder(max_header_list_size=header_list)

    def settings_acknowledged(self) -> None:
        """Hold the peer to our HEADER_TABLE_SIZE 0, which it knows from now on."""
        self._decoder.max_allowed_table_size = 0

    def read(self, block: bytes) -> list[Field]:
        """Return the block's fields, or raise the RemoteProtocolError that ends the connection."""
        try:
            fields = self._tableless(block)
        except (IndexError, HPACKError):
            fields = None
        return self._decode(block) if fields is None else fields

    def _tableless(self, block: bytes) -> list[Field] | None:
        """Read a block that depends on no table; None when it may, or is too large, or is odd."""
        size, at, total = len(block), 0, 0
        # With a table of no size, "with incremental indexing" changes nothing.
        other = 0x80 if self._decoder.header_table_size == 0 else 0x40
        fields: list[Field] = []
        while at < size:
            first = block[at]
            at += 1
            if first > 0x80:
                field = _STATIC[(first & 0x7F) - 1]
            elif first >= other or 0x20 <= first < 0x40:
                return None
            else:
                index = first & (0x3F if first >= 0x40 else 0x0F)
                if index:
                    name, at = _static_name(block, at, index, first)
                else:
                    name, is_coded, at = _string(block, at)
                    if is_coded:
                        name = decoded(name)
                value, is_coded, at = _string(block, at)
                field = (name, value, is_coded)
            total += _FIELD_OVERHEAD + len(field[0]) + len(field[1]) * 8 // 5
            fields.append(field)
        return fields if total <= self._limit else None

    def _decode(self, block: bytes) -> list[Field]:
        try:
            return [
                (bytes(name), bytes(value), False) for name, value in self._decoder.decode(block, raw=True)
            ]
        except OversizedHeaderListError as error:
            text = f"the header list is larger than {self._limit} bytes"
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, text) from error
        except (HPACKError, IndexError) as error:
            # Not the error's own words: they may name an address in our memory, and the peer is told ours.
            text = f"bad header block ({type(error).__name__})"
            raise RemoteProtocolError(ErrorCode.COMPRESSION_ERROR, text) from error


def _static_name(block: bytes, at: int, index: int, first: int) -> tuple[bytes, int]:
    """Finish reading an index into the static table; IndexError when it points elsewhere."""
    if index == (0x3F if first >= 0x40 else 0x0F):
        index += block[at]  # with its continuation bit set it is beyond the static table, as it should be
        at += 1
    return _STATIC[index - 1][0], at


def _string(block: bytes, at: int) -> tuple[bytes, bool, int]:
    """Read a string as it stands, and whether it is Huffman-coded; IndexError when it is truncated."""
    head = block[at]
    at += 1
    length = head & 0x7F
    if length == _LONG:
        shift = 0
        while True:
            byte = block[at]
            at += 1
            length += (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift > 21:
                break
    end = at + length
    if end > len(block):
        raise IndexError
    return block[at:end], head >= 0x80, end
