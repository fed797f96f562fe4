"""bpftool's command grammar: keywords that may be cut short, C numbers, bytes of a key, and its sentences."""

import re
from collections.abc import Sequence
from typing import Final

from zproxy.errors import SteeringError

_SPACE: Final = r"[ \t\n\v\f\r]*[+-]?"
_NUMBER: Final = {
    0: re.compile(
        _SPACE + r"(?:0[xX](?P<hex>[0-9a-fA-F]+)|0(?P<octal>[0-7]*)|(?P<decimal>[1-9][0-9]*))", re.ASCII
    ),
    16: re.compile(_SPACE + r"(?:0[xX])?(?P<hex>[0-9a-fA-F]+)", re.ASCII),
}
_BASES: Final = {"hex": 16, "octal": 8, "decimal": 10}
_LARGEST: Final = (1 << 64) - 1


class DumpError(SteeringError):
    """A failure that bpftool has too: its sentence, which may be empty, and its exit status."""

    def __init__(self, sentence: str = "", status: int = 255) -> None:
        super().__init__(sentence)
        self.status = status


class Misuse(DumpError):
    """A command line at which bpftool prints how it is used; in JSON it says `null`."""


def status_of(error: OSError) -> int:
    """Return the exit status that bpftool makes of an errno: negative, cut to eight bits."""
    return -(error.errno or 1) & 0xFF


def is_short_for(word: str, keyword: str) -> bool:
    """Whether `word` stands for `keyword`: any first letters do, even none."""
    return keyword.startswith(word)


def unsigned(word: str, base: int = 0) -> int | None:
    """Read a number as strtoul(3) does, None when something else follows. Base 0 knows 0x1f and 017.

    An empty word is zero, a negative number wraps and one that is too large becomes the largest.
    """
    if not word:
        return 0
    match = _NUMBER[base].fullmatch(word)
    if match is None:
        return None
    kind = match.lastgroup or "decimal"
    number = int(match[kind] or "0", _BASES[kind])
    if number > _LARGEST:
        return _LARGEST
    return -number & _LARGEST if "-" in word else number


def parse_key(words: Sequence[str], size: int, *, is_needed: bool = True) -> bytes:
    """Read `key [hex] BYTES`, exactly `size` of them; of a number only the lowest byte counts.

    Unless it `is_needed` there may be no words. Raise DumpError with bpftool's sentence otherwise.
    """
    key: bytes | None = None if is_needed else b""
    while words:
        word = words[0]
        if is_short_for(word, "key"):
            if key is not None:
                raise DumpError("duplicate key" if size else "unnecessary key")
            key, words = _take_bytes(words[1:], size)
        elif is_short_for(word, "value"):
            raise DumpError("unnecessary value")
        elif any(is_short_for(word, flag) for flag in ("any", "noexist", "exist")):
            raise DumpError(f"flags specified multiple times: {word}")
        else:
            raise DumpError(f"expected key or value, got: {word}")
    if key is None:
        raise DumpError("did not find key")
    return key


def _take_bytes(words: Sequence[str], size: int) -> tuple[bytes, Sequence[str]]:
    base = 0
    if words and is_short_for(words[0], "hex"):
        base, words = 16, words[1:]
    taken = bytearray()
    for word in words[:size]:
        number = unsigned(word, base)
        if number is None:
            raise DumpError(f"error parsing byte: {word}")
        taken.append(number & 0xFF)
    if len(taken) != size:
        raise DumpError(f"key expected {size} bytes got {len(taken)}")
    return bytes(taken), words[size:]
