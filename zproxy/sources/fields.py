"""Typed reading of one mapping of a document, key by key; every complaint names file, line and key.

A value that YAML readers disagree about (an unquoted `no`, `1e3` or nothing at all) is refused where text
is wanted, instead of becoming what its writer did not mean.
"""

import difflib
import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple, TypeVar

from zproxy.model.addr import canonical_ip
from zproxy.sources.document import Mapping as MappingNode
from zproxy.sources.document import Node, Place, Scalar, Sequence

Value = TypeVar("Value")

_EMPTY: Final = re.compile(r"~|null|Null|NULL|")
_BOOLEAN: Final = re.compile(r"true|false|yes|no|on|off", re.IGNORECASE)
_NUMBER: Final = re.compile(
    r"""[-+]? (?: 0b[01_]+ | 0o[0-7_]+ | 0x[0-9a-f_]+
                | (?: [0-9][0-9_]*(?:\.[0-9_]*)? | \.[0-9][0-9_]* ) (?:e[-+]?[0-9]+)?
                | \.inf )
        | \.nan""",
    re.IGNORECASE | re.VERBOSE,
)
_FLAGS: Final = {"true": True, "false": False}
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,9}")

_CONSUMED: Final = Scalar(0, "", is_quoted=False)


class Text(NamedTuple):
    """A kind of text: which values it allows, and how a message describes them."""

    says: str
    pattern: re.Pattern[str]
    longest: int


class Fields:
    """One mapping, whose keys ALWAYS are among `known`; values are checked when they are read."""

    def __init__(self, node: Node, here: Place, known: Collection[str]) -> None:
        self._here = here
        self._mapping = mapping_of(node, here)
        for key in self._mapping.items:
            if key not in known:
                hint = did_you_mean(key, known) or f"; the keys here are {', '.join(known)}"
                raise self.place(key).error(f"unknown key{hint}")

    def __contains__(self, key: str) -> bool:
        return key in self._mapping.items

    def place(self, key: str) -> Place:
        """Return where `key` stands, or should stand."""
        return self._here.under(key, self._mapping.keys.get(key, self._mapping.line))

    def node(self, key: str) -> Node | None:
        """Return what stands under `key`, unchecked."""
        return self._mapping.items.get(key)

    def text(self, key: str, kind: Text, default: str | None = None) -> str:
        """Return the text under `key`; without a `default` the key is required."""
        node = self._mapping.items.get(key)
        if node is not None:
            return text_of(node, kind, self.place(key))
        if default is None:
            raise self.place(key).error(f"missing; every entry needs {kind.says}")
        return default

    def choice(self, key: str, choices: Mapping[str, Value], default: Value) -> Value:
        """Return what `choices` has for the text under `key`, in exactly its spelling."""
        node = self._mapping.items.get(key)
        return default if node is None else _chosen(node, self.place(key), choices)

    def number(self, key: str, low: int, high: int, default: int) -> int:
        """Return the whole number under `key`, from `low` to `high`."""
        node = self._mapping.items.get(key)
        return default if node is None else number_of(node, low, high, self.place(key))

    def ips(self, key: str) -> tuple[str, ...]:
        """Return the addresses listed under `key`, in canonical text, each once."""
        found: dict[str, int] = {}
        for item, place in self.items(key):
            ip = ip_of(item, place)
            if ip in found:
                raise place.error(f"{ip} is listed twice, first in line {found[ip]}; keep one")
            found[ip] = item.line
        return tuple(found)

    def flag(self, key: str) -> bool:
        """Return the boolean under `key`; False where there is no such key."""
        return self.choice(key, _FLAGS, default=False)

    def choices(self, key: str, choices: Mapping[str, Value]) -> tuple[Value, ...]:
        """Return what `choices` has for each text of the list under `key`; each may be there once."""
        found: list[Value] = []
        for item, place in self.items(key):
            value = _chosen(item, place, choices)
            if value in found:
                raise place.error(f"{_found(item)} is listed twice; keep one")
            found.append(value)
        return tuple(found)

    def items(self, key: str) -> Iterator[tuple[Node, Place]]:
        """Yield the entries of the list under `key`; nothing when the key is absent."""
        node = self._mapping.items.get(key)
        if node is not None:
            yield from items_of(node, self.place(key))

    def consume(self, key: str) -> Iterator[tuple[Node, Place]]:
        """Yield the same, and let go of each entry after its turn: a long list dies bit by bit."""
        for at, (item, place) in enumerate(self.items(key)):
            yield item, place
            node = self._mapping.items[key]
            assert isinstance(node, Sequence)  # or it would have had no entries
            node.items[at] = _CONSUMED

    def entries(self, key: str) -> Iterator[tuple[str, Node, Place]]:
        """Yield key, value and place of the mapping under `key`; nothing when the key is absent."""
        node = self._mapping.items.get(key)
        if node is None:
            return
        yield from entries_of(node, self.place(key))


def items_of(node: Node, here: Place) -> Iterator[tuple[Node, Place]]:
    """Yield the entries of a list and their places."""
    if not isinstance(node, Sequence):
        raise here.error(f"{_found(node)} is not a list; write [..] or one `- ` line per entry")
    for index, item in enumerate(node.items):
        yield item, here.entry(index, item.line)


def mapping_of(node: Node, place: Place) -> MappingNode:
    """Return `node` as a mapping."""
    if isinstance(node, MappingNode):
        return node
    raise place.error(f"{_found(node)} is not a mapping; write `key: value` lines")


def entries_of(node: Node, place: Place) -> Iterator[tuple[str, Node, Place]]:
    """Yield key, value and place of each entry of a mapping whose keys are data."""
    mapping = mapping_of(node, place)
    for key, value in mapping.items.items():
        yield key, value, place.under(key, mapping.keys[key])


def text_of(node: Node, kind: Text, place: Place) -> str:
    """Return `node` as text of `kind`."""
    if not isinstance(node, Scalar):
        raise place.error(f"{_found(node)} is not text; write {kind.says}")
    if not node.is_quoted:
        _refuse_ambiguous(node.text, place)
    return checked(node.text, kind, place)


def checked(text: str, kind: Text, place: Place) -> str:
    """Return `text` when it is of `kind`."""
    if len(text) > kind.longest:
        raise place.error(
            f"{len(text)} characters are too many; write {kind.says}, at most {kind.longest} long"
        )
    if kind.pattern.fullmatch(text) is None:
        raise place.error(f"{text[:60]!r} is not {kind.says}")
    return text


def number_of(node: Node, low: int, high: int, place: Place) -> int:
    """Return `node` as a whole number from `low` to `high`; a quoted one is text."""
    if not isinstance(node, Scalar) or node.is_quoted:
        raise place.error(f"{_found(node)} is not a number; write one from {low} to {high}, without quotes")
    return decimal(node.text, low, high, place)


def decimal(text: str, low: int, high: int, place: Place) -> int:
    """Return the whole number that `text` is, from `low` to `high`, without sign, zeros in front or base."""
    if _DECIMAL.fullmatch(text) is None or not low <= int(text) <= high:
        raise place.error(f"{text[:60]!r} is not a whole number from {low} to {high}")
    return int(text)


def ip_of(node: Node, place: Place) -> str:
    """Return `node` as the canonical text of an address that one host can have."""
    text = node.text if isinstance(node, Scalar) else ""
    try:
        address = ipaddress.ip_address(text if "%" not in text else "")
    except ValueError:
        hint = "; write the address without a prefix length" if "/" in text else ""
        raise place.error(f"{_found(node)} is not an IP address{hint}") from None
    if address.is_unspecified or address.is_multicast:
        raise place.error(f"{text} is not the address of a workload")
    return canonical_ip(text)


def did_you_mean(text: str, known: Collection[str]) -> str:
    """Return `; did you mean 'x'?` when something known is near to `text`, else nothing."""
    plain = {word.casefold(): word for word in known}
    near = difflib.get_close_matches(text[:60].casefold(), plain, n=1, cutoff=0.7)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""


def _chosen(node: Node, place: Place, choices: Mapping[str, Value]) -> Value:
    text = node.text if isinstance(node, Scalar) else ""
    if text not in choices:
        wanted = ", ".join(choices)
        raise place.error(f"{_found(node)} is not one of {wanted}{did_you_mean(text, choices)}")
    return choices[text]


def _refuse_ambiguous(text: str, place: Place) -> None:
    if _EMPTY.fullmatch(text):
        raise place.error("has no value; write one, or leave the key out")
    for meaning, pattern in (("a boolean", _BOOLEAN), ("a number", _NUMBER)):
        if pattern.fullmatch(text):
            raise place.error(f"{text} is {meaning} to YAML; if it is meant as text, put it in quotes")


def _found(node: Node) -> str:
    if isinstance(node, Scalar):
        return repr(node.text[:60]) if node.text else "an empty value"
    return "a list" if isinstance(node, Sequence) else "a mapping"
