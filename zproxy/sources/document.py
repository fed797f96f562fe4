"""A strict subset of YAML as a tree that remembers lines: mappings, sequences, scalars, nothing else.

Refused with a sentence: more than one document, anchors, aliases and tags (so nothing can be constructed,
expanded or run), keys that are not plain text or come twice, and what is too deep or too large.
JSON is a subset of this subset.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from zproxy.errors import ConfigError
from zproxy.sources.pace import Pause, hurry

MAX_DEPTH: Final = 16
"""Nested mappings and sequences; a mesh needs six."""
MAX_NODES: Final = 4_000_000
"""Scalars and collections; about 150,000 workloads."""
_LONGEST_SHOWN: Final = 60
_STRIDE: Final = 32
"""Parser events between pauses: some 60 microseconds."""

# libyaml is 20 times faster than the parser in Python.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value as it is written; the reader decides what it means."""

    line: int
    text: str
    is_quoted: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """Values in order."""

    line: int
    items: "list[Node]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Values by key. `keys` holds the line of each key; both in the order of the document."""

    line: int
    items: "dict[str, Node]" = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)


Node = Scalar | Sequence | Mapping


class Place(NamedTuple):
    """Where in a document something stands, for people."""

    path: Path
    line: int
    key: str = ""
    """As one would write it: `workloads[2].serviceAccount`; empty for the document itself."""

    def under(self, key: str, line: int) -> "Place":
        """Return the place of `key` in the mapping that stands here."""
        if not key.isidentifier() or len(key) > _LONGEST_SHOWN:
            return Place(self.path, line, f"{self.key}[{show(key)}]")
        return Place(self.path, line, f"{self.key}.{key}" if self.key else key)

    def entry(self, index: int, line: int) -> "Place":
        """Return the place of an entry of the list that stands here."""
        return Place(self.path, line, f"{self.key}[{index}]")

    def error(self, sentence: str) -> ConfigError:
        """Return the error that says `sentence` about this place."""
        return ConfigError(f"{self.path}:{self.line}: {self.key + ': ' if self.key else ''}{sentence}")


def show(text: str) -> str:
    """Return `text` as it may stand in a message: printable, on one line, cut when it is long."""
    is_plain = text.isprintable() and 0 < len(text) <= _LONGEST_SHOWN
    return text if is_plain else repr(text[:_LONGEST_SHOWN])


def parse(text: str, path: Path, pause: Pause = hurry) -> Node | None:
    """Return the one document of `text`, None when there is none; raise ConfigError that names `path`."""
    builder = _Builder(path)
    try:
        for number, event in enumerate(yaml.parse(text, Loader=_LOADER)):
            builder.take(event)
            if not number % _STRIDE:
                pause()
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, text, path) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Place(path, line).error("has a control character; YAML text may not hold one") from error
    return builder.root


@dataclass(slots=True)
class _Level:
    """A collection whose end has not come yet."""

    collection: Sequence | Mapping
    key: Scalar | None = None
    """In a mapping, the key whose value is awaited or still open."""

    def place_of_next(self, here: Place, line: int, *, is_open: bool) -> Place:
        """Return the place of the value that comes next, or of the one that `is_open`."""
        if isinstance(self.collection, Sequence):
            return here.entry(len(self.collection.items) - is_open, line)
        return here if self.key is None else here.under(self.key.text, line)


class _Builder:
    """Builds the tree from parser events, without recursion, so that hostile nesting costs nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._levels: list[_Level] = []
        self._documents = 0
        self._nodes = 0
        self.root: Node | None = None

    def take(self, event: yaml.Event) -> None:
        """Add one event; raise ConfigError where the subset ends."""
        if isinstance(event, yaml.NodeEvent):
            self._refuse_cleverness(event)
            self._add(_node(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            self._levels.pop()
            self._value_is_complete()
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._error(_line(event), "a second document begins here; keep only one")

    def _refuse_cleverness(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            name = ("alias *" if isinstance(event, yaml.AliasEvent) else "anchor &") + show(event.anchor)
            raise self._error(_line(event), f"the YAML {name} is not allowed here; write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self._error(_line(event), f"the YAML tag {show(tag)} is not allowed here; leave it away")

    def _add(self, node: Node) -> None:
        self._bound(node)
        if not self._levels:
            self.root = node
        elif isinstance(collection := self._levels[-1].collection, Sequence):
            collection.items.append(node)
        elif (key := self._levels[-1].key) is None:
            self._levels[-1].key = self._new_key(collection, node)
            return
        else:
            collection.items[key.text] = node
        if isinstance(node, Scalar):
            self._value_is_complete()
        else:
            self._levels.append(_Level(node))

    def _bound(self, node: Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(
                node.line, f"there are more than {MAX_NODES} values; is this the file of a mesh?"
            )
        if len(self._levels) == MAX_DEPTH and not isinstance(node, Scalar):
            raise self._error(node.line, f"nested deeper than {MAX_DEPTH} levels")

    def _new_key(self, mapping: Mapping, key: Node) -> Scalar:
        if not isinstance(key, Scalar):
            raise self._error(key.line, "a list or a mapping is used as a key; keys are plain text")
        first = mapping.keys.setdefault(key.text, key.line)
        if key.text in mapping.items:
            place = self._place(key.line).under(key.text, key.line)
            raise place.error(f"the key is there twice, first in line {first}; keep one")
        return key

    def _value_is_complete(self) -> None:
        if self._levels:
            self._levels[-1].key = None

    def _place(self, line: int) -> Place:
        place = Place(self._path, line)
        for level in self._levels:
            place = level.place_of_next(place, line, is_open=level is not self._levels[-1])
        return place

    def _error(self, line: int, sentence: str) -> ConfigError:
        return self._place(line).error(sentence)


def _node(event: yaml.NodeEvent) -> Node:
    line = _line(event)
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(line, event.value, bool(event.style))
    return Sequence(line) if isinstance(event, yaml.SequenceStartEvent) else Mapping(line)


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None  # every event of a parser has one
    return event.start_mark.line + 1


def _not_yaml(error: yaml.MarkedYAMLError, text: str, path: Path) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    if mark is not None and "\t" in _indent_of(text, mark.line):
        return Place(path, line).error("a tab is used to indent; YAML takes only spaces")
    context = f" {error.context}" if error.context else ""
    return Place(path, line).error(f"not valid YAML{context}: {error.problem}")


def _indent_of(text: str, line: int) -> str:
    """Return the white space that begins a line (counted from 0)."""
    lines = text.split("\n", line + 1)
    content = lines[line] if line < len(lines) else ""
    return content[: len(content) - len(content.lstrip())]
