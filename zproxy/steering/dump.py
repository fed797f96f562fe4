"""`bpftool map show|dump|lookup|getnext`, byte for byte, read by raw bpf(2): the face of the dump modules.

Text is yielded as it is made, so that a large map streams. A failure is a DumpError with bpftool's sentence
and exit status; brackets that were opened are closed before it is raised.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from typing import Final

from zproxy.steering.dialect import Dialect, installed
from zproxy.steering.dump_entries import REUSEPORT_SOCKARRAY, Reader, View
from zproxy.steering.dump_json import text
from zproxy.steering.dump_plain import hex_rows
from zproxy.steering.dump_show import header_json, header_plain, show_all, show_one
from zproxy.steering.grammar import DumpError, Misuse, parse_key, status_of
from zproxy.steering.handles import LINK, MAP, PROG, Noun, check_shown, is_bare, pinned_nodes
from zproxy.steering.handles_pins import Pins, find_pins
from zproxy.steering.info import MapInfo
from zproxy.steering.maps import OpenMap
from zproxy.steering.syscall import map_next_key

__all__ = [
    "LINK",
    "MAP",
    "PROG",
    "DumpError",
    "Misuse",
    "Noun",
    "Pins",
    "View",
    "check_shown",
    "dump",
    "find_pins",
    "installed",
    "is_bare",
    "lookup",
    "next_key",
    "pinned_nodes",
    "show_all",
    "show_one",
    "warning",
]

_NOT_FOUND: Final = 254
"""Exit status of a key that is not there: ENOENT."""


def dump(maps: Sequence[OpenMap], view: View) -> Iterator[str]:
    """Print all elements of each map, of several under a header each. No map is a failure without words."""
    if not maps:
        raise DumpError
    if not view.is_json and not all(opened.info.btf_id for opened in maps):
        yield from _dump_plain(maps, view)
        return
    if len(maps) == 1:
        failure = yield from _dump_bracketed(Reader(maps[0], view, 1, with_types=True), view, 0)
    else:
        failure = yield from _dump_headed(maps, view)
    yield "\n"
    if failure:
        raise failure


def lookup(maps: Sequence[OpenMap], words: Sequence[str], view: View) -> Iterator[str]:
    """Print the element of the one map whose key `words` spell."""
    opened = _only(maps)
    size = opened.info.key_size
    key = parse_key(words, size, is_needed=size > 0)
    reader = Reader(opened, view, 0, with_types=True)
    try:
        found = reader.find(key)
    except OSError as error:
        raise DumpError(f"lookup failed: {os.strerror(error.errno or 0)}", status_of(error)) from error
    if found is None:
        yield "null\n" if view.is_json else f"key:\n{hex_rows(key)}\n\nNot found\n"
        raise DumpError(status=_NOT_FOUND)
    yield found + ("\n" if view.is_json or reader.is_typed else "")


def next_key(maps: Sequence[OpenMap], words: Sequence[str], view: View) -> Iterator[str]:
    """Print the key that follows the one that `words` spell, the first one without words."""
    opened = _only(maps)
    key = parse_key(words, opened.info.key_size) if words else None
    try:
        following = map_next_key(opened.fd, key, opened.info.key_size)
    except OSError as error:
        raise DumpError(f"can't get next key: {os.strerror(error.errno or 0)}", status_of(error)) from error
    if following is None:
        raise DumpError("can't get next key: No such file or directory", _NOT_FOUND)
    if not view.is_json:
        first = "key: None" if key is None else f"key:\n{hex_rows(key)}"
        yield f"{first}\nnext key:\n{hex_rows(following)}\n"
        return
    hex_array = view.layout.hex_array(opened.info.key_size, 1)
    first = "null" if key is None else hex_array(key, 0)
    yield view.layout.object([("key", text(first)), ("next_key", hex_array)], 0)(following, 0) + "\n"


def warning(info: MapInfo, dialect: Dialect) -> str | None:
    """Return what bpftool says on stderr before a plain dump of this map, if anything."""
    if info.type != REUSEPORT_SOCKARRAY or info.value_size == 8:
        return None
    return f"Warning: cannot read values from {dialect.map_type(info.type)} map with value_size != 8"


def _only(maps: Sequence[OpenMap]) -> OpenMap:
    if len(maps) > 1:
        raise DumpError("several maps match this handle")
    if not maps:
        raise DumpError
    return maps[0]


def _dump_plain(maps: Sequence[OpenMap], view: View) -> Iterator[str]:
    for number, opened in enumerate(maps, 1):
        if len(maps) > 1:
            yield header_plain(opened.info, view.dialect)
        found, failure = 0, None
        try:
            for element in Reader(opened, view, 0, with_types=False).elements():
                found += element.is_found
                yield element.text
        except DumpError as error:
            failure = error
        yield f"Found {found} element{'' if found == 1 else 's'}\n"
        if number < len(maps):
            yield "\n"
        if failure:
            raise failure


def _dump_headed(maps: Sequence[OpenMap], view: View) -> Generator[str, None, DumpError | None]:
    layout = view.layout
    start = "["
    for opened in maps:
        members = [*header_json(opened.info, view.dialect), ("elements", "")]
        yield f"{start}{{{','.join(layout.name(name, 1) + value for name, value in members)}"
        failure = yield from _dump_bracketed(Reader(opened, view, 3, with_types=True), view, 2)
        yield layout.line(1) + "}"
        if failure:
            break
        start = ","
    yield layout.line(0) + "]"
    return failure


def _dump_bracketed(reader: Reader, view: View, depth: int) -> Generator[str, None, DumpError | None]:
    """Print all elements of a map in brackets at `depth`, and return what ended the walk early."""
    failure = None
    comma = ""
    yield "["
    try:
        for element in reader.elements():
            if not element.is_part:
                yield element.text
                continue
            yield comma + element.text
            comma = ","
    except DumpError as error:
        failure = error
    yield (view.layout.line(depth) if comma else "") + "]"
    return failure
