"""bpftool's words: numbers as C reads them, keys, and what is said about wrong ones."""

import pytest

from zproxy.steering.grammar import DumpError, is_short_for, parse_key, unsigned

LARGEST = (1 << 64) - 1


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("0", 0),
        ("10", 10),
        ("0x1F", 31),
        ("017", 15),
        ("+5", 5),
        (" \t7", 7),
        ("-1", LARGEST),
        ("-0", 0),
        ("18446744073709551615", LARGEST),
        ("99999999999999999999", LARGEST),
        ("-99999999999999999999", LARGEST),
        ("", 0),
        ("08", None),
        ("0x", None),
        ("0xg", None),
        ("1 ", None),
        ("1a", None),
        ("--1", None),
        (" ", None),
        ("٣", None),
    ],
)
def test_numbers_are_read_as_strtoul_does(word: str, number: int | None) -> None:
    assert unsigned(word) == number


@pytest.mark.parametrize(
    ("word", "number"), [("10", 16), ("0x10", 16), ("ff", 255), ("fg", None), ("0x", None)]
)
def test_hexadecimal_needs_no_prefix_where_it_is_expected(word: str, number: int | None) -> None:
    assert unsigned(word, 16) == number


def test_a_keyword_may_be_cut_anywhere() -> None:
    assert all(is_short_for(word, "pinned") for word in ("pinned", "pin", "p", ""))
    assert not is_short_for("pinned2", "pinned")
    assert not is_short_for("in", "pinned")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("key 1 2 3 4", b"\1\2\3\4"),
        ("k 0x0a 010 -1 256", b"\x0a\x08\xff\0"),
        ("key hex a 0b 0x0c ff", b"\x0a\x0b\x0c\xff"),
        ("key h 10 10 10 10", b"\x10\x10\x10\x10"),
    ],
)
def test_a_key_is_a_number_for_each_byte(words: str, key: bytes) -> None:
    assert parse_key(words.split(), 4) == key


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "did not find key"),
        ("key 1 2 3", "key expected 4 bytes got 3"),
        ("key", "key expected 4 bytes got 0"),
        ("key hex", "key expected 4 bytes got 0"),
        ("key 1 2 3 x", "error parsing byte: x"),
        ("key 1 2 3 4 5", "expected key or value, got: 5"),
        ("key 1 2 3 4 key 1 2 3 4", "duplicate key"),
        ("key 1 2 3 4 value 1", "unnecessary value"),
        ("noexist", "flags specified multiple times: noexist"),
        ("any", "flags specified multiple times: any"),
        ("zp_pods", "expected key or value, got: zp_pods"),
    ],
)
def test_a_wrong_key_is_named(words: str, sentence: str) -> None:
    with pytest.raises(DumpError, match=f"^{sentence}$") as caught:
        parse_key(words.split(), 4)
    assert caught.value.status == 255


def test_a_map_without_keys_takes_none() -> None:
    assert parse_key([], 0, is_needed=False) == b""
    assert parse_key(["key"], 0) == b""
    with pytest.raises(DumpError, match="unnecessary key"):
        parse_key(["key"], 0, is_needed=False)
