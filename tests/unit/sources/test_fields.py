"""Typed reading of mappings."""

import re
from pathlib import Path

import pytest

from zproxy.errors import ConfigError
from zproxy.sources.document import Place, Scalar, Sequence, parse
from zproxy.sources.fields import Fields, Text, did_you_mean

FILE = Path("mesh.yaml")
WORD = Text("a word", re.compile(r"[a-z]+"), 8)
KEYS = ("word", "kind", "count", "ips", "ports")


def fields(text: str) -> Fields:
    root = parse(text, FILE)
    assert root is not None
    return Fields(root, Place(FILE, root.line), KEYS)


def test_values_are_read_by_type() -> None:
    read = fields(
        "word: hello\nkind: B\ncount: 7\nips: [10.0.0.1, '::ffff:10.0.0.2', 'FD00::1']\nports: {80: x}"
    )
    assert read.text("word", WORD) == "hello"
    assert read.choice("kind", {"A": 1, "B": 2}, 0) == 2
    assert read.number("count", 1, 10, 1) == 7
    assert read.ips("ips") == ("10.0.0.1", "10.0.0.2", "fd00::1")
    assert [key for key, _, _ in read.entries("ports")] == ["80"]


def test_what_was_consumed_is_let_go_of() -> None:
    read = fields("ips: [a, [b], {c: d}]")
    entries = read.consume("ips")
    first, place = next(entries)
    assert (first, str(place.key)) == (Scalar(1, "a", is_quoted=False), "ips[0]")
    rest = [place.key for _, place in entries]
    assert rest == ["ips[1]", "ips[2]"]
    left = read.node("ips")
    assert isinstance(left, Sequence)
    assert [isinstance(item, Scalar) and item.text for item in left.items] == ["", "", ""]
    assert not list(read.consume("word"))


def test_absent_keys_have_their_defaults() -> None:
    read = fields("{}")
    assert read.text("word", WORD, "x") == "x"
    assert read.choice("kind", {"A": 1}, 9) == 9
    assert read.number("count", 1, 10, 3) == 3
    assert read.ips("ips") == ()
    assert not list(read.entries("ports"))
    assert "word" not in read


@pytest.mark.parametrize("text", ["yes", "No", "on", "OFF", "true", "False"])
def test_booleans_are_not_text_unless_quoted(text: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{text} is a boolean to YAML; if it is meant as text, put it in quotes"
    ):
        fields(f"word: {text}").text("word", WORD)
    assert fields(f"word: '{text.lower()}'").text("word", WORD) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "0",
        "-1",
        "+1",
        "007",
        "0x1f",
        "0b11",
        "0o17",
        "1_000",
        "1.5",
        "1.",
        ".5",
        "1e3",
        "1.5E-3",
        ".inf",
        "-.INF",
        ".nan",
    ],
)
def test_numbers_are_not_text_unless_quoted(text: str) -> None:
    with pytest.raises(ConfigError, match="is a number to YAML"):
        fields(f"word: {text}").text("word", Text("anything", re.compile(".*"), 99))


@pytest.mark.parametrize("text", ["v1", "1a", "1.2.3", "0x", "e3", "1e", "10.0.0.1", "nope", "trueish"])
def test_what_only_looks_like_a_number_or_boolean_is_text(text: str) -> None:
    assert fields(f"word: {text}").text("word", Text("anything", re.compile(".*"), 99)) == text


@pytest.mark.parametrize("text", ["", "~", "null", "NULL"])
def test_a_key_without_a_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="word: has no value; write one, or leave the key out"):
        fields(f"word: {text}").text("word", WORD, "default")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("Word", "word"),
        ("wrod", "word"),
        ("COUNT", "count"),
        ("port", "ports"),
        ("counts", "count"),
    ],
)
def test_a_near_miss_is_named(text: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"mesh.yaml:1: {text}: unknown key; did you mean '{near}'\\?"):
        fields(f"{text}: 1")


def test_without_a_near_miss_the_keys_are_listed() -> None:
    with pytest.raises(ConfigError, match="unknown key; the keys here are word, kind, count, ips, ports"):
        fields("zzzzzz: 1")


def test_case_and_separators_do_not_hide_a_near_miss() -> None:
    assert did_you_mean("workload_ips", ["workloadIps"]) == "; did you mean 'workloadIps'?"
    assert did_you_mean("hbone", ["TCP", "HBONE"]) == "; did you mean 'HBONE'?"
    assert did_you_mean("", ["TCP"]) == ""
